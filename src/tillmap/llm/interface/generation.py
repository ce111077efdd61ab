"""How a language model generates answers and runs on a machine, and the protocol of engines."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tillmap.core.completions import Completion, Question
from tillmap.core.errors import ParamsError
from tillmap.llm.interface.answer_formats import OpenAnswers


@dataclass(frozen=True)
class Generation:
    """How answers are generated.

    Attributes:
        max_new_tokens: free text is cut after so many tokens. Allowed answers end by themselves and are never cut.
        temperature: 0 for greedy decoding; else answers are sampled, with a seed per row.
        seed: see `seed_for`.
        answers: the only answers allowed to questions without a list of their own; None allows any text.
        choose: how an allowed answer is found: `greedy`, token by token, or by the `likelihood` of the whole answer,
            whatever the temperature. A few answers are all scored; among many, those that a beam search finds. Without
            allowed answers decoding is always greedy or sampled.
        beams: the width of that beam search.
        open_answers: also allows answers with a known chain and a free brand. For a question with its own answers, only
            their chains.

    Raises ParamsError if open answers are to be chosen by likelihood: there are too many to rank.
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
        """The answers allowed to a question, or None for any text."""
        return tuple(question.answers) if question.answers else self.answers

    def open_to(self, question: Question) -> OpenAnswers | None:
        """The answers with a free brand that are also allowed to a question, or None."""
        if self.open_answers is None or not question.answers:
            return self.open_answers
        known = tuple(question.answers)
        openings = tuple(opening for opening in self.open_answers.openings
                         if any(answer.startswith(opening) for answer in known))  # fmt: skip
        return replace(self.open_answers, openings=openings) if openings else None

    def seed_for(self, question: Question) -> int:
        """The seed of a row. It follows from the row's key, so an answer does not depend on the rest of its batch."""
        key = f"{self.seed}/{question.split}/{question.id}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:4], "big")


@dataclass(frozen=True)
class Machine:
    """How a model runs on this machine.

    Attributes:
        dtype: of weights and sums: auto, float32, bfloat16 or float16.
        max_model_len: tokens of a question and its answer.
        batch_rows: rows that are answered at the same time, at most.
        kv_cache_gib: size of the key-value cache; with None vLLM takes what `gpu_memory_utilization` leaves.
        eager: without CUDA graphs and compilation.
        lora: `serve` keeps an adapter separate from its base; `merge` adds it to the base, in `dtype`, while the engine
            loads. In float32 that gives the same answers. It is several times faster on a CPU, and the only way to
            serve an adapter of a 4-bit base with vLLM.
        threads: CPU threads; None lets PyTorch decide.
        save_rows: rows that are asked, and saved, together. The engine is idle while the last few of them end.
        gpu_memory_utilization: share of a GPU's memory that vLLM takes for weights, cache and sums together.
    """

    dtype: str
    max_model_len: int
    batch_rows: int
    kv_cache_gib: float | None
    eager: bool
    lora: Literal["merge", "serve"] = "serve"
    threads: int | None = None
    save_rows: int = 64
    gpu_memory_utilization: float = 0.9


class Engine(Protocol):
    """A model that answers. The same batch gives the same answers, whatever was asked before."""

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """One completion per question, in order. A question that cannot be answered gets the status `error`."""


class LoadedEngine(Engine, Protocol):
    """A model in this process."""

    def close(self) -> None:
        """Free the memory of the model, on the GPU too. The engine cannot answer any more."""
