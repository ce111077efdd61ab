"""The files that rows come in: JSON, CSV with a header, and Parquet; plain or packed; one file, or a folder.

A file is read as a stream: a line, a packed file or a table may be larger than memory. A new format is a reader and a
line in `_READERS`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from urllib.parse import unquote

from tillmap.catalogue.containers import PACKED, opened
from tillmap.catalogue.csv_tables import open_csv, require_delimiter
from tillmap.catalogue.encodings import require_encoding
from tillmap.catalogue.json_lines import open_json
from tillmap.catalogue.parquet_tables import open_parquet
from tillmap.catalogue.reading import Format, Manner, Reader, Row
from tillmap.catalogue.rows import Record
from tillmap.core.errors import InputError

_READERS: Mapping[Format, Callable[[BufferedReader, Manner], AbstractContextManager[Reader]]] = {
    "jsonl": open_json,
    "csv": open_csv,
    "parquet": open_parquet,
}
_ENDINGS: Mapping[str, Format] = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".features": "jsonl", ".labels": "jsonl",
    ".predict": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
ENDINGS = tuple(_ENDINGS)
_NULL = "__HIVE_DEFAULT_PARTITION__"  # in the name of a folder
_SPREADSHEETS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers")


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name says, before that of a packed file.

    Raises InputError for an unknown ending.
    """
    ending = unpacked(path).suffix.lower()
    if ending in _SPREADSHEETS:
        raise InputError(
            f"{path}: a spreadsheet is neither read nor written; use CSV UTF-8, which it can save and open"
        )
    try:
        return _ENDINGS[ending]
    except KeyError:
        if path.is_dir():
            raise InputError(
                f"{path}: this is a folder whose name does not say the format of its files; name it with --format"
            ) from None
        raise InputError(
            f"{path}: unknown file format, expected a name that ends in .jsonl, .csv or .parquet; rename the file, or "
            "name its format with --format (input) or --out-format (output)"
        ) from None


def unpacked(path: Path) -> Path:
    """The path without the ending of a packed file, such as .gz."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
        path: the file.
        format: its format; None for the one that its name says.
        encoding: of CSV and JSON Lines, if they do not start with a byte order mark.
        delimiter: of CSV; None to recognise it.
        known: names of columns that may be in it, which help to recognise the delimiter.
        name: what errors call the file; None for its path.
        remedy: what errors say to do if there is no such file.
        naming: where the names of its columns are given.
        fixed: columns with one value for all rows, which are not in the file: those of the names of its folders.
    """

    path: Path
    format: Format | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    known: tuple[str, ...] = ()
    name: str | None = None
    remedy: str = "check its name"
    naming: str = "`data.columns` (or with the command's options, --help)"
    fixed: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """What errors call the file."""
        return self.name or str(self.path)

    @property
    def kind(self) -> Format:
        """The file's format. Raises InputError for an unknown ending."""
        return self.format or format_of(self.path)

    @property
    def unit(self) -> str:
        """What the places of rows count: "line" or "row"."""
        return "row" if self.kind == "parquet" else "line"

    def check(self) -> None:
        """Raise InputError if the file cannot be opened, or its format or encoding is unknown."""
        require_encoding(self.encoding, self.shown)
        require_delimiter(self.delimiter, self.shown)
        if not self.path.is_file():
            _ = self.kind
        for part in self.parts():
            with part._opened():  # first, because it calls an archive or a workbook by its name
                _ = part.kind

    def parts(self) -> list["RowFile"]:
        """The file itself; or of a folder, as Spark writes it, its files with rows, by name.

        A folder in it that is called `retailer=shop` says the retailer of all rows in its files.
        Raises InputError if there is none.
        """
        if not self.path.is_dir():
            return [self]
        there = sorted(path for path in self.path.rglob("*") if path.is_file())
        files = [path for path in there if _is_part(path.relative_to(self.path))]
        if not files:
            raise InputError(f"{self.shown}: this folder has no files with rows; name a file, or a folder of parts")
        return [self._part(path, path.relative_to(self.path)) for path in files]

    def rows(self, needed: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
        """The rows, one by one.

        Args:
            needed: the columns that a CSV or Parquet file must have. The fields of a line of JSON are for
                `catalogue.rows` to check.
            optional: columns that are read if they are there; a table's other columns are skipped.

        Raises InputError if the file cannot be read, does not have its format, or lacks a needed column.
        """
        self.check()
        parts = self.parts()
        return self._own_rows(needed, optional) if parts == [self] else _rows_of(parts, needed, optional)

    def _own_rows(self, needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
        with self._reader() as reader:
            if reader.header is None:
                rows = reader.rows(())
            elif reader.header:
                columns = _choose_columns(self, [*reader.header, *self.fixed], needed, optional)
                rows = reader.rows([name for name in columns if name in reader.header])
            else:  # a CSV without a line has no rows
                return
            for row in rows:
                yield row._replace(read=partial(_with_fixed, row.read, self.fixed)) if self.fixed else row

    def header(self) -> tuple[str, ...] | None:
        """The names of a table's columns; None for JSON, where each row has its own."""
        self.check()
        first = self.parts()[0]
        with first._reader() as reader:
            return None if reader.header is None else (*reader.header, *first.fixed)

    def _part(self, path: Path, inside: Path) -> "RowFile":
        """A file of this folder. `inside` is its path within the folder."""
        said = (name.partition("=") for name in inside.parent.parts if "=" in name)
        fixed = {unquote(name): None if value == _NULL else unquote(value) for name, _, value in said}
        return replace(self, path=path, format=self.kind, name=f"{self.shown}/{inside}", fixed=fixed)

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        manner = Manner(self.shown, self.encoding, self.delimiter, self.known)
        with self._opened() as file, _READERS[self.kind](file, manner) as reader:
            yield reader

    def _opened(self) -> AbstractContextManager[BufferedReader]:
        """The file's bytes, unpacked."""
        return opened(self.path, self.shown, self.remedy)


def _rows_of(parts: Sequence[RowFile], needed: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    """The rows of a folder's parts. The places of a part go on from those of the part before."""
    last = 0
    for part in parts:
        before = last
        for row in part._own_rows(needed, optional):
            last = before + row.place
            yield row._replace(place=last)


def _with_fixed(read: Callable[[], Record], fixed: Mapping[str, str | None]) -> Record:
    return {**read(), **fixed}


def _is_part(path: Path) -> bool:
    """Whether a file of a folder has rows. Those with a writer's notes start with a point or an underscore."""
    return not any(name.startswith((".", "_")) for name in path.parts)


def _choose_columns(file: RowFile, there: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The columns of a table that are read. Raises InputError if one is missing, or its name is there twice."""
    wanted = list(dict.fromkeys((*needed, *optional)))
    missing = [name for name in dict.fromkeys(needed) if name not in there]
    twice = [name for name in wanted if list(there).count(name) > 1]
    if missing or twice:
        fault = f"no column {', '.join(missing)}" if missing else f"more than one column {', '.join(twice)}"
        raise InputError(
            f"{file.shown}: {fault}; there are: {', '.join(there)[:200] or 'none'}; rename the columns, or name them "
            f"in {file.naming}"
        )
    return [name for name in wanted if name in there]
