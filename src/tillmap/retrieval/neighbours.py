"""The neighbours table: who is near whom, by one retriever or by several fused."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tillmap.retrieval.base import Retriever
from tillmap.retrieval.filters import Filters, first_kept, search_filtered

# Tuned on held-out training rows of real receipts: with 60, the usual constant, far ranks count for too much.
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
    """The k nearest rows of each query, as split, id, rank (from 0), neighbour (a row's id), score (float32).

    Args:
        retriever: an index over `rows`.
        rows: id, retailer and price of the indexed rows, which are all of split "train".
        queries: split, id, description, retailer and price; the table keeps their order.
        k: neighbours a query; fewer where fewer are found.
        filters: see `Filters`; scores fall with rank except where rows that do not pass follow those that do.
        leave_out_self: an indexed row that asks is not told of itself.
    """
    filters = filters or Filters()
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    own = (queries["split"].eq("train") & queries["id"].isin(rows["id"]) & leave_out_self).to_numpy()
    others = np.flatnonzero(~own)
    ids[others], scores[others] = search_filtered(retriever, queries.iloc[others], rows, k, filters)
    if own.any():
        asked = queries[own]
        # The row itself passes its own filters, so one more must.
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
    """Weighted reciprocal rank fusion of neighbours tables (Cormack, Clarke and Buettcher, SIGIR 2009).

    A neighbour's score is the sum over the tables of weight / (constant + 1 + rank). The k best of each query are
    kept, equal scores by neighbour id; queries come in the order in which the tables first name them.
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
