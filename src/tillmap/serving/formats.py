"""The columns and the format of a file of labelled rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa

from tillmap.catalogue.containers import packing
from tillmap.catalogue.formats import format_of
from tillmap.catalogue.reading import Format
from tillmap.core.errors import LostRowsError
from tillmap.core.taxonomy import Levels
from tillmap.core.writing import replacing
from tillmap.serving.explanation import EXPLANATION
from tillmap.serving.table_writers import TABLE_WRITERS, Write

_PATH = pa.list_(pa.string())
_OTHER_TYPES = {  # than text
    "confidence": pa.float64(),
    "needs_review": pa.bool_(),
    "in_tree": pa.bool_(),
    "candidates": pa.list_(pa.struct({"path": _PATH, "share": pa.float64()})),
    "neighbours": pa.list_(
        pa.struct({"id": pa.string(), "text": pa.string(), "path": _PATH, "similarity": pa.float64()})
    ),
    "words": pa.list_(pa.struct({"word": pa.string(), "adds": pa.float64()})),
}


def answer_columns(
    id_name: str, levels: Levels, *, codes: bool, reviewed: bool = True, explained: bool = False
) -> dict[str, str]:
    """What the columns after the id are called in a file of answers, by their own names.

    They have their own names, but for one that the column of ids has: it is called `answer_NAME`.
    """
    names = [*levels, *(["code"] if codes else []), "confidence", *(["needs_review"] if reviewed else [])]
    names += ["repair", "in_tree", "source", "status", *(EXPLANATION if explained else ())]
    return {name: f"answer_{name}" if name == id_name else name for name in names}


def format_or_lines(path: Path, stream: bool) -> Format:
    """The format that a file's name says; JSON Lines for a stream whose name says nothing.

    Raises InputError for an unknown ending.
    """
    return "jsonl" if stream and not path.suffix else format_of(path)


def format_of_input(path: Path, stream: bool) -> Format | None:
    """The format of an input, as `format_or_lines` says; None for a file, whose reader looks at its name itself."""
    return format_or_lines(path, stream) if stream else None


@contextmanager
def write_answers(
    path: Path,
    format_: Format,
    id_name: str,
    *,
    rows: int,
    numbers: bool,
    levels: Levels,
    codes: bool,
    reviewed: bool = True,
    explained: bool = False,
) -> Iterator[Write]:
    """Give a function that appends a table of labelled rows to a file.

    The file takes the place of `path` only once the block ends without an error. It is packed if its name ends in .gz,
    .bz2 or .zst.

    Args:
        path: the file to write.
        format_: its format.
        id_name: what to call the column of ids.
        rows: how many rows will be written.
        numbers: whether every id is a whole number, or the text of one. Then the ids are written as numbers. Else a
            Parquet file has them all as text, since a column has one type; JSON Lines keep each as it was.
        levels: the names of the levels.
        codes: whether there is a code for each path.
        reviewed: whether the answers say which rows a person should look at.
        explained: whether the answers are explained. JSON Lines have an explanation as objects, CSV as the text of
            these objects, and Parquet as lists of structs.

    A table has `key` (the id), the levels (null where a path ends), `code` if there are codes, confidence,
    `needs_review` if they are reviewed, repair, in_tree, source and status; and the columns of `EXPLANATION` as JSON
    texts if there are explanations.

    Raises LostRowsError, and leaves `path` as it is, if another number of rows was written.
    """
    written = 0
    columns = answer_columns(id_name, levels, codes=codes, reviewed=reviewed, explained=explained)
    texts = [*levels, *(["code"] if codes else [])]
    fields = [(new, _OTHER_TYPES.get(name, pa.string())) for name, new in columns.items()]
    schema = pa.schema([(id_name, pa.int64() if numbers else pa.string()), *fields])
    with replacing(path) as file, packing(file, path) as plain, TABLE_WRITERS[format_](plain, schema) as write:

        def append(answers: pd.DataFrame) -> None:
            nonlocal written
            written += len(answers)
            keys = [int(key) for key in answers["key"]] if numbers else list(answers["key"])
            ids = pd.Series(keys, index=answers.index, dtype=object)
            labels = answers[texts].astype(object).replace("", None)
            table = answers.assign(key=ids, **labels)[["key", *columns]]
            write(table.set_axis(schema.names, axis=1))

        yield append
        if written != rows:
            raise LostRowsError(
                f"{path}: {written:,} rows were to be written, but {rows:,} were read; nothing was written: run again"
            )
