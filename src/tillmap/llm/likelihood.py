"""Likelihood ranking: sorts the allowed answers by the probability of the whole answer.

Greedy decoding may miss the most likely answer: it takes the most likely first token, even if every answer that starts
with it is less likely than one that does not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from typing import NamedTuple, TypeAlias

from tillmap.core.completions import Completion, Question, finished
from tillmap.llm.token_trie import TokenTrie

_MAX_SCORED = 128  # up to so many answers are all scored; among more, those that a beam search finds

_Tokens: TypeAlias = tuple[int, ...]


class Start(NamedTuple):
    """The first tokens of an answer to the question at `place` in a batch, and tokens that may come next."""

    place: int
    tokens: _Tokens
    following: _Tokens = ()


class Scored(NamedTuple):
    """The natural log of the probability of a start, and of each token that may come next."""

    logprob: float
    following: Mapping[int, float]


Score: TypeAlias = Callable[[Sequence[Start]], list[Scored]]


@dataclass(frozen=True)
class RankedAnswers:
    """Answers and their natural log probabilities, most likely first; `tokens` is the length of the first, with eos."""

    answers: tuple[tuple[str, float], ...]
    tokens: int

    def completion(self, question: Question, prompt_tokens: int) -> Completion:
        """The most likely answer. `candidates` are all scored answers; their probabilities are scaled to sum to 1."""
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
    """Ranks the allowed answers of questions by a model's probabilities."""

    def __init__(self, tokenize: Callable[[list[str]], Sequence[Sequence[int]]], eos: int) -> None:
        """`tokenize` gives the token ids of answers, without `eos`, the id that ends an answer and is scored too."""
        self._tokenize, self._eos = tokenize, eos
        self._known = lru_cache(maxsize=256)(self._read)

    def rank(self, allowed: Mapping[int, tuple[str, ...]], score: Score, beams: int) -> dict[int, RankedAnswers]:
        """Rank the answers allowed to each question, by the question's place in a batch.

        `score` asks the model. Up to 128 answers are all scored; among more, a search with `beams` beams finds those to
        rank. Equally likely answers are sorted by their tokens.
        """
        found: dict[int, dict[_Tokens, float]] = {place: {} for place in allowed}
        asked = [Start(place, tokens) for place, answers in allowed.items() if len(answers) <= _MAX_SCORED
                 for tokens in self._known(answers)[0]]  # fmt: skip
        for start, scored in zip(asked, score(asked), strict=True):
            found[start.place][start.tokens] = scored.logprob
        many = {place: self._known(answers)[1] for place, answers in allowed.items() if len(answers) > _MAX_SCORED}
        found |= self._search(many, score, beams)
        ranking = {}
        for place, reached in found.items():
            texts = self._known(allowed[place])[0]
            (first, _), *_ = ranked = _best(reached, len(reached))
            answers = tuple((texts[tokens], logprob) for tokens, logprob in ranked)
            ranking[place] = RankedAnswers(answers, len(first))
        return ranking

    def _search(self, tries: Mapping[int, TokenTrie], score: Score, width: int) -> dict[int, dict[_Tokens, float]]:
        """The answers that a beam search finds, and their log probabilities.

        Each step is a choice between several tokens. Tokens that must follow are skipped: after "green t" the rest of
        "green tea | " needs no step if no other answer starts so. Complete answers stay among the beams, and the search
        ends when all beams are complete.
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

    def _read(self, answers: tuple[str, ...]) -> tuple[dict[_Tokens, str], TokenTrie]:
        """The answers by their tokens, `eos` included, and their trie."""
        tokens = self._tokenize(list(answers))
        texts: dict[_Tokens, str] = {}
        for answer, ids in zip(answers, tokens, strict=True):
            texts.setdefault((*ids, self._eos), answer)
        return texts, TokenTrie(tokens, self._eos)


def _best(reached: Mapping[_Tokens, float], most: int) -> list[tuple[_Tokens, float]]:
    return sorted(reached.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
