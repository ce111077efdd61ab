"""Restricts neighbours to the same retailer or a similar price, and fills up where too few rows pass."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.errors import ParamsError
from tillmap.retrieval.base import MAX_PAIRS, Floats, Ids, Retriever

Bools = NDArray[np.bool_]

# A query whose price fits fewer than one row in 200 is searched among those rows only. Widening the search until it
# finds them would go through most of the index: 89.00, where milk and bread cost 1 to 3.
OUTLYING = 200


@dataclass(frozen=True)
class Filters:
    """Which rows may be a query's neighbours.

    Attributes:
        same_retailer: only rows of the query's retailer.
        price_ratio: only rows with a price between the query's divided by this and times this; above 1. With 2.0, a
            query at 1.50 finds rows from 0.75 to 3.00, and a refund of 1.50 finds such refunds. If either price is
            unknown or 0, the row passes.
        min_kept: if fewer rows pass, the k neighbours are filled up with the nearest rows that do not pass.

    Raises ParamsError if a value is out of range.
    """

    same_retailer: bool = False
    price_ratio: float | None = None
    min_kept: int = 0

    def __post_init__(self) -> None:
        if self.price_ratio is not None and not self.price_ratio > 1:
            raise ParamsError(f"price_ratio is {self.price_ratio}: expected a factor above 1, such as 2.0, or null")
        if self.min_kept < 0:
            raise ParamsError(f"min_kept is {self.min_kept}: expected 0 or more")


def search_filtered(
    retriever: Retriever, queries: pd.DataFrame, rows: pd.DataFrame, k: int, filters: Filters
) -> tuple[Ids, Floats]:
    """Search like `Retriever.search` among the rows that pass. Rows that fill up come last.

    The result is as exact as the retriever's. Each retailer's rows are searched separately. For prices, the search is
    repeated with a larger k until enough rows pass.

    Args:
        retriever: an index over `rows`.
        queries: description, retailer and price [q].
        rows: id, retailer and price of the indexed rows.
        k: neighbours per query.
        filters: which rows pass.
    """
    descriptions = _column(queries, "description")
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    for asked, searched in _by_retailer(queries, rows, filters.same_retailer):
        among = None if searched is None else rows["id"].to_numpy()[searched]
        if filters.price_ratio is None:
            ids[asked], scores[asked] = retriever.search(descriptions[asked], k, among)
            continue
        prices = _Prices(rows if searched is None else rows.iloc[searched], filters.price_ratio)
        ids[asked], scores[asked] = _search_priced(retriever, queries.iloc[asked], k, prices, among)
    # Fill up from the nearest 2 k rows of all: at most k of them were found already, so at least k are new.
    short = np.flatnonzero((ids >= 0).sum(axis=1) < min(filters.min_kept, k))
    if short.size:
        others, their_scores = retriever.search(descriptions[short], 2 * k)
        new = (others >= 0) & ~(others[:, :, None] == ids[short][:, None, :]).any(axis=2)
        ids[short], scores[short] = first_kept(
            np.hstack([ids[short], others]),
            np.hstack([scores[short], their_scores]),
            np.hstack([ids[short] >= 0, new]),
            k,
        )
    return ids, scores


def first_kept(ids: Ids, scores: Floats, kept: Bools, k: int) -> tuple[Ids, Floats]:
    """The first k kept entries of each row [q, m], in order. With k = 2: [7, 8, 9] kept [no, yes, no] is [8, -1]."""
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(kept, order, 1)
    return (
        np.where(kept, np.take_along_axis(ids, order, 1), -1),
        np.where(kept, np.take_along_axis(scores, order, 1), np.float32(0)),
    )


def _column(table: pd.DataFrame, name: str) -> NDArray[np.object_]:
    return np.asarray(table[name], dtype=object)


def _by_retailer(queries: pd.DataFrame, rows: pd.DataFrame, same: bool) -> Iterator[tuple[Ids, Ids | None]]:
    """Positions of queries, and of the rows to search for them (None for all). Unknown retailers are left out."""
    if not same:
        yield np.arange(len(queries)), None
        return
    sold = rows.groupby("retailer", sort=False).indices
    for retailer, asked in queries.groupby("retailer", sort=False).indices.items():
        if retailer in sold:
            yield np.asarray(asked, dtype=np.int64), np.asarray(sold[retailer], dtype=np.int64)


class _Prices:
    """The prices of the searched rows, to tell which of them fit the price of a query."""

    def __init__(self, rows: pd.DataFrame, ratio: float) -> None:
        price = _known(rows["price"].to_numpy(dtype=float))
        by_id = np.argsort(rows["id"].to_numpy())
        self.ids, self.of_id = rows["id"].to_numpy()[by_id], price[by_id]
        self.sorted = np.sort(price)  # NaN, the unknown ones, last
        self.unknown = int(np.isnan(price).sum())
        self.reach = np.log(ratio) + 1e-9  # so that rounding does not exclude a price at the limit

    def fit(self, ids: Ids, prices: NDArray[np.float64]) -> Bools:
        """Which found ids [q, m] fit the queries' prices [q]. The id -1 does not."""
        theirs = self.of_id[np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)]
        mine = _known(prices)[:, None]
        # Comparing logs tests both directions of the ratio at once: 1.50 against 3.00, and 3.00 against 1.50.
        apart = np.abs(np.log(np.abs(theirs)) - np.log(np.abs(mine)))
        # Both comparisons with NaN are False: unknown passes.
        return np.asarray((ids >= 0) & ~((apart > self.reach) | (theirs * mine < 0)), dtype=bool)

    def count(self, prices: NDArray[np.float64]) -> Ids:
        """An upper bound of the number of rows that fit each price [q]."""
        near, far = _known(prices) * np.exp(-self.reach), _known(prices) * np.exp(self.reach)
        low, high = np.minimum(near, far), np.maximum(near, far)
        counts = np.searchsorted(self.sorted, high, "right") - np.searchsorted(self.sorted, low, "left") + self.unknown
        return np.where(np.isnan(low), len(self.ids), counts)


def _known(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(prices != 0, prices, np.nan)


def _search_priced(
    retriever: Retriever,
    queries: pd.DataFrame,
    k: int,
    prices: _Prices,
    among: Ids | None,
) -> tuple[Ids, Floats]:
    """Search with a growing depth until each query has k rows with a fitting price, or all rows were searched."""
    descriptions, asked_prices = _column(queries, "description"), queries["price"].to_numpy(dtype=float)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    size, counts = len(prices.ids), prices.count(asked_prices)
    outlying = counts * OUTLYING < size
    for query in np.flatnonzero(outlying & (counts > 0)):
        fitting = prices.ids[prices.fit(prices.ids[None], asked_prices[[query]])[0]]
        ids[[query]], scores[[query]] = retriever.search(descriptions[[query]], k, fitting)
    # The first search is 4 k rows deep. Queries with too few fitting rows are searched again, 4 times as deep.
    todo, depth = np.flatnonzero(~outlying), min(4 * k, size)
    while todo.size:
        missing = []
        for batch in np.array_split(todo, range(MAX_PAIRS // depth + 1, len(todo), MAX_PAIRS // depth + 1)):
            found, similar = retriever.search(descriptions[batch], depth, among)
            fits = prices.fit(found, asked_prices[batch])
            ids[batch], scores[batch] = first_kept(found, similar, fits, k)
            missing.append(batch[(fits.sum(axis=1) < np.minimum(k, counts[batch])) & (found[:, -1] >= 0)])
        todo = np.concatenate(missing) if depth < size else todo[:0]
        depth = min(4 * depth, size)
    return ids, scores
