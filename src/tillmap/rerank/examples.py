"""Examples for the reranker: candidates of training rows that nothing else was trained on."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.taxonomy import KEY, LabelPath, LabelTree, Levels
from tillmap.linear.model import LinearModel
from tillmap.linear.recipes import rows_right
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.folds import assign_folds, hold_out
from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.trees import Trees
from tillmap.splitting.listings import listings

log = logging.getLogger(__name__)

HALVES = 2
_MAX_ASKED = 2000  # lines that say how hard the rows to be answered are
# Chosen on held-out rows of real receipts. Ranking the true path first is a loss of its own (LambdaRank, Burges 2010).
_LIGHTGBM = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 5,
    "learning_rate": 0.08,
    "max_depth": 8,  # deep leaves cost time in every answer
    "max_bin": 63,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "min_data_in_leaf": 50,
    "use_missing": False,
    "force_col_wise": True,
    "deterministic": True,
    "num_threads": 1,  # threads that wait for each other are slower than one on a busy machine
    "verbose": -1,
}


@dataclass(frozen=True)
class Options:
    """What the user sets.

    Attributes:
        candidates: so many a row, at most.
        unseen_paths: whether a known chain may be answered with a brand that it was never seen with.
        read_brand: whether the line's first words may be a brand that no training row has; None: if that gains.
        trees: so many, at most.
        folds: the linear model is trained so often, each time without one fold, whose rows then get their candidates.
        fold_up_to: with more training rows one part of them is held out instead, with about `held_out_rows` rows.
        held_out_rows: see above; also the number of rows that the trees are trained on, at most.
    """

    candidates: int = 45
    unseen_paths: bool = True
    read_brand: bool | None = None
    trees: int = 200
    folds: int = 6
    fold_up_to: int = 60_000
    held_out_rows: int = 20_000


@dataclass(frozen=True)
class Examples:
    """Candidates of rows that nothing else was trained on.

    Attributes:
        described: (candidates, features).
        right: (candidates,), whether each is the true path of its row.
        starts: (rows + 1,). Row r has the candidates starts[r] to starts[r + 1] - 1.
        linear: (rows,), whether the linear model that was trained without a row gets it right.
        half: (rows,), 0 or 1, the half of the folds that a row is in.
        names: of the features.
        paths: (candidates,).
        keys: split and id of the rows.
        levels: of the paths.
    """

    described: Floats
    right: NDArray[np.bool_]
    starts: Ints
    linear: NDArray[np.bool_]
    half: Ints
    names: list[str]
    paths: list[LabelPath]
    keys: pd.DataFrame
    levels: Levels

    def named(self, feature: str) -> Floats:
        """One feature of all candidates."""
        return np.asarray(self.described[:, self.names.index(feature)])

    @property
    def row(self) -> Ints:
        """The row of each candidate."""
        return np.repeat(np.arange(len(self.linear)), np.diff(self.starts))

    def boost(self, trees: int, leaves: int, seed: int, rows: NDArray[np.bool_] | None = None) -> Trees | None:
        """Train trees that put the true path first, on some of the rows; None if no true path is a candidate.

        Rows whose true path is not among their candidates are left out; they teach nothing.
        """
        taught = np.add.reduceat(self.right, self.starts[:-1]) > 0
        taught = taught if rows is None else taught & rows
        if not taught.any():
            return None
        kept = taught[self.row]
        params = {**_LIGHTGBM, "num_leaves": leaves, "seed": seed}
        data = lightgbm.Dataset(
            self.described[kept], self.right[kept].astype(np.int32), group=np.diff(self.starts)[taught],
            feature_name=self.names, params=params,
        )  # fmt: skip
        return Trees.parse(str(lightgbm.train(params, data, trees).model_to_string()))


def collect(
    model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int
) -> Examples | None:
    """The candidates that training rows have out of fold; None if all rows are of one product. See `training.train`."""
    levels = model.tree.levels
    read = options.read_brand is not False and options.unseen_paths
    parts, paths, keys = [], list[LabelPath](), list[pd.DataFrame]()
    for outside, inside, half in _parts(training, levels, asked, options, seed):
        tree = LabelTree.from_rows(outside, levels, declared=model.tree if model.tree.definitions else None)
        evidence = Evidence.of(LinearModel.fit(outside, tree, model.recipe, seed), outside)
        log.info("rerank: %d rows out of fold", len(inside))
        *found, named = _of_fold(evidence, inside, options.candidates, read)
        parts.append((*found, half))
        paths += named
        keys.append(inside[KEY])
    if not parts:
        return None
    described, right, sizes, linear, half = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Examples(described, right, starts, linear, half, evidence.features, paths, pd.concat(keys), levels)


def _parts(
    training: pd.DataFrame, levels: Levels, asked: pd.DataFrame, options: Options, seed: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, Ints]]:
    """The rows outside a fold, those in it, and the half of each of these: the folds in turn, or one held-out part."""
    path_of = pd.factorize(pd.Series(levels.paths(training)))[0]
    lines, listing = Lines.of(training["description"]), listings(training, levels)
    some = Lines.of(asked["description"].sample(min(len(asked), _MAX_ASKED), random_state=seed))
    if len(training) > options.fold_up_to:
        # Products are drawn one after the other until there are enough rows, so that all listings of one are held out.
        place = np.random.default_rng(seed).permutation(len(training))[listing]
        held = np.flatnonzero(place <= np.sort(place)[min(options.held_out_rows, len(training) // 2) - 1])
        inside = training.iloc[held]
        outside = training[hold_out(lines, path_of, some, held, Lines.of(inside["description"]))]
        if not outside.empty:
            yield outside, inside, place[held] % HALVES
        return
    fold_of = assign_folds(lines, path_of, listing, some, options.folds, seed)
    for fold in range(options.folds):
        inside, outside = training[fold_of == fold], training[fold_of != fold]
        if not inside.empty and not outside.empty:
            yield outside, inside, np.full(len(inside), fold % HALVES)


def _of_fold(
    evidence: Evidence, rows: pd.DataFrame, limit: int, read: bool
) -> tuple[Floats, NDArray[np.bool_], Ints, NDArray[np.bool_], list[LabelPath]]:
    """Features and rightness of candidates, how many a row has, whether the linear model gets it right; the paths."""
    paths, lines = evidence.model.tree.levels.paths(rows), rows["description"].tolist()
    parts, named, done = [], list[LabelPath](), 0
    for found, described in evidence.chunks(rows, limit, read=read):
        end = done + len(found.starts) - 1
        sizes = np.diff(found.starts)
        parts.append((described, evidence.right(found, paths[done:end], lines[done:end]), sizes))
        named += map(evidence.path, found.chain.tolist(), found.brand.tolist(), np.repeat(lines[done:end], sizes))
        done = end
    described, right, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return described, right, sizes, rows_right(evidence.model, rows), named
