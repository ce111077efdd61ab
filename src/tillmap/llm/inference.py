"""Asks an engine every question, batch by batch, so that a killed run goes on where it stopped."""

import logging
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from tillmap.core.completions import Completion, Question, failed
from tillmap.core.errors import ResourceError, TillmapError
from tillmap.core.run_state import Journal
from tillmap.llm.generation import Engine

logger = logging.getLogger(__name__)


def answer_all(
    questions: Sequence[Question], load: Callable[[], Engine], journal: Journal, batch_rows: int, desc: str
) -> None:
    """Fill the journal with one completion for every question, in order.

    The engine is loaded only where a batch is still missing. Batches always start at the same rows, so that a resumed
    run asks exactly what an unbroken one asks. Raises ResourceError where an engine stops answering altogether.
    """
    starts = range(0, len(questions), batch_rows)
    missing = [number for number in range(len(starts)) if number not in journal]
    if not missing:
        return
    if len(missing) < len(starts):
        logger.info("%s: %d of %d batches are there from an earlier run", desc, len(starts) - len(missing), len(starts))
    engine = load()
    with tqdm(total=len(questions), initial=min(len(questions), (len(starts) - len(missing)) * batch_rows),
              desc=desc, unit="row", disable=None) as bar:  # fmt: skip
        for number in missing:
            batch = questions[starts[number] : starts[number] + batch_rows]
            began = time.perf_counter()
            completions = _answer(engine, batch)
            journal.add(number, time.perf_counter() - began, [completion.as_record() for completion in completions])
            bar.update(len(batch))


def _answer(engine: Engine, batch: Sequence[Question]) -> list[Completion]:
    """One batch. Should it fail as a whole, its rows are asked one by one; only those that fail alone are errors."""
    try:
        return engine.answer(batch)
    except TillmapError:  # of the key or the model, not of a row
        raise
    except Exception:
        logger.exception("a batch failed; asking its %d rows one by one", len(batch))
    completions = []
    for question in batch:
        try:
            completions += engine.answer([question])
        except Exception as error:  # whatever an engine throws, the other rows must not be lost
            completions.append(failed(question, f"{type(error).__name__}: {error}"[:500]))
    if len(batch) > 1 and all(completion.status == "error" for completion in completions):
        raise ResourceError(
            f"the engine fails on every row ({completions[0].error}); earlier batches are kept: "
            "mend the cause and run again"
        )
    return completions
