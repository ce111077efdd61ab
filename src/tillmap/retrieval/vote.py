"""The vote of a row's neighbours for whole label paths."""

import numpy as np
import pandas as pd

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, Key, LabelPath, Levels


def vote(  # noqa: PLR0917 - what votes, and how
    neighbours: pd.DataFrame, rows: pd.DataFrame, queries: pd.DataFrame, levels: Levels, k: int = 20, power: float = 5.0
) -> pd.DataFrame:
    """The label paths of each query's neighbours, ranked by their share of the votes.

    The weight of a neighbour is (score / best score of the query) ** power, so the scale of a retriever's scores does
    not matter. The scores of a query sum to 1; the winner's is its confidence. Of paths with equal shares the one with
    the nearest neighbour is ranked first. A query without neighbours gets the most frequent path, with its share of the
    rows as score.

    Args:
        neighbours: a neighbours table.
        rows: id and the levels of the rows that are neighbours.
        queries: split and id of the rows to answer. The result keeps their order.
        levels: the names of the levels.
        k: the number of neighbours that vote.
        power: how much more near neighbours weigh; 0 counts all equally.

    Returns: split, id, rank (0 is the answer), the levels, score.

    Raises InputError if there are no labelled rows or a neighbour is not one of them.
    """
    names = list(levels)
    labelled = rows.loc[levels.labelled(rows) & rows["id"].notna(), ["id", *names]]
    if labelled.empty:
        raise InputError("vote: there are no labelled rows; expected an id and a label path for each training row")
    paths = labelled[names].drop_duplicates(ignore_index=True)
    path_of_row = labelled.groupby(names, sort=False, dropna=False).ngroup().to_numpy()

    voters = neighbours[neighbours["rank"] < k]
    place = pd.Index(labelled["id"]).get_indexer(voters["neighbour"])
    if (place < 0).any():
        missing = voters["neighbour"].iloc[int(np.argmin(place))]
        raise InputError(f"vote: neighbour {missing} is not a labelled training row; run `dvc repro index` again")
    query = _place(queries, voters)
    votes = pd.DataFrame({"query": query, "path": path_of_row[place], "rank": voters["rank"].to_numpy()})[query >= 0]
    votes["score"] = _weights(votes["query"], voters["score"][query >= 0].to_numpy(dtype=np.float64), power)

    shares = votes.groupby(["query", "path"], as_index=False).agg({"score": "sum", "rank": "min"})
    without = np.setdiff1d(np.arange(len(queries)), votes["query"])
    counts = np.bincount(path_of_row)
    commonest = pd.DataFrame(
        {"query": without, "path": counts.argmax(), "score": counts.max() / counts.sum(), "rank": 0}
    )
    shares = pd.concat([shares, commonest], ignore_index=True)
    shares["share"] = shares["score"].round(12)  # so that equal weights summed in another order are equal
    shares = shares.sort_values(["query", "share", "rank"], ascending=[True, False, True], kind="stable")
    asked, chosen = queries.iloc[shares["query"]], paths.iloc[shares["path"]]
    return pd.DataFrame(
        {
            "split": asked["split"].array,
            "id": asked["id"].array,
            "rank": shares.groupby("query").cumcount().array,
            **{level: chosen[level].array for level in levels},
            "score": shares["score"].array,
        }
    )


def votes_by_key(votes: pd.DataFrame, levels: Levels) -> dict[Key, list[tuple[LabelPath, float]]]:
    """The ranked label paths and scores of each query in a table of `vote`, by (split, id)."""
    ranked: dict[Key, list[tuple[LabelPath, float]]] = {}
    for split, row_id, path, score in zip(
        votes["split"].tolist(), votes["id"].tolist(), levels.paths(votes), votes["score"].tolist(), strict=True
    ):
        ranked.setdefault((split, row_id), []).append((path, score))
    return ranked


def _place(queries: pd.DataFrame, voters: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
    """The position of each voter's query (voters,); -1 if it is not in `queries`."""
    asked = pd.MultiIndex.from_frame(queries[KEY])
    return asked.get_indexer(pd.MultiIndex.from_frame(voters[KEY]))


def _weights(query: pd.Series, score: "np.ndarray[tuple[int], np.dtype[np.float64]]", power: float) -> pd.Series:
    """The share of each voter in its query's vote. Scores below 0 count as 0; if all are 0, all weigh the same."""
    similarity = pd.Series(np.maximum(score, 0), index=query.index)
    best = similarity.groupby(query).transform("max")
    weight = (similarity / best).fillna(1.0) ** power
    return weight / weight.groupby(query).transform("sum")
