"""The resume state of long runs: what they have finished so far, saved outside the workspace.

DVC deletes a stage's outputs before the stage runs, and runs queued experiments in copies of the workspace. State that
must survive both is in a folder of the user (`state_folder`). A run finds its state by a key, which is a hash of its
questions, model and settings. The key does not depend on the code, only on `STATE_VERSION`: raise that when a change of
the code makes saved answers wrong.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import platformdirs
from filelock import FileLock, Timeout

from tillmap.core.errors import ResourceError
from tillmap.core.files import json_bytes, json_object, require_readable
from tillmap.core.machine import may_write, temporary_home

logger = logging.getLogger(__name__)

STATE_VERSION = 2
_LOCK = "lock"

Record = dict[str, Any]
Timed = dict[str, tuple[Record, float]]  # by key, a record and the seconds it took


def state_folder() -> Path:
    """The folder of the resume state: the first of these.

    1. `TILLMAP_STATE`.
    2. The user's own (`XDG_STATE_HOME` or `~/.local/state`, then `tillmap`), if it can be written.
    3. `state` in `temporary_home`, which may be emptied when the machine starts again.

    Raises ResourceError if there is none, or if `TILLMAP_STATE` cannot be written: it was chosen, so nothing else is
    taken in silence.
    """
    if chosen := os.environ.get("TILLMAP_STATE"):
        if not may_write(Path(chosen)):
            raise ResourceError(f"{chosen}: may not be written; set TILLMAP_STATE to a folder that you may write to")
        return Path(chosen).absolute()
    with suppress(RuntimeError):  # no home
        own = Path(platformdirs.user_state_dir("tillmap")).absolute()
        if may_write(own):
            return own
    return temporary_home() / "state"


def run_key(settings: dict[str, Any], files: Iterable[Path]) -> str:
    """A hash of settings and files: 32 hexadecimal characters.

    Args:
        settings: any JSON value.
        files: their names and contents count, their folders do not.

    Raises InputError if a file may not be read, such as a colleague's model.
    """
    digest = hashlib.sha256(json.dumps([STATE_VERSION, settings], sort_keys=True).encode())
    for path in sorted(files):
        require_readable(path)
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


@contextmanager
def hold(lock: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock file while the block runs. The operating system releases the lock when the process ends or is killed.

    The file contains the id of the process that holds the lock. If another process holds it, ResourceError is raised,
    with the text that `refusal` makes of that id.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(lock).acquire(blocking=False)
    except Timeout:
        raise ResourceError(refusal(lock.read_text() or "?")) from None
    with held:
        lock.write_text(str(os.getpid()))
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the state in a folder while the block runs. Raises ResourceError if another process has locked it."""
    with hold(
        folder / _LOCK, lambda _: f"{folder}: another process follows this run; wait for it or stop it, then run again"
    ):
        yield


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder for large files that are needed for a while. The folders that killed runs left are removed.

    It is among the resume state and not among the temporary files, which are often in the memory.
    """
    with ExitStack() as held:
        with _swept() as top:  # else another process could find the new folder before it is locked
            own = Path(held.enter_context(TemporaryDirectory(dir=top)))
            held.enter_context(hold(own / _LOCK, str))
        folder = own / "files"
        folder.mkdir()
        yield folder


def sweep() -> None:
    """Remove the scratch folders that killed runs left. Call it where a run goes on that may not need one again."""
    with _swept():
        pass


@contextmanager
def _swept() -> Iterator[Path]:
    """The folder of all scratch folders, which are those of running processes; no other one is made meanwhile."""
    top = state_folder() / "scratch"
    top.mkdir(parents=True, exist_ok=True)
    with FileLock(top / _LOCK):
        for left in top.glob("*/"):
            with suppress(ResourceError), hold(left / _LOCK, str):
                shutil.rmtree(left)
        yield top


class AnswerLog:
    """The answers of one run so far, in a file that is only appended to. A record counts once its line is complete.

    A line is {"seconds": the time for these records, "records": {key: record}, "crc32": a check sum of both}. A damaged
    line does not count, and those after it do. The caller chooses the keys, such as hashes of the questions, so that
    another run of the same model finds the answers (`read_answers`).
    """

    def __init__(self, path: Path) -> None:
        """Open the log at `path`, or start a new one. A line that a kill cut short is removed from the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._records: Timed = {}
        with path.open("ab+") as file:
            file.seek(0)
            end = damaged = 0
            for size, records in _whole_lines(file):
                self._records |= records or {}
                end += size
                damaged += records is None
            file.truncate(end)  # else the next line would be appended to half a line
        if damaged:
            logger.warning("%s: damaged lines, whose questions are asked again: %d", path, damaged)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def add(self, records: Mapping[str, Record], seconds: float) -> None:
        """Write records, which took `seconds` together, and wait until they are on the disk."""
        entry = {"seconds": round(seconds, 3), "records": records}
        entry |= {"crc32": _check_sum(entry)}
        with self._path.open("ab") as file:
            file.write(json_bytes(json.dumps(entry, ensure_ascii=False) + "\n"))
            file.flush()
            os.fsync(file.fileno())
        self._records |= _with_seconds(entry)

    def take(self, found: Timed) -> None:
        """Use records of another log, without writing them to this one. Records that this log has are kept."""
        self._records = found | self._records

    def records(self, keys: Iterable[str]) -> list[Record]:
        """The records with these keys, in this order. Raises KeyError if one is missing."""
        return [self._records[key][0] for key in keys]

    def seconds(self, keys: Iterable[str]) -> float:
        """The total time of these records, in this run and in earlier ones."""
        return float(sum(self._records[key][1] for key in keys))


def read_answers(path: Path, keys: Container[str]) -> Timed:
    """The records of a log that have these keys. The log is not changed.

    Another process may be writing to the log, so an incomplete last line is ignored.
    """
    with path.open("rb") as file:
        found = (records or {} for _, records in _whole_lines(file))
        return {key: record for records in found for key, record in records.items() if key in keys}


def _whole_lines(file: IO[bytes]) -> Iterator[tuple[int, Timed | None]]:
    """The size in bytes and the records of each line, None of a damaged one; not the last one if it is incomplete."""
    for line in file:
        if not line.endswith(b"\n"):
            return
        entry = json_object(line)
        try:
            yield len(line), None if entry is None else _with_seconds(entry)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # not what `add` wrote
            yield len(line), None


def _with_seconds(entry: dict[str, Any]) -> Timed:
    """The records of a line, each with an equal share of its seconds. Raises ValueError if its check sum is wrong."""
    if entry.pop("crc32") != _check_sum(entry):
        raise ValueError("damaged")
    each = entry["seconds"] / max(len(entry["records"]), 1)
    return {key: (record, each) for key, record in entry["records"].items()}


def _check_sum(entry: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(entry, sort_keys=True).encode())
