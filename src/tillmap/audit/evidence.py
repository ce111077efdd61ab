"""What other rows say about each labelled row: a model that was trained without it, and lines of other products."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.taxonomy import LabelPath, LabelTree, Levels, RankedPaths
from tillmap.linear.model import LinearModel, Recipe
from tillmap.rerank.lines import Lines
from tillmap.rerank.similar import SimilarLines

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]

_CANDIDATES = 50  # of the model, a row
_NEIGHBOURS = 40  # that are looked at, a row; those of its own product do not vote
_SHOWN = 3  # of those that vote, for a person to look at
_POWER = 5  # a neighbour's vote is its similarity to this power, as `nearest` counts


@dataclass(frozen=True)
class Evidence:
    """What other rows say about labelled rows.

    Attributes:
        model: of each row, the label paths that the model which was trained without it finds, with their shares.
        votes: of each row, the label paths of the most similar rows of other products, with shares.
        similar: (rows, 3) positions of the most similar of these rows, best first; -1 if there are fewer.
        similarity: (rows, 3), how similar they are.
        fold: (rows,), the fold of each row. The model knows a label only if a row of another fold has it.
    """

    model: Sequence[RankedPaths]
    votes: Sequence[RankedPaths]
    similar: Ints
    similarity: NDArray[np.float64]
    fold: Ints

    @cached_property
    def paths(self) -> list[RankedPaths]:
        """Of each row, label paths with shares that sum up to about 1: the mean of the model's and the votes."""
        return [_mean(*pair) for pair in zip(self.model, self.votes, strict=True)]


def gather(rows: pd.DataFrame, tree: LabelTree, recipe: Recipe, folds: int, seed: int) -> Evidence:
    """The evidence about labelled rows: id, description, retailer, price, product and the levels.

    Args:
        rows: the rows.
        tree: its levels and definitions are used, not its paths.
        recipe: of the linear model.
        folds: the model is trained so often, each time without one fold, which it then answers.
        seed: for the folds and the training.
    """
    fold = np.random.default_rng(seed).permutation(len(rows)) % folds
    asked: list[RankedPaths] = [()] * len(rows)
    for number in range(folds):
        outside, inside = rows[fold != number], np.flatnonzero(fold == number)
        if outside.empty or not len(inside):
            continue
        log.info("audit: fold %d of %d, %d rows", number + 1, folds, len(inside))
        known = LabelTree.from_rows(outside, tree.levels, declared=tree if tree.definitions else None)
        answers = LinearModel.fit(outside, known, recipe, seed).predict(rows.iloc[inside], _CANDIDATES)
        for place, ranked in zip(inside, answers["candidates"], strict=True):
            asked[place] = ranked
    return Evidence(asked, *neighbours_votes(rows, tree.levels), fold)


def neighbours_votes(rows: pd.DataFrame, levels: Levels) -> tuple[list[RankedPaths], Ints, NDArray[np.float64]]:
    """What the most similar rows of other products say: `votes`, `similar` and `similarity` of the evidence.

    The shares of a row's votes sum up to 1; it has none if no row is similar.
    """
    lines, paths = Lines.of(rows["description"]), levels.paths(rows)
    product = pd.factorize(rows["product"])[0]
    places, similar = SimilarLines.of(lines).nearest(lines, _NEIGHBOURS)
    others = (places >= 0) & (product[places] != product[:, None])
    votes = np.where(others, similar.astype(np.float64) ** _POWER, 0.0)
    votes /= np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    found: list[RankedPaths] = []
    for near, given in zip(places, votes, strict=True):
        counts: dict[LabelPath, float] = {}
        for place in np.flatnonzero(given):
            path = paths[near[place]]
            counts[path] = counts.get(path, 0.0) + float(given[place])
        found.append(list(counts.items()))
    first = np.argsort(~others, axis=1, kind="stable")[:, :_SHOWN]  # they are in the order of their similarity
    shown = np.take_along_axis(others, first, axis=1)
    near, score = (np.take_along_axis(each, first, axis=1) for each in (places, similar))
    return found, np.where(shown, near, -1).astype(np.int64), np.where(shown, score, 0.0).astype(np.float64)


def _mean(*parts: RankedPaths) -> RankedPaths:
    """The mean share of each path, over the parts that have any, the most first."""
    given = [part for part in parts if part]
    total: dict[LabelPath, float] = {}
    for part in given:
        for path, share in part:
            total[path] = total.get(path, 0.0) + share / len(given)
    return sorted(total.items(), key=lambda each: -each[1])
