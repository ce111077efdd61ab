"""Reading and writing the pipeline's files: Parquet, JSON and JSON Lines.

A file is written under another name in the same folder and renamed once it is complete, so that a killed run never
leaves half a file under the final name.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.core.errors import InputError, first_line

# Far above anything that the pipeline writes. A larger file is damaged, or was made to fill the memory.
MAX_JSON_BYTES = 2**30
MAX_LINE_BYTES = 2**26
MAX_ROWS = 200_000_000

OFF = "off.json"  # the file in the folder of an arm that is switched off


def _how_to_get(path: Path) -> str:
    return f"run `dvc repro` to create it, or `dvc pull {path}` to fetch it"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing; it replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create an empty temporary folder; it replaces `path` when the block ends without an error."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    if path.is_symlink():  # DVC checks out links where `cache.type` is symlink
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(value: Any, path: Path) -> None:
    """Write one JSON value, indented so that a git diff shows what changed."""
    write_text(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n", path)


def read_json(path: Path) -> Any:
    """Read one JSON value. Raises InputError if the file is missing, too large or not JSON."""
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
        raise InputError(f"{path}: not JSON ({first_line(error)}); delete it and {_how_to_get(path)}") from None


def write_jsonl(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write one JSON object per line."""
    with replacing(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file one at a time.

    Raises InputError, with the line's number, if a line is too long or not a JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{path}:{number}: longer than {MAX_LINE_BYTES:,} bytes; delete it and {_how_to_get(path)}"
                    )
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if not isinstance(record, dict):
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
    """Read a Parquet table. Raises InputError if it is missing, damaged, too large, or lacks a column."""
    try:
        with path.open("rb") as file:
            rows = pq.ParquetFile(file).metadata.num_rows  # a few bytes can encode billions of equal rows
            if rows > MAX_ROWS:
                raise InputError(
                    f"{path}: {rows:,} rows, at most {MAX_ROWS:,} are read; delete it and {_how_to_get(path)}"
                )
        return pd.read_parquet(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: file not found; {_how_to_get(path)}") from None
    # pandas raises the errors after OSError when a file's own metadata is wrong, as in a file made to do harm.
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, MemoryError) as error:
        raise InputError(
            f"{path}: not a Parquet table with the expected columns ({first_line(error)}); "
            f"delete it and {_how_to_get(path)}"
        ) from None
