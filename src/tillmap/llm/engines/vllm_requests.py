"""Requests to vLLM beyond plain generation: probabilities of given answers, and grammars of allowed answers."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import groupby
from os.path import commonprefix
from typing import Any
from unittest.mock import patch

from tillmap.llm.interface.answer_formats import OpenAnswers
from tillmap.llm.likelihood import Scored, Start

_MAX_LISTED = 64  # texts in one list of alternatives; 16 to 64 are equally fast, 256 is slower (measured)
_MAX_FOLLOWING = 128  # vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS of 0.32


class PromptScorer:
    """Scores the starts of answers. A question and a start make a prompt, and vLLM returns its tokens' probabilities.

    By default vLLM does not use the prefix cache for such prompts, because it has no probabilities of cached tokens.
    Here it does: the missing probabilities were returned for the prompt that filled the cache, and are remembered.
    """

    def __init__(self, generate: Callable[[Sequence[Sequence[int]], Sequence[Any]], list[Any]],
                 questions: Sequence[list[int]]) -> None:  # fmt: skip
        """`generate` runs prompts with sampling params; `questions` are those of the batch, as tokens."""
        self._generate, self._questions = generate, questions
        self._logprobs: dict[tuple[int, tuple[int, ...]], float] = {}  # (question, start): that of the last token

    def __call__(self, asked: Sequence[Start]) -> list[Scored]:
        following = self._ask(asked)
        # Where a cached block ends just before a token, nothing was computed that says how probable the token is.
        unknown = {key for start in asked for key in _prefixes(start) if key not in self._logprobs}
        next_tokens: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for place, tokens in sorted(unknown):
            next_tokens.setdefault((place, tokens[:-1]), []).append(tokens[-1])
        ends = [Start(place, tokens, tuple(found)) for (place, tokens), found in next_tokens.items()]
        for end, found in zip(ends, self._ask(ends), strict=True):
            self._logprobs |= {(end.place, (*end.tokens, token)): logprob for token, logprob in found.items()}
        return [
            Scored(sum(self._logprobs[key] for key in _prefixes(start)), behind)
            for start, behind in zip(asked, following, strict=True)
        ]

    def _ask(self, asked: Sequence[Start]) -> list[dict[int, float]]:
        """Remember the log probabilities of the starts' tokens; return those of the tokens that may follow."""
        from vllm import SamplingParams

        parts = [
            (row, start.following[first : first + _MAX_FOLLOWING])
            for row, start in enumerate(asked) for first in range(0, max(len(start.following), 1), _MAX_FOLLOWING)
        ]  # fmt: skip
        outputs = self._generate(
            [[*self._questions[asked[row].place], *asked[row].tokens] for row, _ in parts],
            [
                SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, logprob_token_ids=list(part) or None,
                               skip_reading_prefix_cache=False, detokenize=False)
                for _, part in parts
            ],
        )  # fmt: skip
        following: list[dict[int, float]] = [{} for _ in asked]
        for (row, part), output in zip(parts, outputs, strict=True):
            start = asked[row]
            new = len(output.prompt_token_ids) - (output.num_cached_tokens or 0)
            for key in _prefixes(start):
                place = len(key[1]) - 1 - len(start.tokens)  # from the end, because cached tokens are missing in front
                if -place < new:  # the token before, whose output this is, must not be cached
                    self._logprobs[key] = output.prompt_logprobs[place][key[1][-1]].logprob
            following[row] |= {token: output.outputs[0].logprobs[0][token].logprob for token in part}
        return following


def _prefixes(start: Start) -> list[tuple[int, tuple[int, ...]]]:
    """The question and the first token of a start, the first two, and so on: the keys of the log probabilities."""
    return [(start.place, start.tokens[: length + 1]) for length in range(len(start.tokens))]


@lru_cache(maxsize=256)
def grammar_of(answers: tuple[str, ...], form: OpenAnswers | None) -> str:
    """A grammar of the answers, and of the open answers of `form`, in xgrammar's EBNF.

    vLLM's list of choices gives the same answers, but takes 20 times as long to compile for thousands of them.
    """
    if form is None:  # vLLM searches the first line, twice a request, for the syntax of another language: a short line
        return f"root ::= known\nknown ::= {_one_of(sorted(set(answers)))}"
    brand = f'{form.character} (" "? {form.character}){{0,{form.longest - 1}}}'
    known = sorted({answer for answer in answers if not form.pattern.fullmatch(answer)})
    return "\n".join(
        [
            f"root ::= opening {_quoted(form.lead)} brand {_quoted(form.closing)}" + (" | known" if known else ""),
            f"opening ::= {_one_of(sorted(form.openings))}",
            f"brand ::= {brand}",
            *([f"known ::= {_one_of(known)}"] if known else []),
        ]
    )


@contextmanager
def grammars_parsed_once() -> Iterator[None]:
    """Let vLLM parse a grammar once, not for each request that has it.

    vLLM keeps what it compiles, but checks the grammar of each request by parsing it, and throws the result away: 50 ms
    for 12,885 answers, while the model waits.
    """
    from xgrammar import Grammar

    with patch.object(Grammar, "from_ebnf", staticmethod(_parser())):
        yield


@cache
def _parser() -> Callable[..., Any]:
    from xgrammar import Grammar

    return lru_cache(maxsize=256)(Grammar.from_ebnf)


def _one_of(texts: Sequence[str], written: int = 0) -> str:
    """An expression for the rest of sorted texts after their first `written` characters.

    Texts are grouped by their common starts: "green tea" and "green salad" become "green " ("salad" | "tea").
    """
    common = max(len(commonprefix([texts[0], texts[-1]])), written)  # noqa: RUF071  # characters, not folders
    if len(texts) <= _MAX_LISTED:
        ends = [_quoted(text[common:]) for text in texts]
    else:
        parts = groupby(texts, key=lambda text: text[: common + 1])
        ends = [_one_of(list(part), common) for _, part in parts]
    return f"{_quoted(texts[0][written:common])} ({' | '.join(ends)})"


@lru_cache(maxsize=256)
def max_bytes(answers: tuple[str, ...], form: OpenAnswers | None) -> int:
    """The most bytes that an answer may have. A character of a free brand has up to four, plus a space after it."""
    known = max((len(answer.encode()) for answer in answers), default=0)
    if form is None:
        return known
    longest = max(len(opening.encode()) for opening in form.openings)
    return max(known, longest + len(form.lead + form.closing) + 5 * form.longest)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
