"""`tillmap prune`: delete old resume state."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tillmap.core.errors import ResourceError
from tillmap.core.run_state import alone, state_folder

_KINDS = ("infer", "predict", "train", "provider", "checkpoints")
_DAY = 24 * 60 * 60


def prune(
    days: Annotated[
        int, typer.Option(min=0, help="Keep runs that were used in the last DAYS days.", metavar="DAYS")
    ] = 30,
) -> None:
    """Delete old resume state.

    Deletes the saved answers, checkpoints and batches of finished or abandoned runs. Runs with unfinished jobs or
    batches at a paid provider are kept.
    """
    count, size = prune_state(days)
    typer.echo(f"{count} runs deleted, {size / 2**20:,.0f} MiB freed")


def prune_state(days: float) -> tuple[int, int]:
    """Delete the runs that were last written more than `days` days ago. Returns their number and size in bytes.

    Runs with unfinished jobs or batches at a provider are kept, and runs that a process is using.
    """
    from tillmap.providers.cancel import unfinished_runs  # imports the openai library, which is slow

    paid = set(unfinished_runs())
    count = freed = 0
    for folder in _runs():
        size, latest = _measure(folder)
        if folder in paid or latest > time.time() - days * _DAY:
            continue
        try:
            with alone(folder):
                shutil.rmtree(folder)
        except ResourceError:
            continue
        count, freed = count + 1, freed + size
    return count, freed


def _runs() -> Iterator[Path]:
    for kind in _KINDS:
        yield from sorted(path for path in (state_folder() / kind).glob("*") if path.is_dir())


def _measure(folder: Path) -> tuple[int, float]:
    """The size in bytes and the time of the last write. Call it before locking, which writes a file in the folder."""
    stats = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime for stat in stats), default=0.0)
