"""The resume state of a long run: finished batches, appended to one file outside the workspace.

DVC deletes a stage's outputs before it runs, and queued experiments run in copies, so a run that must survive both
keeps its work in a folder of the user's: `TILLMAP_STATE`, or the platform's state folder. A run is found again by a
key made of its questions, model and settings; code is not part of the key, `STATE_VERSION` is.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs

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
    """Hold a lock file while the block runs; a killed process lets go of it.

    Raises ResourceError where another process has it, with what `refusal` makes of that process's number.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ResourceError(refusal(file.read() or "?")) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from the state in a folder while the block runs. Raises ResourceError where one has it."""
    with hold(
        folder / _LOCK, lambda _: f"{folder}: another process follows this run; wait for it or stop it, then run again"
    ):
        yield


class Journal:
    """Batches of records by number. A batch counts once its whole line is on the disk."""

    def __init__(self, path: Path) -> None:
        """Open the journal at `path`, or start it; a line cut short by a kill is dropped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._batches: dict[int, dict[str, Any]] = {}
        end = 0
        with path.open("ab+") as file:
            file.seek(0)
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                if not line.endswith(b"\n"):
                    break
                self._batches[entry["batch"]] = entry
                end += len(line)
            file.truncate(end)

    def __contains__(self, batch: int) -> bool:
        return batch in self._batches

    def add(self, batch: int, seconds: float, records: list[dict[str, Any]]) -> None:
        """Write one batch and wait until it is on the disk."""
        entry = {"batch": batch, "seconds": round(seconds, 3), "records": records}
        with self._path.open("ab") as file:
            file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._batches[batch] = entry

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, in the order of the batches."""
        for batch in sorted(self._batches):
            yield from self._batches[batch]["records"]

    @property
    def seconds(self) -> float:
        """Time spent on the batches, those of an earlier, interrupted run included."""
        return float(sum(entry["seconds"] for entry in self._batches.values()))
