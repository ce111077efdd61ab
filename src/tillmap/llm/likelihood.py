"""Chooses, of the allowed answers, the one that is likeliest as a whole: greedy decoding need not find it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from typing import NamedTuple, TypeAlias

from tillmap.core.completions import Completion, Question, finished
from tillmap.llm.token_trie import TokenTrie

_FEW = 128  # so many answers are all scored; of more, those that the beams reach

_Tokens: TypeAlias = tuple[int, ...]


class Start(NamedTuple):
    """The start of an answer to the question at `place` of a batch, and tokens that could come next."""

    place: int
    tokens: _Tokens
    following: _Tokens = ()


class Scored(NamedTuple):
    """The natural log of a start's probability, and that of each token that could come next."""

    logprob: float
    following: Mapping[int, float]


Score: TypeAlias = Callable[[Sequence[Start]], list[Scored]]


@dataclass(frozen=True)
class Choice:
    """The answers scored, likeliest first, with their natural log probabilities; `tokens` are those of the first."""

    answers: tuple[tuple[str, float], ...]
    tokens: int

    def completion(self, question: Question, prompt_tokens: int) -> Completion:
        """The likeliest answer; `candidates` are all that were scored, with probabilities that sum to 1 over them."""
        (text, best), *_ = self.answers
        weights = [exp(logprob - best) for _, logprob in self.answers]
        return finished(
            question,
            text,
            logprob=round(best, 4),
            candidates=[
                [answer, round(weight / sum(weights), 6)]
                for (answer, _), weight in zip(self.answers, weights, strict=True)
            ],
            prompt_tokens=prompt_tokens,
            completion_tokens=self.tokens,
        )


class LikelihoodRanker:
    """Knows answers by their tokens, and searches among them."""

    def __init__(self, tokenize: Callable[[list[str]], Sequence[Sequence[int]]], eos: int) -> None:
        """`tokenize` turns answers into token ids without `eos`, the id that ends an answer and is scored with it."""
        self._tokenize, self._eos = tokenize, eos

    def choose(self, allowed: Mapping[int, tuple[str, ...]], score: Score, beams: int) -> dict[int, Choice]:
        """The choice among the answers allowed to each question, both known by the question's place in a batch.

        Equally likely answers are ranked by their tokens.
        """
        found: dict[int, dict[_Tokens, float]] = {place: {} for place in allowed}
        asked = [Start(place, tokens) for place, answers in allowed.items() if len(answers) <= _FEW
                 for tokens in self._known(answers)[0]]  # fmt: skip
        for start, scored in zip(asked, score(asked), strict=True):
            found[start.place][start.tokens] = scored.logprob
        many = {place: self._known(answers)[1] for place, answers in allowed.items() if len(answers) > _FEW}
        found |= self._search(many, score, beams)
        choices = {}
        for place, reached in found.items():
            texts = self._known(allowed[place])[0]
            (first, _), *_ = ranked = _best(reached, len(reached))
            choices[place] = Choice(tuple((texts[tokens], logprob) for tokens, logprob in ranked), len(first))
        return choices

    def _search(self, tries: Mapping[int, TokenTrie], score: Score, width: int) -> dict[int, dict[_Tokens, float]]:
        """The answers that a beam search reaches, with their log probabilities.

        A step of it is one choice between tokens; tokens that must follow cost no step. A whole answer stays among the
        beams, so that the search is over when all beams are whole answers.
        """
        beams: dict[int, dict[_Tokens, float]] = {place: {(): 0.0} for place in tries}
        while True:
            asked = [
                (tokens, Start(place, *map(tuple, tries[place].branch(tokens))))
                for place, reached in beams.items() for tokens in reached if tokens[-1:] != (self._eos,)
            ]  # fmt: skip
            if not asked:
                return beams
            for (tokens, start), scored in zip(asked, score([start for _, start in asked]), strict=True):
                reached = beams[start.place]
                del reached[tokens]
                if not start.following:
                    reached[start.tokens] = scored.logprob
                for token in start.following:
                    reached[(*start.tokens, token)] = scored.logprob + scored.following[token]
            beams = {place: dict(_best(reached, width)) for place, reached in beams.items()}

    @lru_cache(maxsize=256)  # noqa: B019  # lives as long as its engine, and so its process
    def _known(self, answers: tuple[str, ...]) -> tuple[dict[_Tokens, str], TokenTrie]:
        """The answers by their tokens, `eos` included, and the trie of them."""
        tokens = self._tokenize(list(answers))
        texts: dict[_Tokens, str] = {}
        for answer, ids in zip(answers, tokens, strict=True):
            texts.setdefault((*ids, self._eos), answer)
        return texts, TokenTrie(tokens, self._eos)


def _best(reached: Mapping[_Tokens, float], most: int) -> list[tuple[_Tokens, float]]:
    return sorted(reached.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
