"""Where a command must not write."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tillmap.core.errors import InputError
from tillmap.core.writing import STANDARD, bad_rows_of, is_stream, require_writable

_WRITTEN = ("data", "models", "metrics", "plots", "report")  # by the stages
_READ = ("params.yaml", "dvc.yaml", "dvc.lock", "stages", "src", ".dvc", ".git")  # the project itself


def require_outside(out: Path, *inputs: Path | None) -> None:
    """Raise InputError if an output would overwrite one of the inputs, or a file of the project that is here.

    That is also said of the list of bad rows beside the output, of an output in a folder that is an input, and of
    standard input and output where both are one file.
    """
    if is_stream(out):
        _require_other(out, inputs)
        return
    place, here = out.resolve(), Path().resolve()
    own = [name for name in (*_WRITTEN, *_READ) if place.is_relative_to(here / name)]
    if own and (here / "params.yaml").exists():
        raise InputError(f"{out}: {own[0]} belongs to the pipeline; write to another place")
    _require_other(out, inputs)
    _require_other(bad_rows_of(out), inputs)


def require_list(out: Path) -> None:
    """Raise InputError unless bad rows can be listed beside an output. Those of a stream are logged."""
    if not is_stream(out):
        require_writable(bad_rows_of(out))


def _require_other(out: Path, inputs: Sequence[Path | None]) -> None:
    for given in filter(None, inputs):
        if not is_stream(out) and given.is_dir() and out.resolve().is_relative_to(given.resolve()):
            raise InputError(f"{out}: this is in the folder of the input; write to another one")
        there, read = _file_at(out, "/dev/stdout"), _file_at(given, "/dev/stdin")
        if there and read and os.path.samestat(there, read):
            raise InputError(f"{out}: this is the input; write to another file")


def _file_at(path: Path, standard: str) -> os.stat_result | None:
    """What the system knows of an ordinary file. A pipe, a terminal or a device can be both input and output."""
    try:
        found = (Path(standard) if path == STANDARD else path).stat()
    except OSError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None
