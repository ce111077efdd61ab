"""Training of the reranker: candidates out of fold, LightGBM, and the choice on held-out rows."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.taxonomy import LabelTree
from tillmap.linear.model import LinearModel
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.folds import assign_folds
from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.reranker import Reranker
from tillmap.rerank.trees import Trees

log = logging.getLogger(__name__)

MIN_DEV_ROWS = 50  # with fewer the choice would be by chance, and the linear model answers
_MAX_ASKED = 2000  # lines that say how hard the rows to be answered are
_LEAVES = 31  # of a tree
_FEW_ROWS = 5000  # with fewer training rows the trees have half as many leaves
_TREES = (0.25, 0.5, 1.0)  # shares of the trees that are tried on the dev subset
_SHARPNESSES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
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
        trees: so many, at most.
        folds: the linear model is trained so often, each time without one fold, whose rows then get their candidates.
        fold_up_to: with more training rows one part of them is held out instead, with about `held_out_rows` rows.
        held_out_rows: see above; also the number of rows that the trees are trained on, at most.
    """

    candidates: int = 60
    unseen_paths: bool = True
    trees: int = 200
    folds: int = 6
    fold_up_to: int = 60_000
    held_out_rows: int = 20_000


def train(
    model: LinearModel, training: pd.DataFrame, dev: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int
) -> Reranker:
    """Train a reranker, and keep it if it gets more `dev` rows right than the linear model does.

    It must gain more rows than it loses by over one standard error, the root of their sum (McNemar 1947).

    Args:
        model: the linear model of the training rows. Its recipe is trained again, on parts of them.
        training, dev: description, retailer, price and the levels.
        asked: description of rows like those to be answered.
        options: what the user sets.
        seed: for the folds and the training.
    """
    untrained = Reranker(None, options.candidates, options.unseen_paths)
    if len(dev) < MIN_DEV_ROWS:
        log.info("rerank: %d dev rows are too few to choose by; the linear model answers", len(dev))
        return untrained
    trees = fit_trees(model, training, asked, options, seed)
    return untrained if trees is None else _choose(replace(untrained, trees=trees), model, training, dev)


def refit(
    reranker: Reranker, model: LinearModel, labelled: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int
) -> Reranker:
    """Train a chosen reranker again, as many trees, on all labelled rows; only for answering test rows.

    `model` is the linear model of all labelled rows; for the rest see `train`.
    """
    assert reranker.trees is not None
    trees = fit_trees(model, labelled, asked, replace(options, trees=len(reranker.trees)), seed)
    return replace(reranker, trees=trees)


def fit_trees(
    model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int
) -> Trees | None:
    """Train trees on the candidates that training rows have out of fold; None if none is right. See `train`."""
    described, right, sizes, names = _examples(model, training, asked, options, seed)
    if not right.any():
        return None
    leaves = _LEAVES if len(training) >= _FEW_ROWS else _LEAVES // 2
    params = {**_LIGHTGBM, "num_leaves": leaves, "seed": seed}
    rows = lightgbm.Dataset(described, right.astype(np.int32), group=sizes, feature_name=names, params=params)
    return Trees.parse(str(lightgbm.train(params, rows, options.trees).model_to_string()))


def _examples(
    model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int
) -> tuple[Floats, NDArray[np.bool_], Ints, list[str]]:
    """Candidates out of fold: features, whether each is right, candidates of each row, and the features' names.

    Rows whose path is not among their candidates are left out; they teach nothing.
    """
    levels = model.tree.levels
    path_of = pd.factorize(pd.Series(levels.paths(training)))[0]
    some = asked.sample(min(len(asked), _MAX_ASKED), random_state=seed)
    whole = len(training) <= options.fold_up_to
    count = options.folds if whole else max(2, round(len(training) / options.held_out_rows))
    fold_of = assign_folds(Lines.of(training["description"]), path_of, Lines.of(some["description"]), count, seed)
    parts: list[tuple[Floats, NDArray[np.bool_], Ints]] = []
    names: list[str] = []
    for fold in range(count if whole else 1):
        outside = training[fold_of != fold]
        if outside.empty:
            continue
        tree = LabelTree.from_rows(outside, levels, declared=model.tree if model.tree.definitions else None)
        evidence = Evidence.of(LinearModel.fit(outside, tree, model.recipe, seed), outside)
        names = evidence.features
        inside = training[fold_of == fold]
        log.info("rerank: fold %d of %d, %d rows", fold + 1, count, len(inside))
        parts += _of_fold(evidence, inside, options.candidates)
    described, right, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return described, right, sizes, names


def _of_fold(evidence: Evidence, rows: pd.DataFrame, limit: int) -> Iterator[tuple[Floats, NDArray[np.bool_], Ints]]:
    paths = evidence.model.tree.levels.paths(rows)
    done = 0
    for found, described in evidence.chunks(rows, limit):
        size = len(found.starts) - 1
        right = evidence.right(found, paths[done : done + size])
        done += size
        sizes = np.diff(found.starts)
        row = np.repeat(np.arange(size), sizes)
        taught = np.bincount(row, right, minlength=size) > 0
        yield described[taught[row]], right[taught[row]], sizes[taught]


def _choose(reranker: Reranker, model: LinearModel, training: pd.DataFrame, dev: pd.DataFrame) -> Reranker:
    """The number of trees that gets most rows right, and the sharpness with the best Brier score; or no trees."""
    evidence, levels = Evidence.of(model, training), model.tree.levels
    truth = levels.paths(dev)
    linear = np.array([each[0][0] == path for each, path in zip(model.predict(dev)["candidates"], truth, strict=True)])
    trials = [{"tried": "no trees", "right": int(linear.sum()), "rows": len(dev), "kept": False}]
    assert reranker.trees is not None
    best, best_right = reranker, np.zeros(0, dtype=bool)
    for share in _TREES:
        option = reranker.with_trees(max(1, round(share * len(reranker.trees))))
        right = np.array([each[0][0] == path for each, path in zip(option.rank(evidence, dev, 1), truth, strict=True)])
        trials.append(
            {"tried": f"{len(option.trees or ())} trees", "right": int(right.sum()), "rows": len(dev), "kept": False}
        )
        if not len(best_right) or right.sum() >= best_right.sum():
            best, best_right, place = option, right, len(trials) - 1
    gained, lost = int((best_right & ~linear).sum()), int((linear & ~best_right).sum())
    reranks = gained - lost > np.sqrt(gained + lost)
    trials[place if reranks else 0]["kept"] = True
    for trial in trials:
        log.info("rerank, %s: %d of %d dev rows right", trial["tried"], trial["right"], trial["rows"])
    if not reranks:
        return replace(best, trees=None, trials=tuple(trials))
    loss = []
    for sharpness in _SHARPNESSES:
        shares = [each[0][1] for each in replace(best, sharpness=sharpness).rank(evidence, dev, 1)]
        loss.append(float(np.mean((np.array(shares) - best_right) ** 2)))
    return replace(best, sharpness=_SHARPNESSES[int(np.argmin(loss))], trials=tuple(trials))
