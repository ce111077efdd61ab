"""What vLLM is asked beyond plain generation: the probabilities of given answers, and grammars of open ones."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from os.path import commonprefix
from typing import Any

from tillmap.llm.interface.answer_formats import OpenAnswers
from tillmap.llm.likelihood import Scored, Start

_LISTED = 64  # texts written as one list of alternatives; measured, 16 to 64 are alike and 256 is slower
_MAX_FOLLOWING = 128  # vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS of 0.32


class PromptScorer:
    """Scores the starts of answers: a question and a start are a prompt, whose own probability vLLM tells.

    vLLM by itself reads no cache for such a prompt, for it can say nothing of cached tokens. We let it: what it cannot
    say of one prompt it said of the one that filled the cache.
    """

    def __init__(self, generate: Callable[[Sequence[Sequence[int]], Sequence[Any]], list[Any]],
                 questions: Sequence[list[int]]) -> None:  # fmt: skip
        """`questions` are the batch's, as tokens."""
        self._generate, self._questions = generate, questions
        self._logprobs: dict[tuple[int, tuple[int, ...]], float] = {}  # of the last token of a question's start

    def __call__(self, asked: Sequence[Start]) -> list[Scored]:
        following = self._ask(asked, from_cache=True)
        unsaid = [start for start in asked if any(key not in self._logprobs for key in _prefixes(start))]
        self._ask(unsaid, from_cache=False)
        return [
            Scored(sum(self._logprobs[key] for key in _prefixes(start)), next_tokens)
            for start, next_tokens in zip(asked, following, strict=True)
        ]

    def _ask(self, asked: Sequence[Start], from_cache: bool) -> list[dict[int, float]]:
        """Remember what is said of the starts' tokens; return what is said of those that could follow."""
        from vllm import SamplingParams

        parts = [
            (row, start.following[first : first + _MAX_FOLLOWING])
            for row, start in enumerate(asked) for first in range(0, max(len(start.following), 1), _MAX_FOLLOWING)
        ]  # fmt: skip
        outputs = self._generate(
            [[*self._questions[asked[row].place], *asked[row].tokens] for row, _ in parts],
            [
                SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, logprob_token_ids=list(part) or None,
                               skip_reading_prefix_cache=not from_cache, detokenize=False)
                for _, part in parts
            ],
        )  # fmt: skip
        following: list[dict[int, float]] = [{} for _ in asked]
        for (row, part), output in zip(parts, outputs, strict=True):
            start = asked[row]
            behind = len(output.prompt_token_ids) - (output.num_cached_tokens or 0)
            for key in _prefixes(start):
                place = len(key[1]) - 1 - len(start.tokens)  # counted from the end, where nothing is left out
                if -place < behind:  # said by the token before, so that one must not be cached
                    self._logprobs[key] = output.prompt_logprobs[place][key[1][-1]].logprob
            following[row] |= {token: output.outputs[0].logprobs[0][token].logprob for token in part}
        return following


def _prefixes(start: Start) -> list[tuple[int, tuple[int, ...]]]:
    return [(start.place, start.tokens[: length + 1]) for length in range(len(start.tokens))]


@lru_cache(maxsize=256)
def grammar_of(answers: tuple[str, ...], form: OpenAnswers | None) -> str:
    """These answers, and the open ones of a form, in the EBNF that xgrammar reads.

    vLLM's own list of choices is the same language, and takes 20 times as long to compile for thousands of answers.
    """
    if form is None:
        return f"root ::= {_one_of(sorted(set(answers)))}"
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


def _one_of(texts: Sequence[str], written: int = 0) -> str:
    """An expression for what follows the first `written` characters of sorted texts; many are split by their starts."""
    common = max(len(commonprefix([texts[0], texts[-1]])), written)  # noqa: RUF071  # characters, not folders
    if len(texts) <= _LISTED:
        ends = [_quoted(text[common:]) for text in texts]
    else:
        parts = groupby(texts, key=lambda text: text[: common + 1])
        ends = [_one_of(list(part), common) for _, part in parts]
    return f"{_quoted(texts[0][written:common])} ({' | '.join(ends)})"


@lru_cache(maxsize=256)
def max_bytes(answers: tuple[str, ...], form: OpenAnswers | None) -> int:
    """No allowed answer has more bytes: a free brand's characters have up to four each, and a space behind."""
    known = max((len(answer.encode()) for answer in answers), default=0)
    if form is None:
        return known
    longest = max(len(opening.encode()) for opening in form.openings)
    return max(known, longest + len(form.lead + form.closing) + 5 * form.longest)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
