"""Asks a language model every question, batch by batch, and never the same question twice."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tillmap.core.completions import Completion, Question, failed
from tillmap.core.ending import OF_A_STAGE, lacks_memory
from tillmap.core.errors import ResourceError, TillmapError, lacks_room
from tillmap.core.files import write_text
from tillmap.core.machine import as_threads, free_threads
from tillmap.core.run_state import AnswerLog, alone, read_answers, run_key, state_folder, sweep
from tillmap.llm.interface.generation import Engine, Generation, LoadedEngine, Machine

logger = logging.getLogger(__name__)

_KIND = "infer"
_HOPELESS = 8  # rows at the start of a batch that fail one by one, after which the engine counts as dead
_LOG = "answers.jsonl"
_THREADS = "threads"
_NAME = 16  # characters of a run's key

Save = Callable[[Sequence[Completion], float], None]  # saves completions and the seconds they took together


@dataclass(frozen=True)
class Answers:
    """Completions, one for each question in order, and the seconds they took, those of earlier runs included."""

    completions: list[Completion]
    seconds: float


@dataclass(frozen=True)
class LocalModel:
    """A checkpoint on this machine, the adapter on top of it if there is one, and how both are run.

    `engine` is `vllm` or `transformers`.
    """

    engine: str
    checkpoint: Path
    adapter: Path | None
    machine: Machine
    generation: Generation

    def key(self) -> str:
        """What the answers follow from, the questions aside. Code is not part of it, nor are sizes and threads."""
        folders = [folder for folder in (self.checkpoint, self.adapter) if folder]
        machine = asdict(self.machine)
        for size in ("batch_rows", "save_rows", "threads", "gpu_memory_utilization"):
            machine.pop(size)
        settings = {"engine": self.engine, "machine": machine, "generation": asdict(self.generation)}
        return run_key(settings, (file for folder in folders for file in folder.rglob("*") if file.is_file()))

    def with_threads(self, threads: int) -> "LocalModel":
        return replace(self, machine=replace(self.machine, threads=threads))


class KeptEngine:
    """Keeps an engine loaded for more questions to the same model. Before another one is loaded, it ends."""

    def __init__(self) -> None:
        self._loaded: tuple[LocalModel, LoadedEngine] | None = None

    def load(self, model: LocalModel, run: Path) -> LoadedEngine:
        """The engine of a model, with the processor threads that the run in this folder began with.

        The sums of more threads differ in their last bits, and a resumed run must repeat an unbroken one. A new run
        takes the threads of the engine that is loaded, or else those that are free.
        """
        from tillmap.llm.engines.loading import load_engine

        kept = run / _THREADS
        threads = model.machine.threads or _kept_threads(kept) or self._threads(model)
        write_text(str(threads), kept)
        wanted = model.with_threads(threads)
        if self._loaded is None or self._loaded[0] != wanted:
            self.close()
            engine = load_engine(model.engine, model.checkpoint, wanted.machine, model.generation, model.adapter)
            self._loaded = wanted, engine
        return self._loaded[1]

    def _threads(self, model: LocalModel) -> int:
        if self._loaded is not None:
            threads = self._loaded[0].machine.threads
            if threads and self._loaded[0] == model.with_threads(threads):
                return threads
        return free_threads()

    def close(self) -> None:
        """End the engine, if one is loaded, and free its memory."""
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None


def _kept_threads(file: Path) -> int:
    """The number in a file; 0 if there is none."""
    try:
        return as_threads(file.read_text())
    except (OSError, ValueError):
        return 0


class _Renewed:
    """A kept engine that is loaded anew after a failure: vLLM would wait forever for what a failed step left."""

    def __init__(self, model: LocalModel, run: Path, kept: KeptEngine) -> None:
        self._model, self._run, self._kept = model, run, kept

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        engine = self._kept.load(self._model, self._run)
        try:
            return engine.answer(questions)
        except Exception:
            self._kept.close()
            raise


def ask_model(model: LocalModel, questions: Sequence[Question], desc: str, kept: KeptEngine) -> Answers:
    """Ask a model on this machine, with the engine that is kept. Raises ModelError, ParamsError or ResourceError."""
    sweep()  # a run that was killed after its last answer loads no engine again

    def ask(missing: Sequence[Question], save: Save, run: Path) -> None:
        ask_in_batches(missing, _Renewed(model, run, kept), save, model.machine.save_rows, desc)

    return answer_missing(questions, model.key(), ask, desc)


def answer_missing(
    questions: Sequence[Question], model_key: str, ask: Callable[[Sequence[Question], Save, Path], None], desc: str
) -> Answers:
    """Ask only the questions that no run has an answer to yet; `ask` asks some questions and saves the answers.

    It is given the questions, what saves answers, and the folder of the run's state.

    `model_key` stands for the model and all its settings. The answers of this run are logged as they come, so that a
    killed run goes on; those of other runs of the same model are taken over, errors aside: a full run after a pilot
    asks just the rows that are missing.
    """
    keys = [_digest(question) for question in questions]
    wanted = set(keys)
    runs = state_folder() / _KIND
    own = hashlib.sha256("".join(keys).encode()).hexdigest()[:_NAME]
    folder = runs / f"{model_key[:_NAME]}-{own}"
    with alone(folder):
        log = AnswerLog(folder / _LOG)
        for other in sorted(runs.glob(f"{model_key[:_NAME]}-*/{_LOG}")):
            found = read_answers(other, wanted) if other.parent != folder else {}
            log.take({key: (record, each) for key, (record, each) in found.items() if record["status"] != "error"})
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in log}
        if len(missing) < len(keys):
            logger.info("%s: %d of %d rows were answered before", desc, len(keys) - len(missing), len(keys))
        if missing:
            key_of = {(question.split, question.id): key for key, question in missing.items()}

            def save(completions: Sequence[Completion], seconds: float) -> None:
                records = {key_of[answer.split or "", answer.id or 0]: answer.as_record() for answer in completions}
                log.add(records, seconds)

            ask(list(missing.values()), save, folder)
        return Answers([Completion(**record) for record in log.records(keys)], log.seconds(keys))


def ask_in_batches(questions: Sequence[Question], engine: Engine, save: Save, save_rows: int, desc: str) -> None:
    """Ask an engine batch by batch, in order, and save each batch as it comes.

    A killed run that goes on asks the batches that an unbroken one would have asked. Raises ResourceError where the
    engine stops answering altogether.
    """
    with tqdm(total=len(questions), desc=desc, unit="row", disable=None) as bar:
        for start in range(0, len(questions), save_rows):
            batch = questions[start : start + save_rows]
            began = time.perf_counter()
            save(_answer(engine, batch), time.perf_counter() - began)
            bar.update(len(batch))


def _answer(engine: Engine, batch: Sequence[Question]) -> list[Completion]:
    """One batch. If it fails as a whole, its rows are asked one by one, and only those that fail alone are errors."""
    try:
        return _ask(engine, batch)
    except TillmapError:  # of the key, the model or the machine, not of a row
        raise
    except Exception:
        logger.exception("a batch failed; asking its %d rows one by one", len(batch))
    completions: list[Completion] = []
    hopeless = min(len(batch), _HOPELESS) if len(batch) > 1 else None
    for question in batch:
        try:
            completions += _ask(engine, [question])
        except TillmapError:
            raise
        except Exception as error:  # whatever an engine throws, the other rows must not be lost
            completions.append(failed(question, f"{type(error).__name__}: {error}"[:500]))
        if len(completions) == hopeless and all(completion.status == "error" for completion in completions):
            raise ResourceError(
                f"the engine fails on every row ({completions[0].error}); earlier batches are kept: "
                "remove the cause and run again"
            )
    return completions


def _ask(engine: Engine, questions: Sequence[Question]) -> list[Completion]:
    """What the engine answers. Raises ResourceError if the disk or the memory is full, which no row can help."""
    try:
        return engine.answer(questions)
    except Exception as error:
        if problem := lacks_room(error):
            raise ResourceError(
                f"{problem}; free some space, among the temporary files, too, and run again: earlier batches are kept"
            ) from error
        if lacks_memory(error):
            raise ResourceError(
                f"out of memory; {OF_A_STAGE.memory}; then run again: earlier batches are kept"
            ) from error
        raise


def _digest(question: Question) -> str:
    return hashlib.sha256(json.dumps(question.as_record(), sort_keys=True).encode()).hexdigest()[:32]


def plan_generation(settings: Any, seed: int, allowed: Mapping[str, Any] | None) -> Generation:
    """How an arm's answers are drawn, from its block of params.yaml, and which are allowed to all its questions.

    `allowed` is that of `AnswerFormat.allowed_to_all`; None allows any text.
    """
    from tillmap.llm.interface.answer_formats import OpenAnswers

    answers = (allowed or {}).get("answers")
    free = (allowed or {}).get("open_answers")
    return Generation(
        settings.max_new_tokens,
        settings.temperature,
        seed,
        answers=tuple(answers) if answers else None,
        choose=getattr(settings, "choose", "greedy"),
        open_answers=OpenAnswers(**free | {"openings": tuple(free["openings"])}) if free else None,
    )
