"""Engines answer chat questions: in process with vLLM, or with transformers where vLLM can't be had."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from tillmap.prompting import Message

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

    `logprob` is the natural log of the answer's probability under the model, or None. `candidates` are label paths with
    scores, where an arm has them. Token counts are per row; `cached_tokens` of the prompt were not computed anew.
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
        return asdict(self)


def finished(question: Question, text: str, **counts: Any) -> Completion:
    """The completion of a question the engine answered: `empty` where it said nothing but spaces."""
    return Completion(question.split, question.id, text, "ok" if text.strip() else "empty", **counts)


def failed(question: Question, error: str) -> Completion:
    """The completion of a question the engine could not answer."""
    return Completion(question.split, question.id, "", "error", error)


@dataclass(frozen=True)
class Generation:
    """How answers are drawn: greedy at temperature 0, else seeded per row from its key.

    `answers` are the only ones allowed where a question names none of its own; None allows any text.
    """

    max_new_tokens: int
    temperature: float
    seed: int
    answers: tuple[str, ...] | None = None

    def allowed(self, question: Question) -> tuple[str, ...] | None:
        """The only answers to a question, or None for any text."""
        return tuple(question.answers) if question.answers else self.answers

    def seed_for(self, question: Question) -> int:
        """A row's own seed, so that its answer does not depend on its neighbours in a batch or on a resumed run."""
        key = f"{self.seed}/{question.split}/{question.id}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:4], "big")


@dataclass(frozen=True)
class Machine:
    """How a local model is run. `kv_cache_gib` None lets the engine decide."""

    dtype: str
    max_model_len: int
    batch_rows: int
    kv_cache_gib: float | None
    eager: bool


class Engine(Protocol):
    """A loaded model. The same batch gives the same answers, whatever was asked before it."""

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """One completion for each question, in order. A question that cannot be answered gets status `error`."""
