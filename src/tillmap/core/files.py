"""Reading and writing files: Parquet, JSON and JSON Lines. What is written replaces a file as `writing` says."""

import inspect
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from tillmap.core.errors import InputError, LostRowsError, ModelError, ResourceError, first_line, raise_if_machine
from tillmap.core.writing import replacing

T = TypeVar("T")

# Far above anything that the pipeline writes. A larger file is damaged, or was made to fill the memory.
MAX_JSON_BYTES = 2**30
MAX_LINE_BYTES = 2**26
MAX_ROWS = 200_000_000

OUT_OF_FOLD = "out_of_fold.parquet"  # in a model's folder: paths of training rows, by models not trained on them
OFF = "off.json"  # the file in the folder of an arm that is switched off

# Columns of ours that are no texts, and the kinds of numbers in them. No level of a user's has such a name.
_KINDS = {
    **dict.fromkeys(("id", "rank", "neighbour", "rows"), "iu"),
    **dict.fromkeys(("price", "score", "confidence", "share"), "f"),
    "in_tree": "b",
}


def _how_to_get(path: Path) -> str:
    return f"run `dvc repro` to create it, or `dvc pull {path}` to fetch it"


def require_same_rows(what: str, found: Iterable[Hashable], expected: Iterable[Hashable]) -> None:
    """Raise LostRowsError unless an output has the keys of its input: each once, in the same order.

    `what` begins the message, such as "the answers of linear".
    """
    missing = object()
    for number, (has, wanted) in enumerate(zip_longest(found, expected, fillvalue=missing), 1):
        if has != wanted:
            shown = ["no row" if key is missing else f"{key}" for key in (has, wanted)]
            raise LostRowsError(
                f"{what}: row {number} is {shown[0]}, expected {shown[1]}; nothing was written: run again, and if it "
                "happens again, report it"
            )


def require_readable(path: Path) -> None:
    """Raise InputError if a file is there but may not be read. A missing one is left to the reader.

    Some libraries call both "not found", and to delete and make it again is no advice for the file of a colleague.
    """
    try:
        with path.open("rb"):
            return
    except PermissionError:
        raise InputError(
            f"{path}: it is there, but you may not read it; ask its owner for `chmod -R a+rX {path.parent}`"
        ) from None
    except OSError:
        return


def require_no_adapter(folder: Path) -> None:
    """Raise ModelError if there is an adapter in a model's folder.

    Libraries would load it unasked and unchecked, and its config can name another model as its base, at any place.
    """
    if found := min(folder.rglob("adapter_config.json"), default=None):
        raise ModelError(
            f"{found}: an adapter is in the folder of a model, where none may be; remove it, or merge both into one"
        )


def read_as(kind: type[T], path: Path, values: Any) -> T:
    """The object that some JSON values are the attributes of. `path` is where they were read.

    Raises ModelError if one is missing, unknown or of another type: another version saved them.
    """
    with of_this_version(path):
        if not isinstance(values, dict):
            raise TypeError("not a JSON object")
        if unknown := values.keys() - inspect.signature(kind).parameters.keys():
            raise ValueError(f"unknown: {min(unknown)}")
        return TypeAdapter(kind).validate_python(values)


@contextmanager
def of_this_version(path: Path) -> Iterator[None]:
    """Raise ModelError where a file was read that does not hold what this version of tillmap saves."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"{path}: of another version of tillmap, or damaged ({first_line(error)}); run `dvc repro` to make it "
            "anew, or use the version that made it"
        ) from None


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text."""
    with replacing(path) as file:
        file.write(text.encode())


def json_bytes(text: str) -> bytes:
    """A text of JSON in UTF-8. Half a surrogate in it, which UTF-8 cannot hold, is escaped."""
    return text.encode(errors="backslashreplace")  # its escape is JSON's own


def write_json(value: Any, path: Path) -> None:
    """Write one JSON value, indented so that a git diff shows what changed. Half a surrogate is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(json_bytes(text))


def read_json(path: Path) -> Any:
    """Read one JSON value. Raises InputError if the file is missing, private, too large or not JSON."""
    require_readable(path)
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise InputError(
                f"{path}: {size:,} bytes, at most {MAX_JSON_BYTES:,} are read; delete it and {_how_to_get(path)}"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; {_how_to_get(path)}") from None
    except (ValueError, RecursionError, OSError) as error:  # RecursionError: nested too deeply
        raise_if_machine(error, path)
        raise InputError(f"{path}: not JSON ({first_line(error)}); delete it and {_how_to_get(path)}") from None


def write_jsonl(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write one JSON object per line."""
    with replacing(path) as file:
        for record in records:
            file.write(json_bytes(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"))


def json_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object in a line; None if it is anything else."""
    try:
        value = json.loads(line) if b"{" in line else None  # an error is slow, and blank lines can be millions
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file one at a time.

    Raises InputError, with the line's number, if a line is too long or not a JSON object.
    """
    require_readable(path)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{path}:{number}: longer than {MAX_LINE_BYTES:,} bytes; delete it and {_how_to_get(path)}"
                    )
                record = json_object(line)
                if record is None:
                    raise InputError(f"{path}:{number}: not a JSON object; delete it and {_how_to_get(path)}")
                yield record
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; {_how_to_get(path)}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a file; delete it and {_how_to_get(path)}") from None


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, without its index. Equal tables give equal bytes."""
    with replacing(path) as file:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), file, compression="zstd")


def read_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table.

    Raises InputError if it is missing, private, damaged, too large, or lacks a column, and ResourceError if the memory
    is too small for it.
    """
    require_readable(path)
    try:
        # Without threads: those of `pandas.read_parquet` wait for each other forever if the memory runs out.
        with path.open("rb") as file, pq.ParquetFile(file) as table:
            rows = table.metadata.num_rows  # a few bytes can encode billions of equal rows
            if rows > MAX_ROWS:
                raise InputError(
                    f"{path}: {rows:,} rows, at most {MAX_ROWS:,} are read; delete it and {_how_to_get(path)}"
                )
            found = table.read(columns, use_threads=False)
        frame: pd.DataFrame = (found if columns is None else found.select(columns)).to_pandas(use_threads=False)
        if lost := [name for name in columns or () if name not in frame]:
            raise ValueError(f"its notes for pandas hide the column {lost[0]}")
        _check_kinds(frame)
        return frame
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; {_how_to_get(path)}") from None
    except MemoryError:
        raise ResourceError(
            f"{path}: out of memory; close other programs, or, if others made this file, make sure that it is sound"
        ) from None
    # The errors after OSError are raised when a file's own metadata is wrong, as in a file made to do harm.
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise_if_machine(error, path)
        raise InputError(
            f"{path}: not a Parquet table with the expected columns ({first_line(error)}); "
            f"delete it and {_how_to_get(path)}"
        ) from None


def _check_kinds(table: pd.DataFrame) -> None:
    """Raise ValueError if a column of ours has values of another type than the stages write."""
    if table.columns.has_duplicates:
        raise ValueError("a column is there twice")
    for name, column in table.items():
        if not len(table) or column.isna().all():
            continue  # of no type
        texts = isinstance(column.dtype, pd.StringDtype)
        expected = _KINDS.get(str(name))
        if (not texts and column.dtype.kind not in "iufb") or (expected and column.dtype.kind not in expected):
            raise ValueError(f"{name} has values of the type {column.dtype}")
