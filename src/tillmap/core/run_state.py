"""The resume state of a long run: finished batches, appended to one file outside the workspace.

DVC deletes a stage's outputs before it runs, and queued experiments run in copies, so a run that must survive both
keeps its work in a folder of the user's: `TILLMAP_STATE`, or the platform's state folder. A run is found again by a
key made of its questions, model and settings; code is not part of the key, `STATE_VERSION` is.
"""

import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import platformdirs
from filelock import FileLock, Timeout

from tillmap.core.errors import ResourceError

STATE_VERSION = 1
_LOCK = "lock"


def state_folder() -> Path:
    """`TILLMAP_STATE`, or the platform's state folder for tillmap."""
    return Path(os.environ.get("TILLMAP_STATE") or platformdirs.user_state_dir("tillmap")).absolute()


def run_key(settings: dict[str, Any], files: Iterable[Path]) -> str:
    """A hash over settings (anything JSON can write) and the names and bytes of files, hex, 32 characters."""
    digest = hashlib.sha256(json.dumps([STATE_VERSION, settings], sort_keys=True).encode())
    for path in sorted(files):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


@contextmanager
def hold(lock: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock file while the block runs. The system releases the lock when the process ends, even by a kill.

    The file contains the number of the process that holds it. Raises ResourceError if another process has the lock,
    with the text that `refusal` makes of its number.
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
    """Keep other processes from the state in a folder while the block runs. Raises ResourceError if one has it."""
    with hold(
        folder / _LOCK, lambda _: f"{folder}: another process follows this run; wait for it or stop it, then run again"
    ):
        yield


class AnswerLog:
    """The answers of one run so far, appended to one file: a record counts once its whole line is on the disk.

    A line is {"seconds": what these records took, "records": {key: record}}. Keys are the caller's, say a hash of a
    question, so that another run of the same model finds an answer again (`read_answers`).
    """

    def __init__(self, path: Path) -> None:
        """Open the log at `path`, or start it; a line cut short by a kill is dropped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._records: dict[str, tuple[dict[str, Any], float]] = {}
        with path.open("ab+") as file:
            file.seek(0)
            end = 0
            for size, records in _whole_lines(file):
                self._records |= records
                end += size
            file.truncate(end)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def add(self, records: Mapping[str, dict[str, Any]], seconds: float) -> None:
        """Write some records, which took so many seconds together, and wait until they are on the disk."""
        entry = {"seconds": round(seconds, 3), "records": records}
        with self._path.open("ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._records |= _with_seconds(entry)

    def take(self, found: Mapping[str, tuple[dict[str, Any], float]]) -> None:
        """Count records that another log holds as if they were this one's, without writing them again."""
        self._records = dict(found) | self._records

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """The records of these keys, in their order. Raises KeyError where one is missing."""
        return [self._records[key][0] for key in keys]

    def seconds(self, keys: Iterable[str]) -> float:
        """The time that these records took, whichever run it was spent in."""
        return float(sum(self._records[key][1] for key in keys))


def read_answers(path: Path, keys: Container[str]) -> dict[str, tuple[dict[str, Any], float]]:
    """What a log holds of these keys: each record with its share of the seconds. Nothing is written.

    Another process may be writing it: a last line that is not whole is passed over.
    """
    with path.open("rb") as file:
        lines = [records for _, records in _whole_lines(file)]
    return {key: record for records in lines for key, record in records.items() if key in keys}


def _whole_lines(file: IO[bytes]) -> Iterator[tuple[int, dict[str, tuple[dict[str, Any], float]]]]:
    """The size and the records of each line, up to the first that is cut short or damaged."""
    for line in file:
        try:
            records = _with_seconds(json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # not what `add` wrote
            return
        if not line.endswith(b"\n"):
            return
        yield len(line), records


def _with_seconds(entry: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], float]]:
    each = entry["seconds"] / max(len(entry["records"]), 1)
    return {key: (record, each) for key, record in entry["records"].items()}
