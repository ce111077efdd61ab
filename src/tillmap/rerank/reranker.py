"""The reranker: orders the candidates of a line, or leaves the answer to the linear model."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tillmap.core.errors import ModelError
from tillmap.core.files import read_json, write_json, write_text
from tillmap.core.taxonomy import LabelPath
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.lines import Floats
from tillmap.rerank.trees import Trees

_FORMAT = 1
_ABOUT, _TREES = "reranker.json", "trees.txt"


@dataclass(frozen=True)
class Reranker:
    """Orders the candidates of lines.

    Attributes:
        trees: score the candidates by their features; None if the linear model's answers are better.
        candidates: so many a row, at most.
        unseen_paths: whether a known chain may be answered with a brand that it was never seen with.
        sharpness: the shares of the candidates are the softmax of their scores times this.
        trials: how the reranker was chosen.
    """

    trees: Trees | None
    candidates: int
    unseen_paths: bool
    sharpness: float = 1.0
    trials: tuple[dict[str, Any], ...] = ()

    def rank(self, evidence: Evidence, items: pd.DataFrame, k: int = 10) -> Iterator[list[tuple[LabelPath, float]]]:
        """The k best candidates of each item (description, retailer and price) with their shares, best first.

        Raises ModelError if the trees were trained on other features than the evidence has.
        """
        assert self.trees is not None
        if list(self.trees.features) != evidence.features:
            raise ModelError("reranker: it was trained on other levels or by another version; run `dvc repro`")
        known = evidence.features.index("known")
        for found, described in evidence.chunks(items, self.candidates):
            scores = self.trees.score(described)
            if not self.unseen_paths:
                scores[described[:, known] == 0] = -np.inf
            for begin, end in pairwise(found.starts.tolist()):
                shares = _softmax(scores[begin:end] * np.float32(self.sharpness))
                best = np.argsort(-shares, kind="stable")[:k]
                places = zip(found.chain[begin + best].tolist(), found.brand[begin + best].tolist(), strict=True)
                paths = [evidence.path(chain, brand) for chain, brand in places]
                yield list(zip(paths, shares[best].tolist(), strict=True))

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
            "sharpness": self.sharpness,
            "trials": list(self.trials),
        }
        write_json(about, folder / _ABOUT)
        if self.trees is not None:
            write_text(self.trees.text, folder / _TREES)

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
            unseen, trials, reranks = bool(about["unseen_paths"]), tuple(about["trials"]), bool(about["reranks"])
        except (KeyError, TypeError, ValueError):
            raise ModelError(f"{folder / _ABOUT}: not the settings of a reranker; run `dvc repro`") from None
        trees = Trees.load(folder / _TREES) if reranks else None
        return cls(trees, candidates, unseen, sharpness, trials)


def _softmax(scores: Floats) -> Floats:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())
