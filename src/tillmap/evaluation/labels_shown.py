"""The labelled rows that the report shows because their label looks wrong, with the evidence."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tillmap.core.taxonomy import KEY, Key, Levels
from tillmap.evaluation.review import guesses
from tillmap.evaluation.rows_shown import Numbered, nearest_rows

SUSPECTS = 200  # shown, at most


def labels_shown(
    suspects: pd.DataFrame,
    similar: pd.DataFrame,
    share: Mapping[str, Any],
    rows: pd.DataFrame,
    levels: Levels,
) -> dict[str, Any]:
    """The most suspicious labels as one JSON value.

    Args:
        suspects: the table of `audit.suspects.find_suspects`.
        similar: the table of `audit.suspects.similar_rows`.
        share: `rows`, how many were audited, and `wrong`, the estimated `share` of wrong labels with `low` and `high`.
        rows: all rows of the split.
        levels: the names of the levels.

    Keys: levels; audited; wrong; total, the number of suspects; paths, lists of labels; and rows, the first 200. A row
    has its id, text, retailer and price; `given` and `guess`, the numbers of its own path and of the one that is
    likelier; `level`, the first one that looks wrong; `confidence`, the probability that its label is right; `model`
    and `votes`, the shares of its own path and of the guess; and `near`, for each of the most similar rows of other
    products the id, text, number of the path, and similarity.
    """
    shown, paths = suspects.head(SUSPECTS), Numbered()
    labelled = rows[rows["split"] == "train"]
    keys: list[Key] = list(shown[KEY].itertuples(index=False, name=None))
    near: dict[Key, list[list[Any]]] = {key: [] for key in keys}
    for split, row_id, neighbour, text, score, path in nearest_rows(similar, labelled, shown, levels):
        near[split, row_id].append([neighbour, text, paths(path), round(score, 3)])
    named = shown[guesses(levels)].set_axis(list(levels), axis=1)
    ids = shown[KEY].merge(labelled, on=KEY, how="left").get("given_id", shown["id"])
    similars = [near[key] for key in keys]
    records = zip(ids, levels.paths(shown), levels.paths(named), similars, shown.to_dict("records"), strict=True)
    return {
        "levels": list(levels),
        "audited": share["rows"],
        "wrong": share["wrong"],
        "total": len(suspects),
        "rows": [
            {
                "id": str(given_id),
                "text": row["description"],
                "retailer": row["retailer"] or "",
                "price": None if pd.isna(row["price"]) else row["price"],
                "given": paths(given),
                "guess": paths(guess),
                "level": row["level"],
                "confidence": row["confidence"],
                "model": [row["model_own"], row["model_guess"]],
                "votes": [row["votes_own"], row["votes_guess"]],
                "near": nearest,
            }
            for given_id, given, guess, nearest, row in records
        ],
        "paths": paths.values(),
    }
