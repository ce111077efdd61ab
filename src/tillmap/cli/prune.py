"""`tillmap prune`: delete resume state that nobody will go on from."""

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
    days: Annotated[int, typer.Option(min=0, help="Keep what was used in the last so many days.")] = 30,
) -> None:
    """Delete old resume state: answers, checkpoints and pieces of finished or forgotten runs.

    What is under way at a paid provider is kept.
    """
    count, size = prune_state(days)
    typer.echo(f"{count} runs deleted, {size / 2**20:,.0f} MiB freed")


def prune_state(days: float) -> tuple[int, int]:
    """Delete the runs last written to more than so many days ago; give their number and their size in bytes.

    Runs with something under way at a provider stay, and so do those that a process is at work on.
    """
    from tillmap.providers.cancel import unfinished_runs  # loads the provider's library

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
    """Bytes, and when a file was last written; looked at before the lock, which is a file, too."""
    told = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum(stat.st_size for stat in told), max((stat.st_mtime for stat in told), default=0.0)
