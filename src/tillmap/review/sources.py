"""Where the rows to review come from: the pipeline's files, or a file that `tillmap predict` labelled."""

import math
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tillmap.arms import ARMS
from tillmap.catalogue.formats import read_records
from tillmap.catalogue.rows import BadRowError, Record, read_any_id
from tillmap.config import paths
from tillmap.core.errors import InputError
from tillmap.core.files import read_jsonl, read_table
from tillmap.core.taxonomy import Key, LabelTree, Levels, RankedPaths
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.review.queue import Queue, ReviewRow, gains
from tillmap.serving.feed import Columns, Feed
from tillmap.splitting.subsets import product_key

_SUFFIX = "_needs_review.csv"
_ROWS_AT_ONCE = 10_000


def known_tree() -> LabelTree:
    """The pipeline's label tree. Raises InputError if it is missing."""
    return LabelTree.from_table(read_table(paths.TREE))


def from_pipeline(arm: str, levels: Levels) -> Queue:
    """The test rows that `evaluate` wants reviewed, with the arm's candidates.

    Raises InputError if the arm has no such rows: it was off, or review is.
    """
    file = paths.REVIEW / f"{arm}{_SUFFIX}"
    if not file.is_file():
        there = ", ".join(sorted(path.name.removesuffix(_SUFFIX) for path in paths.REVIEW.glob(f"*{_SUFFIX}")))
        remedy = f"choose one of {there}" if there else "run `dvc repro`, with `review.min_confidence` set"
        raise InputError(f"{file}: file not found, so there is nothing to review of the {arm} arm; {remedy}")
    # Text such as "NA" is a retailer's name, not a missing value.
    table = pd.read_csv(file, dtype={"description": str, "retailer": str, "price": str}, keep_default_na=False)
    answers = levels.paths(table[[f"guess_{level}" for level in levels]].set_axis(list(levels), axis=1))
    candidates = _candidates(arm)
    rows = [
        ReviewRow(
            id=int(row["id"]),
            split=row["split"],
            text=row["description"],
            retailer=row["retailer"],
            price=row["price"],
            answer=answer if any(answer) else None,
            confidence=float(row["confidence"]),
            gain=float(row["teaches"]),
            candidates=candidates.get((row["split"], int(row["id"])), ()),
        )
        for row, answer in zip(table.to_dict("records"), answers, strict=True)
    ]
    held = read_table(paths.REVIEW / f"{arm}.parquet", ["split"])
    return Queue.of(rows, int((held["split"] == "test").sum()), arm)


def from_file(labelled: Path, lines: Path | None, levels: Levels, columns: Columns) -> Queue:
    """The rows of a file that `tillmap predict` labelled.

    Args:
        labelled: the file: ids, the levels and `confidence`, and maybe the columns of the lines.
        lines: the file that was labelled, for the lines; None if they are in `labelled`.
        levels: the names of the levels.
        columns: the names of the other columns, in either file.

    Raises InputError for a bad row, or if a line is missing.
    """
    optional = ["source", columns.description, columns.retailer or "retailer", columns.price or "price"]
    texts = None if lines is None else _lines(lines, columns)
    read = []
    for where, get in read_records(labelled, [columns.id, *levels, "confidence"], optional):
        try:
            record = get()
            key = read_any_id(record, columns.id)
            confidence = _confidence(record)
            text, retailer, price = (_shown(record, name) for name in optional[1:])
            if texts is not None:
                text, retailer, price = texts.get(str(key), ("", "", ""))
            if not text:
                raise BadRowError(_missing_line(key, lines, columns))
        except BadRowError as fault:
            raise InputError(f"{labelled}:{where}: {fault}") from None
        answer = levels.path(record.get(level) for level in levels)
        read.append((key, text, retailer, price, answer, confidence, _shown(record, "source")))
    worth = gains([1 - row[5] for row in read], [product_key(row[1]) for row in read])
    rows = [
        ReviewRow(key, text, answer if any(answer) else None, confidence, gain, "", retailer, price)
        for (key, text, retailer, price, answer, confidence, _), gain in zip(read, worth, strict=True)
    ]
    sources = {row[6] for row in read}
    return Queue.of(rows, source=sources.pop() if len(sources) == 1 else "")


def _candidates(arm: str) -> Mapping[Key, RankedPaths]:
    """The arm's candidates; for rows that it has none for, those of the free arms."""
    found: dict[Key, RankedPaths] = {}
    for name in dict.fromkeys([arm, *(name for name in ARMS if ARMS[name].free)]):
        file = paths.COMPLETIONS / f"{name}.jsonl"
        if file.is_file():
            scores = candidate_scores(list(read_jsonl(file)))
            found = {**{key: ranked for key, ranked in scores.items() if ranked}, **found}
    return found


def _lines(path: Path, columns: Columns) -> dict[str, tuple[str, str, str]]:
    """The text, retailer and price of each row of a file, by its id as text: a CSV has no other ids."""
    return {
        str(key): (text, retailer, "" if math.isnan(price) else f"{price:.2f}")
        for batch in Feed(path, columns).batches(_ROWS_AT_ONCE)
        for key, text, retailer, price in batch.itertuples(index=False, name=None)
    }


def _missing_line(key: int | str, lines: Path | None, columns: Columns) -> str:
    if lines is None:
        return f"has no {columns.description}, so there is no line to show; name the file that was labelled with --rows"
    return f"{lines} has no row with the id {key}; name the file that was labelled with --rows"


def _confidence(record: Record) -> float:
    try:
        confidence = float(record["confidence"])
    except (KeyError, TypeError, ValueError):
        confidence = math.nan
    if not 0 <= confidence <= 1:
        raise BadRowError("`confidence` is missing or not from 0 to 1; label the file again with `tillmap predict`")
    return confidence


def _shown(record: Record, name: str) -> str:
    """A field as text, "" if it is missing or null."""
    value = record.get(name)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
