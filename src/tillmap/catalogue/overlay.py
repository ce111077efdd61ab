"""Lays corrections over a catalogue's rows.

* A row of the files that has a label gets the new one. It stays where it is: a held-out row and a labelled test row are
  scored by the new label, and train nothing more than before.
* A test row without a label stays without one, since it was not drawn at random and would be trained on: it must not be
  scored. A copy of it becomes a training row.
* A line that no file has becomes a training row.
* No training row is added whose line a labelled test row has: the arms would be scored on a line that they know.

Corrections without a time come before all others. The later one of a row wins.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

import pandas as pd

from tillmap.catalogue.corrections import Correction
from tillmap.catalogue.quarantine import Quarantine
from tillmap.catalogue.rows import MAX_ID, same_id
from tillmap.catalogue.source import Source
from tillmap.core.taxonomy import LabelPath, Levels
from tillmap.core.text import line_key

CORRECTED = "corrected"  # the column of the rows: how a correction made the row what it is, null for most rows
CHANGED, CONFIRMED, ADDED = "changed", "confirmed", "added"  # its values
_LEFT_OUT, _OVERRULED = "left_out", "overruled"  # more kinds of corrections
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Overlaid:
    """A source with corrections.

    Attributes:
        source: its rows have the new labels and the added rows, these behind the other training rows, and the column
            `corrected` if there is any correction.
        listed: what became of each correction, with a row for each row of the files that it is about: file, line,
            split, id and text (of the row, or as in the correction for a line that no file has), the levels,
            `was_LEVEL` (the label before), who, when, source, kind (changed, confirmed, added; overruled: a later one
            holds; left_out: a labelled test row has the line) and disputed (others say that the row has another path).
        counts: for metrics: how many rows of each kind, disputed rows, and new paths, which no row had.
    """

    source: Source
    listed: pd.DataFrame
    counts: dict[str, int]


def overlay(source: Source, corrections: Sequence[Correction], quarantine: Quarantine) -> Overlaid:
    """Lay corrections over the rows of a source. A correction that names no row goes to `quarantine`.

    A correction with an id and a text is about the row that has both; if there is none, about the rows with that text,
    see `core.text.line_key`; if no row has it, about a new line. One with only an id is about that row.

    Raises what `quarantine` raises.
    """
    rows, levels = source.rows, source.levels
    places = _Places(rows)
    cases: dict[int | str, _Case] = {}  # by the place of a row, or by the line that no file has
    for correction in corrections:
        found: list[int] | str = places.find(correction)
        if isinstance(found, str):
            quarantine.add(correction.file, correction.row, found)
            continue
        keys: Sequence[int | str] = found or [line_key(correction.text or "")]
        for key in keys:
            cases.setdefault(key, _Case()).corrections.append(correction)
    if not cases:
        return Overlaid(source, _listed([], levels), _counts([], set()))
    paths = levels.paths(rows)
    known = {path for path in paths if any(path)} | set(source.declared or ())
    scored = {places.keys[place] for place, path in enumerate(paths) if any(path) and places.splits[place] == "test"}
    for key, case in cases.items():
        if isinstance(key, str):
            case.kind = ADDED
        elif any(paths[key]):
            case.was = paths[key]
            case.kind = CONFIRMED if case.holds.path == paths[key] else CHANGED
        else:
            case.kind = _LEFT_OUT if places.keys[key] in scored else ADDED
    table = _relabelled(rows, levels, {key: case for key, case in cases.items() if isinstance(key, int)})
    table = _with_added(table, levels, [(key, case.holds) for key, case in cases.items() if case.kind == ADDED])
    listed = [
        _Entry(case, each, None if isinstance(key, str) else (places.splits[key], str(places.ids[key]),
               places.texts[key]))
        for key, case in cases.items() for each in case.corrections
    ]  # fmt: skip
    new = {case.holds.path for case in cases.values() if case.kind != _LEFT_OUT} - known
    codes = source.labels.codes
    train = levels.paths(table[table["split"] == "train"])
    declared = codes.declare(levels, train) if codes else None
    return Overlaid(
        replace(source, rows=table, declared=declared),
        _listed(listed, levels),
        _counts(list(cases.values()), new),
    )


@dataclass
class _Case:
    """All corrections of one row, or of one line that no file has. `was`: its path in the files, if it has one."""

    corrections: list[Correction] = field(default_factory=list)
    kind: str = ""
    was: LabelPath | None = None

    @property
    def holds(self) -> Correction:
        """The one that counts."""
        return max(reversed(self.corrections), key=lambda each: each.when or _NEVER)

    @property
    def is_disputed(self) -> bool:
        return len({each.path for each in self.corrections}) > 1


@dataclass(frozen=True)
class _Entry:
    case: _Case
    correction: Correction
    row: tuple[str, str, str] | None  # split, id and text in the user's files


class _Places:
    """Finds rows by id and by line. A place is a row's position in the table."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self.splits, self.texts = rows["split"].tolist(), rows["description"].tolist()
        self.ids = rows["given_id" if "given_id" in rows else "id"].tolist()
        self.keys = [line_key(text) for text in self.texts]
        self._by_id: dict[int | str, list[int]] = {}
        self._by_line: dict[str, list[int]] = {}
        for place, (row_id, key) in enumerate(zip(self.ids, self.keys, strict=True)):
            self._by_id.setdefault(same_id(row_id), []).append(place)
            self._by_line.setdefault(key, []).append(place)

    def find(self, correction: Correction) -> list[int] | str:
        """The places of the rows that a correction is about, none for a new line; or why there can be none."""
        same = [] if correction.id is None else self._by_id.get(same_id(correction.id), [])
        # Rows that `split.test` makes test rows are of the training file, where this looks for them.
        both = {self.splits[place] for place in same} if correction.split else set()
        if correction.split in both:
            same = [place for place in same if self.splits[place] == correction.split]
        if correction.text is not None:
            key = line_key(correction.text)
            return [place for place in same if self.keys[place] == key] or self._by_line.get(key, [])
        if not same:
            return f"no row has the id {correction.id}, expected that of a row, or a `text`"
        if len(same) > 1:
            return f"a training and a test row have the id {correction.id}, expected a `split` or a `text`, too"
        return same


def _relabelled(rows: pd.DataFrame, levels: Levels, cases: dict[int, _Case]) -> pd.DataFrame:
    """The rows with the new labels of those that had one, and with the column `corrected`."""
    labelled = {place: case for place, case in cases.items() if case.was is not None}
    kinds: list[str | None] = [None] * len(rows)
    for place, case in labelled.items():
        kinds[place] = case.kind
    table = rows.assign(**{CORRECTED: pd.Series(kinds, index=rows.index, dtype="str")})
    places = list(labelled)
    for depth, level in enumerate(levels):
        labels = table[level].tolist()
        for place in places:
            labels[place] = labelled[place].holds.path[depth] or None
        table[level] = pd.Series(labels, index=rows.index, dtype="str")
    return table


def _with_added(table: pd.DataFrame, levels: Levels, added: Sequence[tuple[int | str, Correction]]) -> pd.DataFrame:
    """The rows with new training rows behind the others: copies of rows at a place, and lines that no file has."""
    if not added:
        return table
    train = table[table["split"] == "train"]
    given = set(train["given_id"]) if "given_id" in table else set()
    records = []
    for (key, correction), row_id, number in zip(added, _free_ids(train["id"]), count(1), strict=False):
        path = correction.path
        record = {"split": "train", "id": row_id, CORRECTED: ADDED} | {
            level: path[depth] or None for depth, level in enumerate(levels)
        }
        if isinstance(key, int):
            copied = ("description", "retailer", "price")
            record |= {name: table[name].iloc[key] for name in copied}
            name = str(table["given_id"].iloc[key]) if "given_id" in table else ""
        else:
            record |= {
                "description": correction.text, "retailer": correction.retailer, "price": correction.price
            }  # fmt: skip
            name = "" if correction.id is None else str(correction.id)
        if "given_id" in table:
            record["given_id"] = name if name and name not in given else f"correction {number}"
            given.add(record["given_id"])
        records.append(record)
    more = pd.DataFrame(records)[list(table.columns)].astype(table.dtypes.to_dict())
    return pd.concat([train, more, table[table["split"] == "test"]], ignore_index=True)


def _free_ids(taken: "pd.Series[int]") -> Iterator[int]:
    """Numbers behind the largest id, or the smallest free ones if there is no room for them."""
    largest = int(taken.max())
    if largest < MAX_ID - 10**9:
        return count(largest + 1)
    used = set(taken.tolist())
    return (number for number in count(1) if number not in used)


def _counts(cases: Sequence[_Case], new: Iterable[LabelPath]) -> dict[str, int]:
    kinds = (CHANGED, CONFIRMED, ADDED, _LEFT_OUT)
    return {
        **{kind: sum(case.kind == kind for case in cases) for kind in kinds},
        "disputed": sum(case.is_disputed for case in cases),
        "new_paths": len(set(new)),
    }


def _listed(entries: Sequence[_Entry], levels: Levels) -> pd.DataFrame:
    records = []
    for entry in sorted(entries, key=lambda entry: (entry.correction.file.path, entry.correction.row.place)):
        case, each = entry.case, entry.correction
        split, row_id, text = entry.row or (None, None if each.id is None else str(each.id), each.text)
        was = case.was or [""] * len(levels)
        records.append(
            (
                each.file.path.name, each.row.place, split, row_id, text,
                *(label or None for label in each.path), *(label or None for label in was),
                each.who or None, each.when.isoformat() if each.when else None, each.source or None,
                case.kind if each is case.holds else _OVERRULED, case.is_disputed,
            )
        )  # fmt: skip
    names = [
        "file", "line", "split", "id", "text", *levels, *(f"was_{level}" for level in levels),
        "who", "when", "source", "kind", "disputed",
    ]  # fmt: skip
    table = pd.DataFrame(records, columns=pd.Index(names))
    texts = dict.fromkeys([name for name in names if name not in ("line", "disputed")], "str")
    return table.astype({**texts, "line": "int64", "disputed": "bool"})
