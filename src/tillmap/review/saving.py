"""Brings the decisions of a log into the file of corrections, which git tracks and the pipeline reads.

They are two files because a file that git tracks is not safe from git: `dvc exp run` takes it back for a moment, and
`dvc exp apply` for good. The log stays on this machine and is only appended to, so the other can always be made again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tillmap.core.errors import InputError
from tillmap.core.files import json_object
from tillmap.core.run_state import hold
from tillmap.core.taxonomy import Levels
from tillmap.core.writing import replacing
from tillmap.review.decisions import Decisions, as_record

_IN_FOLDER = "review.jsonl"
_KEY = ("split", "id", "text", "who", "when")  # what tells a decision about a row from all others

Line = tuple[object, ...]


class Saved(NamedTuple):
    """How many corrections came into a file, and how many left it, because they were undone or decided again."""

    file: Path
    added: int
    removed: int


def file_for(place: Path) -> Path:
    """The file of corrections that the page may write: `data.corrections`, or a file in it if that is a folder.

    Raises InputError if it is no file of JSON Lines.
    """
    if place.is_dir():
        return place / _IN_FOLDER
    if place.suffix.lower() not in (".jsonl", ".ndjson"):
        raise InputError(
            f"{place}: `tillmap review` writes JSON Lines, not {place.suffix or 'this'}; put the file into a folder "
            "and set `data.corrections` to the folder: all files in it are read, and the page adds its own"
        )
    return place


def save_corrections(decisions: Decisions, levels: Levels, place: Path) -> Saved:
    """Add what holds of a log to the corrections, and remove what was undone or decided again.

    All other lines stay as they are, in their order; a line that somebody edited stays, too. The new ones come last.

    Args:
        decisions: the state of the log.
        levels: the names of the levels.
        place: `data.corrections`.

    Raises InputError if the page cannot write it, ResourceError if another page is writing it.
    """
    file, real = file_for(place), place.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    with hold(
        real.with_name(f".{real.name}.lock"),  # never in the folder: DVC would see that it changes
        lambda process: f"{file}: process {process} is writing it; then run `tillmap review --save`",
    ):
        kept, more, removed = _merge(decisions, levels, file)
        if more or removed:
            with replacing(file) as out:
                out.writelines((*kept, *more))
    return Saved(file, len(more), removed)


def unsaved(decisions: Decisions, levels: Levels, place: Path) -> int:
    """How many lines `save_corrections` would add or remove. Raises InputError if the page cannot write the file."""
    _, more, removed = _merge(decisions, levels, file_for(place))
    return len(more) + removed


def _merge(decisions: Decisions, levels: Levels, file: Path) -> tuple[list[bytes], list[bytes], int]:
    """The lines that stay, the new ones, and how many leave."""
    holds = {_key(record): record for record in _records(decisions, levels, current=True)}
    gone = {_key(record) for record in _records(decisions, levels, current=False)} - set(holds)
    lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
    lines = [line for line in lines if line.strip()]  # as shipped, the file is a blank line
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    keys = [_key_of(line) for line in lines]
    kept = [line for line, key in zip(lines, keys, strict=True) if key not in gone]
    more = [_line(record) for key, record in holds.items() if key not in set(keys)]
    return kept, more, len(lines) - len(kept)


def _records(decisions: Decisions, levels: Levels, *, current: bool) -> Iterator[dict[str, Any]]:
    """The corrections of the decisions that hold, or of all that were ever made."""
    pairs = decisions.current() if current else ((row, each) for each in decisions.made for row in each.rows)
    return (as_record(row, decision, levels) for row, decision in pairs if decision.labels is not None)


def _key(record: dict[str, Any]) -> Line:
    return tuple(record.get(name) for name in _KEY)


def _key_of(line: bytes) -> Line | None:
    """The key of a line of the file; one that the page has not written has another key, or None."""
    key = _key(json_object(line) or {})
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
