"""The neighbours of a row vote for whole label paths."""

import numpy as np
import pandas as pd

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, Key, LabelPath

_PATH = list(LEVELS)


def vote(
    neighbours: pd.DataFrame, rows: pd.DataFrame, queries: pd.DataFrame, k: int = 20, power: float = 5.0
) -> pd.DataFrame:
    """The label paths of each query's neighbours, ranked by the similarity that stands behind them.

    A neighbour weighs (its score / the query's best score) ** power, so that retrievers of any scale can vote. A
    query's scores sum to 1, and the share of the winner is the confidence in it. Equal shares go to the path whose
    nearest neighbour is nearer. A query without neighbours gets the commonest path of all, with its share of the rows.

    Args:
        neighbours: a neighbours table.
        rows: id and the four levels of the rows that neighbours are of.
        queries: split and id of the rows to answer; the result keeps their order.
        k: how many of a query's neighbours vote.
        power: how much more the nearer ones weigh; 0 for a plain count.

    Returns: split, id, rank (from 0, the answer), the four levels, score.

    Raises InputError when there are no labelled rows or a neighbour is not one of them.
    """
    labelled = rows[["id", *_PATH]].dropna()
    if labelled.empty:
        raise InputError("no labelled rows to vote with: expected an id and four labels for each training row")
    paths = labelled[_PATH].drop_duplicates(ignore_index=True)
    path_of_row = labelled.groupby(_PATH, sort=False).ngroup().to_numpy()

    voters = neighbours[neighbours["rank"] < k]
    place = pd.Index(labelled["id"]).get_indexer(voters["neighbour"])
    if (place < 0).any():
        missing = voters["neighbour"].iloc[int(np.argmin(place))]
        raise InputError(f"neighbour {missing} is not a labelled training row: index and rows differ, run both again")
    query = _place(queries, voters)
    votes = pd.DataFrame({"query": query, "path": path_of_row[place], "rank": voters["rank"].to_numpy()})[query >= 0]
    votes["score"] = _weights(votes["query"], voters["score"][query >= 0].to_numpy(dtype=np.float64), power)

    shares = votes.groupby(["query", "path"], as_index=False).agg({"score": "sum", "rank": "min"})
    unheard = np.setdiff1d(np.arange(len(queries)), votes["query"])
    counts = np.bincount(path_of_row)
    commonest = pd.DataFrame(
        {"query": unheard, "path": counts.argmax(), "score": counts.max() / counts.sum(), "rank": 0}
    )
    shares = pd.concat([shares, commonest], ignore_index=True)
    shares["share"] = shares["score"].round(12)  # sums of the same weights in another order are equal
    shares = shares.sort_values(["query", "share", "rank"], ascending=[True, False, True], kind="stable")
    asked, chosen = queries.iloc[shares["query"]], paths.iloc[shares["path"]]
    return pd.DataFrame(
        {
            "split": asked["split"].array,
            "id": asked["id"].array,
            "rank": shares.groupby("query").cumcount().array,
            **{level: chosen[level].array for level in LEVELS},
            "score": shares["score"].array,
        }
    )


def votes_by_key(votes: pd.DataFrame) -> dict[Key, list[tuple[LabelPath, float]]]:
    """The ranked label paths of each query of a `vote` table, with their scores."""
    ranked: dict[Key, list[tuple[LabelPath, float]]] = {}
    for split, row_id, *path, score in votes[["split", "id", *_PATH, "score"]].itertuples(index=False, name=None):
        ranked.setdefault((split, row_id), []).append((LabelPath(*path), score))
    return ranked


def _place(queries: pd.DataFrame, voters: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """The position of each voter's query; -1 where it was not asked."""
    asked = pd.MultiIndex.from_frame(queries[["split", "id"]])
    return asked.get_indexer(pd.MultiIndex.from_frame(voters[["split", "id"]]))


def _weights(query: pd.Series, score: "np.ndarray[tuple[int], np.dtype[np.float64]]", power: float) -> pd.Series:
    """Shares of each voter in its query's vote. Similarities below 0 count as 0; where all are, all count alike."""
    similarity = pd.Series(np.maximum(score, 0), index=query.index)
    best = similarity.groupby(query).transform("max")
    weight = (similarity / best).fillna(1.0) ** power
    return weight / weight.groupby(query).transform("sum")
