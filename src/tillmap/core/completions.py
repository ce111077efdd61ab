"""Questions to language models, and completions: the answers of any arm, as the stages save them."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Message = dict[str, str]  # `role` and `content`, as in the OpenAI chat format and in chat templates
Status = Literal["ok", "empty", "error", "off"]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # that stand for the paths to choose from

# The counts of a completion that a bill is made of, in the order of `providers.costs.TokenPrices.cost`.
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "cache_write_tokens")


@dataclass(frozen=True)
class Question:
    """A question about one row.

    Attributes:
        split, id: the row.
        messages: the chat messages to send.
        answers: the only answers allowed; None allows what `Generation` does.
        choices: what the letters A, B, C and so on stand for, if the model answers with a letter.
    """

    split: str
    id: int
    messages: list[Message]
    answers: list[str] | None = None
    choices: list[str] | None = None

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Completion:
    """The answer to one row, a line of `data/completions/ARM.jsonl`.

    Attributes:
        split, id: the row.
        text: the answer.
        status: `ok`; `empty` or `error` if there is no answer; `off` if the arm is off.
        error: the reason of an `error`.
        logprob: the natural log of the answer's probability under the model; None if it is not known.
        candidates: what the arm chose from, best first, each with its share of the probability: label paths, or answer
            texts from an engine that ranks by likelihood (`AnswerFormat.decode` turns these into paths).
        prompt_tokens, completion_tokens: the tokens of this row.
        cached_tokens: the part of `prompt_tokens` that came from a cache.
        cache_write_tokens: the part of `prompt_tokens` that a provider bills for putting it into its cache.
    """

    split: str | None
    id: int | None
    text: str
    status: Status
    error: str | None = None
    logprob: float | None = None
    candidates: list[list[Any]] | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cache_write_tokens: int = 0

    def as_record(self) -> dict[str, Any]:
        return dict(vars(self))  # not `asdict`: it copies every candidate, a third of a fast arm's time


def finished(question: Question, text: str, **counts: Any) -> Completion:
    """The completion of a question that was answered. Its status is `empty` if the text is blank."""
    return Completion(question.split, question.id, text, "ok" if text.strip() else "empty", **counts)


def spell_out(completion: Completion, question: Question) -> Completion:
    """The completion with the answers that its letters stand for. Text that is no letter of the question stays."""
    if question.choices is None:
        return completion
    meant = dict(zip(LETTERS, question.choices, strict=False))
    ranked = completion.candidates and [[meant.get(text, text), share] for text, share in completion.candidates]
    return replace(completion, text=meant.get(completion.text.strip(" .)"), completion.text), candidates=ranked)


def failed(question: Question, error: str) -> Completion:
    """The completion of a question that could not be answered."""
    return Completion(question.split, question.id, "", "error", error)
