"""Where a command must not write."""

from collections.abc import Sequence
from pathlib import Path

from tillmap.core.errors import InputError
from tillmap.core.writing import STANDARD, bad_rows_of, is_stream

_WRITTEN = ("data", "models", "metrics", "plots", "report")  # by the stages
_READ = ("params.yaml", "dvc.yaml", "dvc.lock", "stages", "src", ".dvc", ".git")  # the project itself


def require_outside(out: Path, *inputs: Path | None) -> None:
    """Raise InputError if an output would overwrite one of the inputs, or a file of the project that is here.

    That is also said of the list of bad rows beside the output, and of an output in a folder that is an input.
    """
    if is_stream(out):
        return
    place, here = out.resolve(), Path().resolve()
    own = [name for name in (*_WRITTEN, *_READ) if place.is_relative_to(here / name)]
    if own and (here / "params.yaml").exists():
        raise InputError(f"{out}: {own[0]} belongs to the pipeline; write to another place")
    _require_other(out, inputs)
    _require_other(bad_rows_of(out), inputs)


def _require_other(out: Path, inputs: Sequence[Path | None]) -> None:
    place = out.resolve()
    for given in inputs:
        if given and given != STANDARD and given.is_dir() and place.is_relative_to(given.resolve()):
            raise InputError(f"{out}: this is in the folder of the input; write to another one")
        if given and given != STANDARD and place.exists() and given.exists() and place.samefile(given):
            raise InputError(f"{out}: this is the input; write to another file")
