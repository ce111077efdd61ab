"""Where a command must not write."""

from pathlib import Path

from tillmap.core.errors import InputError
from tillmap.core.writing import STANDARD, is_stream

_WRITTEN = ("data", "models", "metrics", "plots", "report")  # by the stages
_READ = ("params.yaml", "dvc.yaml", "dvc.lock", "stages", "src", ".dvc", ".git")  # the project itself


def require_outside(out: Path, *inputs: Path | None) -> None:
    """Raise InputError if an output would overwrite one of the inputs, or a file of the project that is here."""
    if is_stream(out):
        return
    place, here = out.resolve(), Path().resolve()
    own = [name for name in (*_WRITTEN, *_READ) if place.is_relative_to(here / name)]
    if own and (here / "params.yaml").exists():
        raise InputError(f"{out}: {own[0]} belongs to the pipeline; write to another place")
    for given in inputs:
        if given and given != STANDARD and place.exists() and given.exists() and place.samefile(given):
            raise InputError(f"{out}: this is the input; write to another file")
