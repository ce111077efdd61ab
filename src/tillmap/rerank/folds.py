"""Folds of training rows that are as hard as the rows to be answered."""

import logging

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.similar import SimilarLines

log = logging.getLogger(__name__)

# Lines of one path that are at least so similar stay in one fold. Above 1: each line is drawn on its own.
_THRESHOLDS = (1.1, 0.9, 0.8, 0.7, 0.6)
_NEIGHBOURS = 16


def assign_folds(lines: Lines, path_of: Ints, listing: Ints, asked: Lines, count: int, seed: int) -> Ints:
    """The fold of each training line (lines,), 0 to count - 1.

    If near-duplicates of a line are in other folds, the scores of its true path look better out of fold than they will
    for new lines, and the reranker learns to trust them too much. If all are in its own fold, it learns the opposite.
    So near-duplicates are kept together from that similarity on which makes a line's nearest line in other folds as
    similar, on average, as the nearest training line is to a line of `asked`. No label of these is needed.

    A product that is listed under several paths always stays in one fold. Else the reranker learns that the path of a
    similar line with the same price is wrong, which of new products it is not.

    Args:
        lines: the training lines.
        path_of: (lines,), the number of each line's path.
        listing: (lines,), see `splitting.listings`.
        asked: the lines to be answered.
        count: how many folds there are.
        seed: for the draw.
    """
    index = SimilarLines.of(lines)
    wanted = index.nearest(asked, 1)[1].mean() if len(asked) else 0.0
    places, similar = index.nearest(lines, _NEIGHBOURS)
    best, best_gap = np.zeros(len(lines), dtype=np.int64), np.inf
    for threshold in _THRESHOLDS:
        group = _groups(places, similar, path_of, listing, threshold)
        fold = np.random.default_rng(seed).permutation(group.max() + 1)[group] % count
        gap = float(abs(_out_of_fold(places, similar, fold) - wanted))
        log.info("folds: near-duplicates from %.1f on together, %.3f from what is asked", threshold, gap)
        if gap < best_gap:
            best, best_gap = fold, gap
    return best


def hold_out(lines: Lines, path_of: Ints, asked: Lines, held: Ints, held_lines: Lines) -> NDArray[np.bool_]:
    """Which lines may train the model that answers held-out lines (lines,), chosen as in `assign_folds`.

    Lines of their paths that are too near to them are left out, for there are too many lines to compare all of them.

    Args:
        lines, path_of, asked: see `assign_folds`.
        held, held_lines: the positions of the lines that are held out, and these lines.
    """
    index = SimilarLines.of(lines)
    wanted = index.nearest(asked, 1)[1].mean() if len(asked) else 0.0
    places, similar = index.nearest(held_lines, _NEIGHBOURS)
    inside = np.zeros(len(lines), dtype=bool)
    inside[held] = True
    kin = path_of[places] == path_of[held][:, None]
    best, best_gap = ~inside, np.inf
    for threshold in _THRESHOLDS:
        outside = ~inside
        outside[places[(similar >= threshold) & kin & (places >= 0)]] = False
        similarity = np.where((places >= 0) & outside[places], similar, 0).max(axis=1).mean()
        gap = float(abs(similarity - wanted))
        log.info("held-out rows: without near-duplicates from %.1f on, %.3f from what is asked", threshold, gap)
        if gap < best_gap:
            best, best_gap = outside, gap
    return best


def _groups(places: NDArray[np.int32], similar: Floats, path_of: Ints, listing: Ints, threshold: float) -> Ints:
    """The group of each line: similar lines of one path, and lines of a product with several."""
    line, rank = np.nonzero((similar >= threshold) & (places >= 0))
    other = places[line, rank]
    same = path_of[line] == path_of[other]
    line = np.concatenate([line[same], np.arange(len(listing))])
    other = np.concatenate([other[same], listing])
    links = coo_matrix((np.ones(len(line)), (line, other)), shape=(len(path_of), len(path_of)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _out_of_fold(places: NDArray[np.int32], similar: Floats, fold: Ints) -> float:
    """The mean similarity of lines to their nearest line in another fold."""
    other = (places >= 0) & (fold[places] != fold[:, None])
    return float(np.where(other, similar, 0).max(axis=1).mean())
