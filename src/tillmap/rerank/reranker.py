"""The reranker: orders the candidates of a line, or leaves the answer to the linear model."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tillmap.core.compiled import compiled
from tillmap.core.errors import ModelError
from tillmap.core.files import read_json, write_json, write_text
from tillmap.core.taxonomy import LabelPath
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.lines import Floats, Ints
from tillmap.rerank.trees import Trees

_FORMAT = 4
_ABOUT, _TREES, _SURE = "reranker.json", "trees.txt", "sure.txt"
RANKED = 10  # candidates of a row that are named
SHARES = 4  # of the first candidates, by which the first one's share is corrected
_MOST = 0.999  # the share of a first candidate, at most


@dataclass(frozen=True)
class Reranker:
    """Orders the candidates of lines.

    Attributes:
        trees: score the candidates by their features; None if the linear model's answers are better.
        candidates: so many a row, at most.
        unseen_paths: whether a known chain may be answered with a brand that it was never seen with.
        read_brand: whether the line's first words may be answered as a brand that no training row has.
        sharpness: the shares of the candidates are the softmax of their scores times this.
        sure: score how likely a row's first candidate is right, as log odds, by `sure_features`; None: its share says.
        trials: how the reranker was chosen.
        out_of_fold: the first candidates of the training rows that it was chosen on, by models that were not trained on
            them: split, id, rank (from 0), the levels, and score, a candidate's share. Not saved with it.
    """

    trees: Trees | None
    candidates: int
    unseen_paths: bool
    read_brand: bool = False
    sharpness: float = 1.0
    sure: Trees | None = None
    trials: tuple[dict[str, Any], ...] = ()
    out_of_fold: pd.DataFrame | None = field(default=None, compare=False)

    def rank(self, evidence: Evidence, items: pd.DataFrame, k: int = RANKED) -> Iterator[list[tuple[LabelPath, float]]]:
        """The k best candidates of each item (description, retailer and price) with their shares, best first.

        The share of the first is how likely it is right. What the shares lack to 1 is for paths that are no candidates.
        Raises ModelError if the trees were trained on other features than the evidence has.
        """
        assert self.trees is not None
        if list(self.trees.features) != evidence.features:
            raise ModelError("reranker: it was trained on other levels or by another version; run `dvc repro`")
        lines = iter(items["description"])
        for found, described in evidence.chunks(items, self.candidates, read=self.read_brand):
            scores = self.trees.score(described)
            if not self.unseen_paths:
                scores[described[:, evidence.features.index("known")] == 0] = -np.inf
            places, shares = self.first(described, scores, found.starts, k)
            table = zip(found.chain[places].tolist(), found.brand[places].tolist(), shares.tolist(), strict=True)
            for count, row in zip(np.minimum(np.diff(found.starts), k).tolist(), table, strict=True):
                line = next(lines)
                named = zip(*(values[:count] for values in row), strict=True)
                yield [(evidence.path(chain, brand, line), share) for chain, brand, share in named]

    def first(self, described: Floats, scores: Floats, starts: Ints, k: int = RANKED) -> tuple[Ints, Floats]:
        """The places of each row's k best candidates (rows, at least k) and their shares, by scores. See `best`."""
        places, shares = best(scores, starts, self.sharpness, max(k, SHARES))
        return places, self._corrected(described, places, shares)

    def _corrected(self, described: Floats, places: Ints, shares: Floats) -> Floats:
        """The shares (rows, k), with the first one as likely as it is right, and the others in proportion."""
        if self.sure is None:
            return shares
        odds = self.sure.score(sure_features(described, places, shares))
        likely = np.minimum(1 / (1 + np.exp(-odds)), _MOST).astype(np.float32)
        own = shares[:, 0]
        # A first candidate that is less likely than its share leaves the rest to paths that are no candidates.
        rest = np.where(likely < own, likely / own, (1 - likely) / np.maximum(1 - own, 1e-9))
        return np.column_stack([likely, shares[:, 1:] * rest[:, None]]).astype(np.float32)

    def with_trees(self, count: int) -> "Reranker":
        """The reranker with the first trees only."""
        assert self.trees is not None
        return replace(self, trees=self.trees.first(count))

    def save(self, folder: Path) -> None:
        """Write the trees in LightGBM's text format, and the rest as JSON, into an existing folder."""
        about = {
            "format": _FORMAT,
            "reranks": self.trees is not None,
            "candidates": self.candidates,
            "unseen_paths": self.unseen_paths,
            "read_brand": self.read_brand,
            "sharpness": self.sharpness,
            "corrected": self.sure is not None,
            "trials": list(self.trials),
        }
        write_json(about, folder / _ABOUT)
        for trees, name in ((self.trees, _TREES), (self.sure, _SURE)):
            if trees is not None:
                write_text(trees.text, folder / name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. Raises InputError if a file is missing, ModelError if one was changed."""
        about = read_json(folder / _ABOUT)
        if not isinstance(about, dict) or about.get("format") != _FORMAT:
            raise ModelError(f"{folder}: not a reranker of this version; run `dvc repro` to train one")
        try:
            candidates, sharpness = int(about["candidates"]), float(about["sharpness"])
            if not 1 <= candidates <= 1000 or not 0 < sharpness < 1000:
                raise ValueError
            unseen, read = bool(about["unseen_paths"]), bool(about["read_brand"])
            trials, reranks, corrected = tuple(about["trials"]), bool(about["reranks"]), bool(about["corrected"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ModelError(f"{folder / _ABOUT}: not the settings of a reranker; run `dvc repro`") from None
        trees = Trees.load(folder / _TREES) if reranks else None
        sure = Trees.load(folder / _SURE) if corrected else None
        if trees and sure and sure.features != sure_names(trees.features):
            raise ModelError(f"{folder / _SURE}: of another reranker; run `dvc repro`")
        return cls(trees, candidates, unseen, read, sharpness, sure, trials)


def sure_names(features: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `sure_features`."""
    leads = (f"{name}_lead" for name in features)
    return (*features, *leads, *(f"share_{place + 1}" for place in range(SHARES)))


def sure_features(described: Floats, places: Ints, shares: Floats) -> Floats:
    """What says whether the first candidate of each row is right (rows, features).

    These are its features, how much each is above the second candidate's, and the shares of the first candidates.

    Args:
        described: the features of all candidates.
        places, shares: as `best` gives them, for at least `SHARES` candidates.
    """
    first, second = described[places[:, 0]], described[places[:, 1]]
    return np.ascontiguousarray(np.column_stack([first, first - second, shares[:, :SHARES]]), dtype=np.float32)


@compiled
def best(scores: Any, starts: Any, sharpness: float, k: int) -> Any:
    """The positions of each row's k best candidates, best first (rows, k), and the softmax shares of them (rows, k).

    Of equal ones the first comes first. A row with fewer candidates repeats its first, with the share 0. Each row has
    at least one.
    """
    rows = len(starts) - 1
    places, shares = np.empty((rows, k), np.int64), np.zeros((rows, k), np.float32)
    for row in range(rows):
        begin, end = starts[row], starts[row + 1]
        places[row] = begin
        size = 0
        for candidate in range(begin, end):
            at = min(size, k)
            while at > 0 and scores[candidate] > scores[places[row, at - 1]]:
                at -= 1
            if at < k:
                for other in range(min(size, k - 1), at, -1):
                    places[row, other] = places[row, other - 1]
                places[row, at] = candidate
            size += 1
        top = scores[places[row, 0]]
        total = np.float32(0)
        for candidate in range(begin, end):
            total += np.exp((scores[candidate] - top) * np.float32(sharpness))
        for place in range(min(size, k)):
            shares[row, place] = np.exp((scores[places[row, place]] - top) * np.float32(sharpness)) / total
        for place in range(size, k):
            places[row, place] = places[row, 0]
    return places, shares
