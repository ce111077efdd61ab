"""How a language model is run and how its answers are drawn; the protocol of the engines that run one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tillmap.core.completions import Completion, Question
from tillmap.core.errors import ParamsError
from tillmap.llm.interface.answer_formats import OpenAnswers


@dataclass(frozen=True)
class Generation:
    """How answers are drawn: greedy at temperature 0, else seeded per row from its key.

    `max_new_tokens` cuts free text; an allowed answer ends by itself and is never cut.

    `answers` are the only ones allowed where a question names none of its own; None allows any text. `choose` says how
    one of them is found: `greedy` token by token, or by the `likelihood` of the whole answer, to which the temperature
    does not matter: of few answers each is scored, of many those that a search with `beams` beams reaches. Where any
    text is allowed there is nothing to choose from, and decoding is greedy. `open_answers` allows besides the known
    ones those of a known chain with a free brand; a question with answers of its own is held to their chains.

    Raises ParamsError where open answers were to be chosen by likelihood: there is no end of them.
    """

    max_new_tokens: int
    temperature: float
    seed: int
    answers: tuple[str, ...] | None = None
    choose: Literal["greedy", "likelihood"] = "greedy"
    beams: int = 8
    open_answers: OpenAnswers | None = None

    def __post_init__(self) -> None:
        if self.choose == "likelihood" and self.open_answers:
            raise ParamsError("answers with an unseen brand cannot be chosen by likelihood; set `choose` to greedy")

    def allowed(self, question: Question) -> tuple[str, ...] | None:
        """The only answers to a question, or None for any text."""
        return tuple(question.answers) if question.answers else self.answers

    def open_to(self, question: Question) -> OpenAnswers | None:
        """The answers with a free brand that are allowed for a question besides the known ones, if any."""
        if self.open_answers is None or not question.answers:
            return self.open_answers
        known = tuple(question.answers)
        openings = tuple(opening for opening in self.open_answers.openings
                         if any(answer.startswith(opening) for answer in known))  # fmt: skip
        return replace(self.open_answers, openings=openings) if openings else None

    def seed_for(self, question: Question) -> int:
        """A row's own seed, so that its answer does not depend on its neighbours in a batch or on a resumed run."""
        key = f"{self.seed}/{question.split}/{question.id}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:4], "big")


@dataclass(frozen=True)
class Machine:
    """How a local model is run. `kv_cache_gib` None lets the engine decide.

    `lora` says what becomes of an adapter: `serve` keeps it apart from its base, `merge` adds it to the base in float32
    while the engine loads, which gives the same answers and is several times faster on a CPU.
    """

    dtype: str
    max_model_len: int
    batch_rows: int
    kv_cache_gib: float | None
    eager: bool
    lora: Literal["merge", "serve"] = "serve"
    threads: int | None = None


class Engine(Protocol):
    """A loaded model. The same batch gives the same answers, whatever was asked before it."""

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """One completion for each question, in order. A question that cannot be answered gets status `error`."""
