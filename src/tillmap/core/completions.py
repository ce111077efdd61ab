"""What an arm is asked and what it says: questions and completions, as the stages keep them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Message = dict[str, str]  # `role` and `content`, as the OpenAI chat format and every model's chat template take it
Status = Literal["ok", "empty", "error", "off"]


@dataclass(frozen=True)
class Question:
    """One row to answer: its key, the messages to send, and the only answers allowed (None: as `Generation` says)."""

    split: str
    id: int
    messages: list[Message]
    answers: list[str] | None = None

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Completion:
    """One row's answer, as `data/completions/ARM.jsonl` keeps it.

    `logprob` is the natural log of the answer's probability under the model, or None. `candidates` are what an arm
    chose from, best first, each with its share of the probability: label paths, or answer texts from an engine that
    ranks by likelihood, which `AnswerFormat.decode` turns into paths. Token counts are per row; `cached_tokens` are
    the part of the prompt that came from a cache.
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

    def as_record(self) -> dict[str, Any]:
        return dict(vars(self))  # not `asdict`, which copies every candidate: a third of what a fast arm takes


def finished(question: Question, text: str, **counts: Any) -> Completion:
    """The completion of a question the engine answered: `empty` where it said nothing but spaces."""
    return Completion(question.split, question.id, text, "ok" if text.strip() else "empty", **counts)


def failed(question: Question, error: str) -> Completion:
    """The completion of a question the engine could not answer."""
    return Completion(question.split, question.id, "", "error", error)
