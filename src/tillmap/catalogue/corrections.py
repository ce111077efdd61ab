"""Reads corrections: what people decided about lines, on the page of `tillmap review` or in a table made by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.items import Fields
from tillmap.catalogue.labels import LabelReader
from tillmap.catalogue.quarantine import Quarantine
from tillmap.catalogue.reading import Row
from tillmap.catalogue.rows import BadRowError, Record, is_blank, read_id, read_price, read_retailer, read_text, show
from tillmap.config.blocks import Columns
from tillmap.core.taxonomy import LabelPath

_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Correction:
    """The right path of a line, as one person saw it.

    Attributes:
        file, row: where it stands.
        split: "train" or "test" for a row of the user's files; None if that is not known.
        id: of the row; None if it is not known.
        text: the line; None if it is not known. There is a text or an id.
        path: the right path.
        who: a name; "" if none was given.
        when: None if it is not known.
        source: the arm whose answer was shown; "" if it is not known.
        retailer, price: "" and NaN if they are not known.
    """

    file: RowFile
    row: Row
    split: str | None
    id: int | str | None
    text: str | None
    path: LabelPath
    who: str
    when: datetime | None
    source: str
    retailer: str
    price: float


def correction_files(place: Path) -> list[Path]:
    """The files of corrections: a file, or those in a folder but for hidden ones; none if there is nothing."""
    if place.is_dir():
        return sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
    return [place] if place.exists() else []


def read_corrections(place: Path, columns: Columns, labels: LabelReader, quarantine: Quarantine) -> list[Correction]:
    """The corrections in a file or folder, in order.

    A row needs `id` or `text`, or both, and a path: a column for each level, or what `data.columns.levels` names. The
    columns of id and text may also be called as in the user's own files. `split`, `who`, `when` (ISO 8601), `source`,
    `retailer` and `price` may be there. Rows without any label are skipped: nobody has decided them. Text is UTF-8.

    Args:
        place: the file or folder. It may be empty, or missing.
        columns: `data.columns`.
        labels: reads the labels of the user's files.
        quarantine: takes the bad rows.

    Raises InputError for a file that cannot be read, and what `quarantine` raises for a bad row.
    """
    reader = _Reader(Fields.of(columns), labels)
    found = []
    for path in correction_files(place):
        file = RowFile(path, known=reader.names, remedy="put it there, or correct `data.corrections`")
        for row in file.rows((), reader.names) if path.stat().st_size else ():
            if not row.raw().strip():  # as the project ships the file, of which DVC would warn if it were empty
                continue
            try:
                correction = reader.read(file, row)
            except BadRowError as fault:
                quarantine.add(file, row, str(fault))
            else:
                found += [correction] if correction else []
    return found


class _Reader:
    """Reads a correction. Its path has a column for each level, or is written as in the user's own files."""

    def __init__(self, fields: Fields, labels: LabelReader) -> None:
        ragged = labels.ragged or labels.in_one
        levels = tuple(labels.levels)
        self._labels = (replace(labels, columns=levels, in_one=False, ragged=ragged), labels)
        self._ids = ["id", *([fields.id] if fields.id else [])]
        self._texts = [("text",), fields.text]
        self._retailers = ["retailer", *([fields.retailer] if fields.retailer else [])]
        self._prices = ["price", *([fields.price] if fields.price else [])]
        named = [*self._ids, *self._retailers, *self._prices, "split", "who", "when", "source"]
        texts = [name for names in self._texts for name in names]
        columns = [name for each in self._labels for name in (*each.columns, *each.optional)]
        self.names = tuple(dict.fromkeys([*named, *texts, *columns]))

    def read(self, file: RowFile, row: Row) -> Correction | None:
        """The correction of a row; None if it has no label. Raises BadRowError."""
        record = row.read()
        if "number" in record and ("rows" in record or "undo" in record):
            raise BadRowError(
                "a line of the log of `tillmap review`; name the log with --decisions: `tillmap review --decisions "
                "LOG --save` writes what holds of it to the file of corrections"
            )
        labels = next((each for each in self._labels if each.is_labelled({**_nulls(each.columns), **record})), None)
        if labels is None:
            return None
        record = {**_nulls(labels.columns), **record}
        path = labels.read(record)
        row_id = next((read_id(record, name) for name in _filled(record, self._ids)), None)
        text = next((read_text(record, names) for names in self._texts if [*_filled(record, names)]), None)
        if row_id is None and text is None:
            raise BadRowError("has neither an `id` nor a `text`, expected one of them or both")
        split = _word(record, "split") or None
        if split not in (None, *_SPLITS):
            raise BadRowError(f"`split` is {show(split)}, expected train, test or nothing")
        return Correction(
            file=file,
            row=row,
            split=split,
            id=row_id,
            text=text,
            path=path,
            who=_word(record, "who"),
            when=_time(record),
            source=_word(record, "source"),
            retailer=read_retailer(record, next(_filled(record, self._retailers), None)),
            price=read_price(record, next(_filled(record, self._prices), None)),
        )


def _nulls(columns: Sequence[str]) -> dict[str, Any]:
    """A record in which these fields are null. JSON Lines leave out what is null."""
    return dict.fromkeys(columns)


def _filled(record: Record, names: Sequence[str]) -> Iterator[str]:
    """The fields that have a value."""
    for name in names:
        value = record.get(name)
        blank = isinstance(value, str) and is_blank(value)
        if not (value is None or value != value or blank):  # noqa: PLR0124  # NaN
            yield name


def _word(record: Record, name: str) -> str:
    """A text, "" if it is null or blank."""
    return str(record[name]) if next(_filled(record, (name,)), None) else ""


def _time(record: Record) -> datetime | None:
    given = _word(record, "when")
    if not given:
        return None
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        raise BadRowError(f"`when` is {show(given)}, expected a time such as 2026-03-01T10:15:00+00:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
