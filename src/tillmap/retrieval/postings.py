"""The most similar rows of a large sparse matrix, found by the rarest columns of each query.

For each column the rows that have it are listed (its postings). A query adds up the postings of its rarest columns, in
blocks of rows whose sums stay in the processor's cache, and the best rows are then compared in all columns.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from tillmap.core.compiled import compiled

_BLOCK = 8192  # rows whose sums are in the cache at once
_SPAN = 64  # sums that are compared with the threshold at once
_BUFFER = 4  # candidates that are collected before the worst are dropped, as a multiple of those that are kept


class Postings:
    """Finds the rows of a matrix [t, f] with the largest products.

    Attributes:
        budget: postings that a query reads, at most. It reads the column with the fewest in any case.
        candidates: rows that are compared in all columns.
    """

    def __init__(self, rows: csr_matrix, transposed: csr_matrix, budget: int, candidates: int) -> None:
        self.budget, self.candidates = budget, candidates
        self._rows, self._columns = _arrays(rows), _arrays(transposed)

    def top(self, queries: csr_matrix, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Positions and products [q, k] of rows, unsorted; -1 and 0 where fewer were found. `k` <= `candidates`."""
        size = queries.shape[0]
        positions = np.full((size, k), -1, dtype=np.int64)
        scores = np.zeros((size, k), dtype=np.float32)
        threads = os.cpu_count() or 1
        limits = [size * part // threads for part in range(threads + 1)]

        def search(part: int) -> None:
            here = slice(limits[part], limits[part + 1])
            found = positions[here], scores[here]
            _search(_arrays(queries[here]), self._columns, self._rows, self.budget, self.candidates, *found)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search, range(threads)))
        return positions, scores


def _arrays(matrix: csr_matrix) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where each row starts, its columns and its values."""
    return matrix.indptr, matrix.indices, matrix.data


@compiled
def _search(  # noqa: PLR0912, PLR0917 - one loop, compiled
    queries: Any, columns: Any, rows: Any, budget: int, candidates: int, positions: Any, scores: Any
) -> None:
    """See `Postings.top`; it fills positions and scores."""
    of_query, terms, weights = queries
    of_column, posted, values = columns
    of_row, row_terms, row_values = rows
    size = len(of_row) - 1
    sums = np.zeros(_BLOCK, np.float32)
    weight_of = np.zeros(len(of_column) - 1, np.float32)
    places = np.empty(candidates * _BUFFER, np.int64)
    best = np.empty(candidates * _BUFFER, np.float32)
    for query in range(len(of_query) - 1):
        first, last = of_query[query], of_query[query + 1]
        start, end = of_column[terms[first:last]], of_column[terms[first:last] + 1]
        rarest = np.argsort(end - start, kind="mergesort")
        total, used = 0, 0
        for term in rarest:
            total += end[term] - start[term]
            if total > budget and used:
                break
            used += 1
        found, least = 0, np.float32(0)
        for base in range(0, size, _BLOCK):
            beyond = base + _BLOCK
            for term in rarest[:used]:
                weight, place, stop = weights[first + term], start[term], end[term]
                while place < stop and posted[place] < beyond:
                    sums[posted[place] - base] += weight * values[place]
                    place += 1
                start[term] = place
            for left in range(0, _BLOCK, _SPAN):
                better = False
                for offset in range(left, left + _SPAN):
                    better |= sums[offset] > least
                if better:
                    for offset in range(left, left + _SPAN):
                        if sums[offset] > least:
                            places[found], best[found] = base + offset, sums[offset]
                            found += 1
                            if found == len(best):
                                found, least = _keep(places, best, found, candidates)
            for offset in range(_BLOCK):
                sums[offset] = 0
        found, least = _keep(places, best, found, candidates)
        for term in range(first, last):
            weight_of[terms[term]] = weights[term]
        for each in range(found):
            product = np.float32(0)
            for entry in range(of_row[places[each]], of_row[places[each] + 1]):
                product += weight_of[row_terms[entry]] * row_values[entry]
            best[each] = product
        for term in range(first, last):
            weight_of[terms[term]] = 0
        found, least = _keep(places, best, found, positions.shape[1])
        positions[query, :found], scores[query, :found] = places[:found], best[:found]


@compiled
def _keep(places: Any, best: Any, found: Any, most: int) -> Any:
    """Move the `most` best entries to the front. Of equal ones the first are kept. Returns their number and the worst.

    Entries stay in order, so that the same rows are kept whatever the buffer's size.
    """
    if found <= most:
        return found, np.float32(0)
    least = np.partition(best[:found], found - most)[found - most]
    room = most
    for each in range(found):
        room -= best[each] > least
    kept = 0
    for each in range(found):
        equal = best[each] == least
        if best[each] > least or (equal and room > 0):
            room -= equal
            places[kept], best[kept] = places[each], best[each]
            kept += 1
    return kept, least
