"""Counts what a catalogue's rows are like: levels, depths, classes, refunds, duplicates and contradictions."""

from typing import Any

import pandas as pd

from tillmap.core.taxonomy import Levels, trim
from tillmap.core.text import normalise

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

    Columns: text (as `normalise` gives it), the levels, rows (the number of rows) and ids (the first of them, such as
    `train 7, test 12`). Sorted by text, the path with the most rows first.
    """
    labelled, names = rows[levels.labelled(rows)], list(levels)
    # `normalise` drops some signs, such as those of a currency. Texts of nothing else are compared as they are.
    table = labelled[names].assign(
        text=labelled["description"].map(lambda text: normalise(text) or text).astype("str"),
        ids=labelled["split"] + " " + labelled["given_id" if "given_id" in labelled else "id"].astype("str"),
    )
    pairs = table[["text", *names]].drop_duplicates()
    table = table[table["text"].isin(pairs.loc[pairs["text"].duplicated(), "text"])]
    groups = table.groupby(["text", *names], dropna=False)["ids"]
    found = groups.agg(rows="size", ids=lambda ids: ", ".join(ids[:_SHOWN_IDS])).reset_index()
    found = found.sort_values(
        ["text", "rows", *names], ascending=[True, False, *[True] * len(names)], ignore_index=True
    )
    return found.astype({"rows": "int64", **dict.fromkeys(["text", *names, "ids"], "str")})
