"""What people decided: a log that is only appended to, its state, and the table of corrections in it.

A line of the log is one JSON object: a decision about one or more rows, or the undo of an earlier decision. It is on
the disk before anyone is told that it is saved, so a killed server loses no decision. A kill may leave half a line,
which is removed when the log is opened again.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from tillmap.core.errors import InputError, ResourceError, first_line
from tillmap.core.run_state import hold
from tillmap.core.taxonomy import LabelPath, Levels
from tillmap.review.queue import Key, ReviewRow

logger = logging.getLogger(__name__)

Labels = dict[str, str]  # of a path by level, see `Levels.of`


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DecidedRow(_Record):
    """A row of a decision, with the answer that was shown. The names are those of `ReviewRow`."""

    split: str
    id: int | str
    text: str
    answer: Labels | None
    confidence: float
    retailer: str = ""
    price: str = ""

    @property
    def key(self) -> Key:
        """What tells this row from all others."""
        return self.split, self.id, self.text


class Decision(_Record):
    """A decision.

    Attributes:
        number: the number of its line, from 1.
        when: in UTC.
        who: a name; None if none was given.
        source: the arm that answered, "" if it is not known.
        labels: the right path by level; None for "can't tell".
        rows: the rows that it is about.
    """

    number: int
    when: AwareDatetime
    who: str | None
    source: str
    labels: Labels | None
    rows: tuple[DecidedRow, ...]


class Undo(_Record):
    """Takes a decision back: its rows are as they were before. `undo` is the decision's number."""

    number: int
    when: AwareDatetime
    who: str | None
    undo: int


_LINE: TypeAdapter[Decision | Undo] = TypeAdapter(Decision | Undo)


class Decisions:
    """The state after some decisions."""

    def __init__(self) -> None:
        self._lines = 0
        self.made: list[Decision] = []  # all decisions, those that were undone included
        self._valid: dict[int, Decision] = {}
        self._of: dict[Key, list[Decision]] = {}  # the last one counts

    def of(self, key: Key) -> Decision | None:
        """The decision about a row; None if there is none."""
        found = self._of.get(key)
        return found[-1] if found else None

    def get(self, number: int) -> Decision | None:
        """The decision with this number; None if there is none, or it was undone."""
        return self._valid.get(number)

    @property
    def valid(self) -> list[Decision]:
        """The decisions that were not undone, in order."""
        return list(self._valid.values())

    def current(self) -> Iterator[tuple[DecidedRow, Decision]]:
        """Each decided row and the decision about it, by when it was first decided."""
        for key, decisions in self._of.items():
            if decisions:
                yield next(row for row in decisions[-1].rows if row.key == key), decisions[-1]

    def _add(self, record: Decision | Undo) -> None:
        self._lines += 1
        if isinstance(record, Decision):
            self.made.append(record)
            self._valid[record.number] = record
            for row in record.rows:
                self._of.setdefault(row.key, []).append(record)
        elif undone := self._valid.pop(record.undo, None):
            for row in undone.rows:
                self._of[row.key].remove(undone)


class DecisionLog(Decisions):
    """A log that is open for writing. Make it with `open_log`."""

    def __init__(self, path: Path, levels: Levels, who: str | None, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.path = path
        self._levels, self._who, self._now = levels, who, now
        with path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            self._end = _replay(content, path, levels, self)
            if self._end < len(content):
                logger.warning(
                    "%s: the last line was cut short by a kill, and removed; nothing that was shown as saved is lost",
                    path,
                )
                file.truncate(self._end)
            elif content and not content.endswith(b"\n"):  # a whole line that lacks its end
                self._end += file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)

    def decide(self, rows: Sequence[ReviewRow], path: LabelPath | None, source: str = "") -> Decision:
        """Write a decision about some rows, and wait until it is on the disk.

        Args:
            rows: the rows that need this path.
            path: the right path; None for "can't tell".
            source: the arm that answered.

        Raises OSError if it cannot be written, and ResourceError if another program changed the file. The log is as
        before then.
        """
        decided = tuple(
            DecidedRow(
                split=row.split,
                id=row.id,
                text=row.text,
                answer=None if row.answer is None else self._levels.of(row.answer),
                confidence=row.confidence,
                retailer=row.retailer,
                price=row.price,
            )
            for row in rows
        )
        labels = None if path is None else self._levels.of(path)
        decision = Decision(
            number=self._lines + 1, when=self._now(), who=self._who, source=source, labels=labels, rows=decided
        )
        self._append(decision)
        return decision

    def undo(self, number: int) -> Decision | None:
        """Take a decision back, and wait until that is on the disk. Returns it; None if it was undone before.

        Raises what `decide` raises.
        """
        decision = self.get(number)
        if decision is not None:
            self._append(Undo(number=self._lines + 1, when=self._now(), who=self._who, undo=number))
        return decision

    def _append(self, record: Decision | Undo) -> None:
        line = record.model_dump_json().encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            if file.tell() != self._end:
                raise ResourceError(
                    f"{self.path}: another program changed it; stop this page with Ctrl-C and start it again"
                )
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self._end)  # else the next line would be appended to half a line
                raise
        self._end += len(line)
        self._add(record)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def open_log(
    path: Path, levels: Levels, who: str | None = None, now: Callable[[], datetime] = _utc_now
) -> Iterator[DecisionLog]:
    """Open a log for writing, or start a new one. No other process can open it while the block runs.

    Args:
        path: the log.
        levels: the levels of its label paths.
        who: a name to write to each line.
        now: tells the time, in UTC.

    Raises ResourceError if another process has opened it, InputError if a line is damaged or has other levels.
    """
    real = path.resolve()
    lock = real.with_name(f".{real.name}.lock")
    with hold(
        lock,
        lambda process: (
            f"{path}: another page is open on this file (process {process}); use that page or stop it, or "
            "name another file with --decisions"
        ),
    ):
        yield DecisionLog(path, levels, who, now)


def read_decisions(path: Path, levels: Levels) -> Decisions:
    """The state of a log, which is not changed. An incomplete last line is ignored: it may be being written.

    Raises InputError if the file is missing, or a line is damaged or has other levels.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; `tillmap review` writes it") from None
    decisions = Decisions()
    _replay(content, path, levels, decisions)
    return decisions


def as_record(row: DecidedRow, decision: Decision, levels: Levels) -> dict[str, Any]:
    """A correction by column: the decision about one row, which is not "can't tell". See `corrections`."""
    labels, answer = decision.labels or {}, row.answer or {}
    return {
        "split": row.split or None,
        "id": row.id,
        "text": row.text,
        "retailer": row.retailer or None,
        "price": row.price or None,
        **{level: labels.get(level) for level in levels},
        "who": decision.who,
        "when": decision.when.isoformat(),
        "source": decision.source or None,
        **{f"answer_{level}": answer.get(level) for level in levels},
        "confidence": row.confidence,
    }


def corrections(decisions: Decisions, levels: Levels) -> pd.DataFrame:
    """The decided rows with their right labels, without those that nobody could tell.

    Columns: split (null for a row of a file of your own), id (int64 if all are whole numbers, else str), text, retailer
    and price (as they were shown, null if not known), the levels (null where the path has no label), who, when (ISO
    8601, UTC), source (the arm that answered), `answer_LEVEL` (its labels) and confidence.
    """
    found = [pair for pair in decisions.current() if pair[1].labels is not None]
    records = [as_record(row, decision, levels) for row, decision in found]
    answers = [f"answer_{level}" for level in levels]
    names = ["split", "id", "text", "retailer", "price", *levels, "who", "when", "source", *answers, "confidence"]
    table = pd.DataFrame(records, columns=pd.Index(names))
    numbers = all(type(row_id) is int for row_id in table["id"])
    texts = dict.fromkeys([name for name in names if name not in ("id", "confidence")], "str")
    return table.astype({**texts, "id": "int64" if numbers else "str", "confidence": "float64"})


def _replay(content: bytes, path: Path, levels: Levels, into: Decisions) -> int:
    """Add the whole lines to a state. Returns where they end: before a last line that a kill cut short."""
    end = 0
    for number, line in enumerate(content.splitlines(keepends=True) if content else (), 1):
        try:
            record = _LINE.validate_json(line)
        except ValidationError as error:
            if end + len(line) == len(content) and not line.endswith(b"\n"):
                break
            fault = first_line(ValueError(error.errors(include_url=False)[0]["msg"]))
            raise InputError(
                f"{path}:{number}: not a line of `tillmap review` ({fault}); correct it, or name another file"
            ) from None
        if record.number != number:
            raise InputError(
                f"{path}:{number}: has the number {record.number}, because lines were moved, added or removed; restore "
                "the file, or name another one"
            )
        if isinstance(record, Decision):
            _require_levels(record, levels, f"{path}:{number}")
        into._add(record)
        end += len(line)
    return end


def _require_levels(decision: Decision, levels: Levels, where: str) -> None:
    shown = [decision.labels or {}, *(row.answer or {} for row in decision.rows)]
    if other := {level for labels in shown for level in labels} - set(levels):
        raise InputError(
            f"{where}: has the level {min(other)}, but the taxonomy has {', '.join(levels)}; name another file for "
            "decisions on this taxonomy"
        )


def _sync_folder(folder: Path) -> None:
    """Wait until a new file's name is on the disk, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
