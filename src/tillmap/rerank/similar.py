"""The most similar of some lines, by n-grams with and without vowels, in compiled code."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.rerank.lines import Floats, Ints, Lines, has_digit

_SHORTEST, _LONGEST = 2, 4  # letters of an n-gram, the space around a word included
_BUCKETS = 2**19  # an n-gram is known by its hash; even of 100,000 n-grams few share one
_INITIAL = 1.5  # weight of n-grams at the start of a word: tills shorten words at the end
# N-grams in more lines than this are left out. They cost the most time and say the least.
_MAX_SHARE = 0.05
_MIN_CAP, _MAX_CAP = 200, 4000
_GROUPS = 512  # of lines: the best scores of the groups tell how good a line must be to be among the best
_BLOCK = 64  # lines that are compared with that at once

Near = tuple[NDArray[np.int32], Floats]  # positions and similarities (queries, k) of lines, best first; -1 and 0: none


class Groups(NamedTuple):
    """Groups of lines: group g has the lines `lines[starts[g]:starts[g + 1]]`."""

    starts: Ints
    lines: Ints


_NO_GROUPS = Groups(np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class SimilarLines:
    """An index of lines. Similarity is the cosine of TF-IDF weighted n-grams; words with a digit are left out.

    Attributes:
        idf: (buckets,), the weight of each n-gram; 0 if it is left out.
        starts: (buckets + 1,). N-gram b is in the lines `lines[starts[b]:starts[b + 1]]`, with these `weights`.
        size: the number of lines.
    """

    idf: Floats
    starts: Ints
    lines: NDArray[np.int32]
    weights: Floats
    size: int

    @classmethod
    def of(cls, lines: Lines) -> Self:
        """Index some lines."""
        row_starts, buckets, counts = _count(*lines.arrays(), 0)
        found = np.bincount(buckets, minlength=_BUCKETS)
        idf = np.log((1 + len(lines)) / (1 + found)) + 1
        idf[found > np.clip(_MAX_SHARE * len(lines), _MIN_CAP, _MAX_CAP)] = 0
        idf[1::2] *= _INITIAL
        idf = idf.astype(np.float32)
        weights = _weigh(row_starts, buckets, counts, idf)
        kept = weights > 0
        line_of = np.repeat(np.arange(len(lines), dtype=np.int32), np.diff(row_starts))[kept]
        buckets, weights = buckets[kept], weights[kept]
        order = np.argsort(buckets, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(buckets, minlength=_BUCKETS))]).astype(np.int64)
        return cls(idf, starts, line_of[order], weights[order], len(lines))

    def nearest(self, queries: Lines, k: int, *, skip: int = 0) -> Near:
        """The nearest lines of each query, at most k.

        The first `skip` words of each query are left out. Of equally similar lines the first is ranked first.
        """
        return self._search(queries, k, skip, np.full(len(queries), -1), _NO_GROUPS, 0)[0]

    def nearest_and_in_group(
        self, queries: Lines, k: int, group_of: Ints, groups: Groups, few: int
    ) -> tuple[Near, Near]:
        """The nearest lines of each query, at most k; and those in its group, at most `few`, however far they are.

        `group_of` (queries,) is -1 for a query without a group. A line without an n-gram of the query is not near.
        """
        return self._search(queries, k, 0, group_of, groups, few)

    def _search(self, queries: Lines, k: int, skip: int, group_of: Ints, groups: Groups, few: int) -> tuple[Near, Near]:
        row_starts, buckets, counts = _count(*queries.arrays(), skip)
        weights = _weigh(row_starts, buckets, counts, self.idf)
        near, inside = (
            (np.full((len(queries), size), -1, dtype=np.int32), np.zeros((len(queries), size), dtype=np.float32))
            for size in (k, few)
        )
        _search(
            row_starts, buckets, weights, self.starts, self.lines, self.weights, self.size, *near, group_of, groups,
            *inside,
        )  # fmt: skip
        return near, inside


@compiled
def _emit(letters: Any, begin: int, end: int, out: Any, count: int) -> int:
    """Write the bucket of each n-gram of one word into `out` from `count` on. Gives the new count."""
    size = end - begin + 2  # with the spaces around it
    for first in range(size - 1):
        code = np.uint64(14695981039346656037)
        for place in range(first, min(size, first + _LONGEST)):
            letter = 32 if place in (0, size - 1) else letters[begin + place - 1]
            code = (code ^ np.uint64(letter)) * np.uint64(1099511628211)
            if place - first + 1 >= _SHORTEST:
                mixed = (code ^ (code >> np.uint64(29))) & np.uint64(_BUCKETS // 2 - 1)
                out[count] = 2 * np.int64(mixed) + (1 if first == 0 else 0)
                count += 1
    return count


@compiled
def _count(starts: Any, letters: Any, ends: Any, consonants: Any, consonant_ends: Any, skip: int) -> Any:
    """The buckets of each line (line starts, buckets, counts), each bucket once a line, ascending."""
    rows = len(starts) - 1
    most = 3 * (len(letters) + len(consonants) + 4 * len(ends)) + 16
    out, counts = np.empty((2, most), np.int32)
    row_starts = np.zeros(rows + 1, np.int64)
    size = 0
    for row in range(rows):
        count = size
        for word in range(starts[row] + skip, starts[row + 1]):
            if has_digit(letters, ends[word], ends[word + 1]):
                continue
            count = _emit(letters, ends[word], ends[word + 1], out, count)
            count = _emit(consonants, consonant_ends[word], consonant_ends[word + 1], out, count)
        found = np.sort(out[size:count])
        for place in range(len(found)):
            if place and found[place] == found[place - 1]:
                counts[size - 1] += 1
            else:
                out[size], counts[size] = found[place], 1
                size += 1
        row_starts[row + 1] = size
    return row_starts, out[:size].copy(), counts[:size].copy()


@compiled
def _weigh(row_starts: Any, buckets: Any, counts: Any, idf: Any) -> Any:
    """The TF-IDF weight of each entry; those of a line have the length 1."""
    weights = np.empty(len(buckets), np.float32)
    for row in range(len(row_starts) - 1):
        total = 0.0
        for place in range(row_starts[row], row_starts[row + 1]):
            weights[place] = (1 + np.log(counts[place])) * idf[buckets[place]]
            total += weights[place] * weights[place]
        for place in range(row_starts[row], row_starts[row + 1]):
            if total > 0:
                weights[place] /= np.sqrt(total)
    return weights


@compiled
def _search(
    row_starts: Any, buckets: Any, weights: Any, starts: Any, lines: Any, line_weights: Any, size: int,
    places: Any, scores: Any, group_of: Any, groups: Any, group_places: Any, group_scores: Any,
) -> None:  # fmt: skip
    """Fill `places` and `scores` with the best of each row, and `group_places` and `group_scores` with its group's.

    If k groups of lines each have a line that scores at least x, so do the k best lines. So only few are sorted.
    """
    total = np.zeros((size // _GROUPS + 1) * _GROUPS, np.float32)
    peaks = np.empty(_GROUPS, np.float32)
    k = places.shape[1]
    for row in range(len(row_starts) - 1):
        total[:] = 0
        for place in range(row_starts[row], row_starts[row + 1]):
            weight = weights[place]
            if weight > 0:
                bucket = buckets[place]
                for entry in range(starts[bucket], starts[bucket + 1]):
                    total[lines[entry]] += weight * line_weights[entry]
        if group_of[row] >= 0:
            for line in groups.lines[groups.starts[group_of[row]] : groups.starts[group_of[row] + 1]]:
                _insert(line, total[line], group_places[row], group_scores[row])
        peaks[:] = 0
        for begin in range(0, len(total), _GROUPS):
            some = total[begin : begin + _GROUPS]
            for group in range(_GROUPS):
                peaks[group] = max(peaks[group], some[group])
        least = np.partition(peaks, _GROUPS - k)[_GROUPS - k] if k <= _GROUPS else np.float32(0)
        for begin in range(0, len(total), _BLOCK):
            found = False
            for score in total[begin : begin + _BLOCK]:
                found |= (score >= least) & (score > 0)
            if not found:
                continue
            for line in range(begin, begin + _BLOCK):
                if total[line] >= least:
                    _insert(line, total[line], places[row], scores[row])


@compiled
def _insert(line: int, score: Any, places: Any, scores: Any) -> None:
    """Add a line to the best ones, which are sorted, if it is one of them and its score is above 0."""
    at = len(scores) - 1
    if score <= scores[at]:
        return
    place_sorted(at, line, score, places, scores)


@compiled
def place_sorted(at: int, item: Any, score: Any, items: Any, scores: Any) -> None:
    """Put an item among sorted ones instead of that at a position, above all with lower scores, which move down."""
    while at > 0 and score > scores[at - 1]:
        scores[at], items[at] = scores[at - 1], items[at - 1]
        at -= 1
    scores[at], items[at] = score, item
