"""The paths table: distinct label paths for each query, best first, each with a training row that shows it.

It is the one form of what every retriever finds. Neighbours become one by `paths_of_neighbours`, an arm's ranked
candidates by `paths_of_ranking`. Its columns are split and id (the query), rank (from 0), the levels, score (float32)
and neighbour (the id of the row that shows the path, -1 if no row has it). So it is a neighbours table, too, in which
no path comes twice.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, Key, Levels, RankedPaths
from tillmap.retrieval.base import Ids, Retriever, read_text

NO_ROW = -1
MAX_CANDIDATES = 20
# Texts of a path that are compared with a query, the most frequent first. Paths with more texts have many alike.
MAX_TEXTS = 50
_QUERIES = 500  # whose pairs are in memory at a time


def paths_of_neighbours(
    neighbours: pd.DataFrame, rows: pd.DataFrame, levels: Levels, k: int | None = None
) -> pd.DataFrame:
    """The first k distinct paths of each query's neighbours, each with its nearest row.

    Args:
        neighbours: a neighbours table.
        rows: id and the levels of the rows that are neighbours.
        levels: the names of the levels.
        k: paths per query; None for all.

    Raises InputError if a neighbour is not among the rows.
    """
    place = pd.Index(rows["id"]).get_indexer(pd.Index(neighbours["neighbour"]))
    if (unknown := place < 0).any():
        example = neighbours["neighbour"][unknown].iloc[0]
        raise InputError(
            f"neighbours: {unknown.sum():,} of {len(neighbours):,} are not training rows, e.g. id={example}; "
            "run `dvc repro index` to build the index from this split"
        )
    names = list(levels)
    code = rows.groupby(names, sort=False, dropna=False).ngroup().to_numpy()
    table = neighbours[[*KEY, "rank", "score", "neighbour"]].assign(_path=code[place], _row=place)
    table["_query"] = table.groupby(KEY, sort=False, observed=True).ngroup()
    table = table.sort_values(["_query", "rank"], kind="stable").drop_duplicates(["_query", "_path"])
    table["rank"] = table.groupby("_query").cumcount()
    table = table if k is None else table[table["rank"] < k]
    labels = rows[names].iloc[table["_row"]].set_index(table.index)
    return pd.concat([table, labels], axis=1)[_columns(levels)].reset_index(drop=True)


def paths_of_ranking(
    ranked: Mapping[Key, RankedPaths], levels: Levels, k: int, rows: "PathRows | None" = None,
    queries: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The first k paths that an arm ranks for each query, each with a row that shows it.

    Args:
        ranked: the distinct paths of each query, best first, with their shares.
        levels: the names of the levels.
        k: paths per query.
        rows: chooses the rows; None leaves them out (-1).
        queries: split, id and description of the queries, to choose rows for.
    """
    entries = [
        (*key, rank, path, share)
        for key, paths in ranked.items()
        for rank, (path, share) in enumerate(paths[:k])
    ]  # fmt: skip
    table = pd.DataFrame(entries, columns=[*KEY, "rank", "path", "score"])
    table = pd.concat([table, levels.columns(table.pop("path"))], axis=1)
    table["score"] = table["score"].astype(np.float32)
    table["neighbour"] = np.full(len(table), NO_ROW, dtype=np.int64)
    if rows is not None and queries is not None:
        table["neighbour"] = rows.choose(queries, table)
    return table[_columns(levels)]


def candidate_paths(
    ranked: Mapping[Key, RankedPaths],
    neighbours: pd.DataFrame,
    queries: pd.DataFrame,
    *,
    training: pd.DataFrame,
    levels: Levels,
    rows: "PathRows",
) -> pd.DataFrame:
    """The paths to choose a query's answer from: those that an arm ranks, then those of the query's neighbours.

    At most `MAX_CANDIDATES` a query. `score` is the share of a ranked path, and 0 for a path that only neighbours have.

    Args:
        ranked: the paths of each query, best first, with their shares; empty for the neighbours' alone.
        neighbours: a neighbours table.
        queries: split, id and description of the queries.
        training: the rows that are neighbours, with the levels.
        levels: the names of the levels.
        rows: chooses the row that shows a ranked path.
    """
    tables = (
        paths_of_ranking(ranked, levels, MAX_CANDIDATES, rows, queries),
        paths_of_neighbours(neighbours, training, levels).assign(score=np.float32(0)),
    )
    table = pd.concat([each.assign(_table=number) for number, each in enumerate(tables) if len(each)])
    table["_query"] = pd.MultiIndex.from_frame(queries[KEY]).get_indexer(pd.MultiIndex.from_frame(table[KEY]))
    table = table.sort_values(["_query", "_table", "rank"], kind="stable").drop_duplicates(["_query", *levels])
    table["rank"] = table.groupby("_query").cumcount()
    return table.loc[table["rank"] < MAX_CANDIDATES, _columns(levels)].reset_index(drop=True)


class PathRows:
    """The training rows of each path, to choose the one that shows it to a reader."""

    def __init__(self, rows: pd.DataFrame, levels: Levels, retriever: Retriever) -> None:
        """From id and the levels of labelled rows, and an index over them."""
        self._levels, self._retriever = levels, retriever
        table = rows.loc[levels.labelled(rows), ["id", *levels]]
        table = table.assign(text=retriever.texts.positions_of(table["id"].to_numpy(dtype=np.int64)))
        alike = table[table["text"] >= 0].groupby([*levels, "text"], as_index=False, dropna=False, observed=True)
        texts = alike.agg(row=("id", "min"), size=("id", "size"))
        texts = texts.sort_values([*levels, "size", "row"], ascending=[True] * len(levels) + [False, True])
        first = texts.groupby(list(levels), dropna=False, observed=True).cumcount() < MAX_TEXTS
        self._texts = texts[first].drop(columns="size")

    def choose(self, queries: pd.DataFrame, paths: pd.DataFrame) -> Ids:
        """The id [p] of the row that shows each path: the most similar to the query.

        Of rows that are equally similar the most typical is taken, whose text is the path's most frequent; if none has
        a thing in common with the query, too. A path without a row gives -1.

        Args:
            queries: split, id and description; none of them is an indexed row.
            paths: split, id (of a query) and the levels.
        """
        ids = np.full(len(paths), NO_ROW, dtype=np.int64)
        query = pd.MultiIndex.from_frame(queries[KEY]).get_indexer(pd.MultiIndex.from_frame(paths[KEY]))
        asked = paths[list(self._levels)].assign(query=query, pair=np.arange(len(paths)))
        sizes = self._retriever.texts.sizes
        for start in range(0, len(queries), _QUERIES):
            here = asked[(asked["query"] >= start) & (asked["query"] < start + _QUERIES)]
            pairs = here.merge(self._texts, on=list(self._levels))
            if pairs.empty:
                continue
            texts = [read_text(text, sizes) for text in queries["description"].iloc[start : start + _QUERIES]]
            which, positions = (pairs[name].to_numpy(dtype=np.int64) for name in ("query", "text"))
            # Rounded as in `Retriever.search`, so that the order of a sum does not matter.
            pairs["similar"] = np.round(self._retriever.similarity(texts, which - start, positions), 6)
            best = pairs.sort_values(["pair", "similar"], ascending=[True, False], kind="stable").drop_duplicates(
                "pair"
            )
            ids[best["pair"]] = best["row"]
        return ids


def _columns(levels: Levels) -> list[str]:
    return [*KEY, "rank", *levels, "score", "neighbour"]
