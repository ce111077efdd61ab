"""The neighbours table: the nearest rows of each query, by one retriever or several fused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tillmap.retrieval.base import Retriever
from tillmap.retrieval.filters import Filters, first_kept, search_filtered

# Chosen on held-out training rows of real receipts. With the usual constant of 60, distant ranks weigh too much.
RANK_CONSTANT = 5.0


def neighbours_table(
    retriever: Retriever,
    rows: pd.DataFrame,
    queries: pd.DataFrame,
    k: int,
    *,
    filters: Filters | None = None,
    leave_out_self: bool = True,
) -> pd.DataFrame:
    """The k nearest rows of each query: split, id (the query), rank (from 0), neighbour (a row's id), score (float32).

    Args:
        retriever: an index over `rows`.
        rows: id, retailer and price of the indexed rows, all of the train split.
        queries: split, id, description, retailer and price. The table keeps their order.
        k: neighbours per query, or fewer if fewer are found.
        filters: see `Filters`. Scores fall with rank, but start again with the rows that fill up.
        leave_out_self: a query that is an indexed row is not its own neighbour.
    """
    filters = filters or Filters()
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    own = (queries["split"].eq("train") & queries["id"].isin(rows["id"]) & leave_out_self).to_numpy()
    others = np.flatnonzero(~own)
    ids[others], scores[others] = search_filtered(retriever, queries.iloc[others], rows, k, filters)
    if own.any():
        asked = queries[own]
        # The row passes its own filters and is dropped below, so one more row must pass.
        stricter = replace(filters, min_kept=filters.min_kept and filters.min_kept + 1)
        found, similar = search_filtered(retriever, asked, rows, k + 1, stricter)
        kept = (found >= 0) & (found != asked["id"].to_numpy()[:, None])
        ids[own], scores[own] = first_kept(found, similar, kept, k)
    query, rank = np.nonzero(ids >= 0)
    return pd.DataFrame(
        {
            "split": queries["split"].array[query],
            "id": queries["id"].to_numpy(dtype=np.int64)[query],
            "rank": rank,
            "neighbour": ids[query, rank],
            "score": scores[query, rank],
        }
    )


def fuse(
    tables: Sequence[pd.DataFrame], weights: Sequence[float], k: int, constant: float = RANK_CONSTANT
) -> pd.DataFrame:
    """Fuse neighbours tables by weighted reciprocal rank (Cormack, Clarke and Buettcher, SIGIR 2009).

    A neighbour's score is the sum of weight / (constant + 1 + rank) over the tables. The k best of each query are
    kept; equal scores are sorted by neighbour id. Queries keep the order in which they first appear.
    """
    votes = pd.concat(
        [
            table.assign(score=weight / (constant + 1 + table["rank"]))
            for table, weight in zip(tables, weights, strict=True)
        ],
        ignore_index=True,
    )
    votes["query"] = votes.groupby(["split", "id"], sort=False).ngroup()
    fused = votes.groupby(["query", "neighbour"], as_index=False).agg({"split": "first", "id": "first", "score": "sum"})
    fused = fused.sort_values(["query", "score", "neighbour"], ascending=[True, False, True], kind="stable")
    fused["rank"] = fused.groupby("query").cumcount()
    fused = fused[fused["rank"] < k].astype({"score": np.float32})
    return fused[["split", "id", "rank", "neighbour", "score"]].reset_index(drop=True)
