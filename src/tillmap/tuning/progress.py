"""What a training has done so far: its checkpoints, its loss curve, and the time that is left."""

import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tillmap.core.files import read_as, read_json, write_json, write_text

logger = logging.getLogger(__name__)

PROGRESS = "progress.json"  # the last file of a checkpoint; without it the checkpoint is incomplete
_COLUMNS = "step,loss,learning_rate\n"
_SAID_EVERY = 60.0  # seconds between two lines about the time that is left


@dataclass
class Progress:
    """What training has done so far, including interrupted runs.

    `tokens` are those of the examples, `padding` those that fill up batches. `peak_memory_mib` is the memory of the
    GPU, or that of the process on a CPU. `threads` are processor threads. `expected_seconds` is what was estimated
    before the first step.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    padding: int = 0
    peak_memory_mib: int = 0
    threads: int = 0
    expected_seconds: float = 0.0

    @property
    def padding_share(self) -> float:
        return self.padding / max(self.tokens + self.padding, 1)

    def save(self, step: int, seconds: float, checkpoint: Path) -> None:
        """Write it into a checkpoint. `seconds` have passed since it was saved before, or since this run began."""
        self.step, self.seconds = step, round(self.seconds + seconds, 3)
        write_json(asdict(self), checkpoint / PROGRESS)


def load_progress(checkpoint: Path | None) -> Progress:
    """The progress at a checkpoint; that of a new training if there is none. Raises ModelError if it is damaged."""
    file = checkpoint and checkpoint / PROGRESS
    return read_as(Progress, file, read_json(file)) if file else Progress()


def last_checkpoint(state: Path) -> Path | None:
    """The last complete checkpoint in `state`, or None. Incomplete ones, left by a killed run, are deleted."""
    complete = []
    for checkpoint in state.glob("checkpoint-*"):
        if (checkpoint / PROGRESS).is_file():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)


class Loss(NamedTuple):
    """The loss of a step, and the learning rate that it was made with."""

    step: int
    loss: float
    learning_rate: float


def losses_of(history: Iterable[dict[str, Any]]) -> list[Loss]:
    """The losses in a trainer's log. Its other entries are sums at the end."""
    return [Loss(entry["step"], entry["loss"], entry["learning_rate"]) for entry in history if "loss" in entry]


class LossCurve:
    """A CSV file of losses that grows while training runs, for `dvc plots` and editors that show it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, losses: Iterable[Loss] = ()) -> None:
        """Begin the file with the losses of the steps that are done already: DVC deletes it before a stage runs."""
        write_text(_COLUMNS + "".join(map(_line, losses)), self._path)

    def add(self, losses: Iterable[Loss]) -> None:
        """Append losses. A line is written at once, so a reader sees whole ones."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, losses)))


def _line(loss: Loss) -> str:
    return f"{loss.step},{loss.loss:g},{loss.learning_rate:g}\n"


class TimeLeft:
    """Says now and then how long training will go on, by the tokens that are left at the speed so far."""

    def __init__(self, tokens: int) -> None:
        """`tokens` are those of the whole training."""
        self._tokens = tokens
        self.start(0)

    def start(self, done: int) -> None:
        """Begin now; `done` tokens were trained before this run."""
        self._before = done
        self._began = self._said = time.perf_counter()

    def after(self, step: int, steps: int, done: int) -> None:
        """Log a line if the last one is a minute ago. `done` tokens are trained after `step` of `steps`."""
        now = time.perf_counter()
        if now - self._said >= _SAID_EVERY and done > self._before:
            self._said = now
            left = (now - self._began) / (done - self._before) * (self._tokens - done)
            logger.info("train: step %d of %d, %s left", step, steps, duration(left))


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "7 min", "3.5 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
