"""Counts what a catalogue's rows are like: levels, depths, classes, refunds, duplicates and contradictions."""

from typing import Any

import pandas as pd

from tillmap.core.taxonomy import LabelPath, Levels, trim
from tillmap.core.text import line_key

_SHOWN_IDS = 5  # of the rows with one text and path, in the table of contradictions


def count_rows(rows: pd.DataFrame, levels: Levels) -> dict[str, Any]:
    """Numbers about rows with `description`, `retailer`, `price` and the levels as columns.

    Returns labels (distinct ones of each level), depths (labelled rows by the number of labels of their chain), classes
    (distinct paths), refunds (rows with a negative price), null_prices, null_retailers, duplicates (rows whose text,
    retailer, price and path an earlier row has) and contradictions (labelled rows whose text another row has with
    another path; see `find_contradictions`).
    """
    paths = levels.paths(rows[levels.labelled(rows)])
    depths = pd.Series([len(trim(levels.chain_of(path))) for path in paths], dtype="int64").value_counts().sort_index()
    same = rows.duplicated(["description", "retailer", "price", *levels])
    return {
        "labels": {name: int(rows[name].nunique()) for name in levels},
        "depths": {str(depth): int(count) for depth, count in depths.items()},
        "classes": len(set(paths)),
        "refunds": int((rows["price"] < 0).sum()),
        "null_prices": int(rows["price"].isna().sum()),
        "null_retailers": int((rows["retailer"] == "").sum()),
        "duplicates": int(same.sum()),
        "contradictions": int(find_contradictions(rows, levels)["rows"].sum()),
    }


def find_contradictions(rows: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """The texts that have more than one path, however they are written: a row for each text and path.

    Columns: text (as `line_key` gives it), the levels, rows (the number of rows) and ids (the first of them, such as
    `train 7, test 12`). Sorted by text, the path with the most rows first.
    """
    labelled = rows[levels.labelled(rows)]
    given = labelled["given_id" if "given_id" in labelled else "id"].astype("str")
    found: dict[str, dict[LabelPath, list[str]]] = {}
    for text, path, row in zip(
        labelled["description"], levels.paths(labelled), labelled["split"] + " " + given, strict=True
    ):
        found.setdefault(line_key(text), {}).setdefault(path, []).append(row)
    groups = [
        (text, path, ids)
        for text, paths in sorted(found.items())
        if len(paths) > 1
        for path, ids in sorted(paths.items(), key=lambda group: (-len(group[1]), group[0]))
    ]
    table = levels.columns(path for _, path, _ in groups)
    table.insert(0, "text", pd.Series([text for text, *_ in groups], dtype="str"))
    table["rows"] = pd.Series([len(ids) for *_, ids in groups], dtype="int64")
    table["ids"] = pd.Series([", ".join(ids[:_SHOWN_IDS]) for *_, ids in groups], dtype="str")
    return table
