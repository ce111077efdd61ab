"""Training of the reranker, and the choices on rows out of fold."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.linear.model import LinearModel, Trial
from tillmap.rerank.examples import HALVES, Examples, Options, collect
from tillmap.rerank.lines import Floats
from tillmap.rerank.reranker import SHARES, Reranker, best, sure_features, sure_names
from tillmap.rerank.trees import Trees

log = logging.getLogger(__name__)

MIN_ROWS = 100  # with fewer out of fold the choice would be by chance, and the linear model answers
_LEAVES = 31  # of a tree
_FEW_ROWS = 5000  # with fewer training rows the trees have half as many leaves
_TREES = (0.25, 0.5, 1.0)  # shares of the trees that are tried
# By so many standard errors the trees must gain. The best of several was taken, and the lines of one product are right
# or wrong together: of 12 sets of random labels, trees gained over one standard error in 5, over two in 2, over three
# in none.
_SURELY = 3.0
_SHARPNESSES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
# How likely a first candidate is right. Chosen by the log loss of rows out of fold.
_SURE = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "max_bin": 63,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 20.0,
    "min_data_in_leaf": 100,
    "use_missing": False,
    "force_col_wise": True,
    "deterministic": True,
    "num_threads": 1,
    "verbose": -1,
}
_SURE_TREES = 300
_SURE_ROWS = 2000  # with fewer the softmax shares stay as they are


def train(model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int) -> Reranker:
    """Train a reranker, and keep it if it gets more rows right than the linear model does.

    The rows are those out of fold. Each half of them is answered by trees that are trained on the other half, to choose
    the number of trees, whether brands are read off the line, and how sure an answer is. A choice must gain more rows
    than it loses by over one standard error, the root of their sum (McNemar 1947), and the trees by over three.

    Args:
        model: the linear model of the training rows. Its recipe is trained again, on parts of them.
        training: split, id, description, retailer, price and the levels.
        asked: description of rows like those to be answered.
        options: what the user sets.
        seed: for the folds and the training.
    """
    untrained = Reranker(None, options.candidates, options.unseen_paths)
    if len(training) < MIN_ROWS:
        log.info("rerank: %d rows are too few to choose by; the linear model answers", len(training))
        return untrained
    examples = collect(model, training, asked, options, seed)
    if examples is None:
        log.info("rerank: all rows are of one product, so none is out of fold; the linear model answers")
        return untrained
    chosen = choose(untrained, examples, options, _leaves(training), seed)
    if chosen.trees is None:
        return chosen
    return replace(chosen, trees=examples.boost(len(chosen.trees), _leaves(training), seed))


def _leaves(rows: pd.DataFrame) -> int:
    return _LEAVES if len(rows) >= _FEW_ROWS else _LEAVES // 2


def choose(untrained: Reranker, examples: Examples, options: Options, leaves: int, seed: int) -> Reranker:
    """Choose by answering each half with the trees of the other one. See `train`; the trees are those of one half."""
    halves = [examples.boost(options.trees, leaves, seed, examples.half != half) for half in range(HALVES)]
    if halves[0] is None or halves[1] is None:
        return untrained
    barred = examples.named("brand_read") > 0
    trials = _Trials(examples, [_note("no trees", examples.linear)])
    tried = []
    for count in sorted({max(1, round(share * len(halves[0]))) for share in _TREES}):
        scores = _cross(examples, [trees.first(count) for trees in halves if trees], options.unseen_paths)
        tried.append((count, scores, trials.mark(f"{count} trees", np.where(barred, -np.inf, scores))))
    place = max(range(len(tried)), key=lambda each: (tried[each][2].sum(), each))
    count, scores, right = tried[place]
    reads = False
    if barred.any():
        with_read = trials.mark("brands read off the line", scores)
        reads = options.read_brand is True or gains(with_read, right)
        right = with_read if reads else right
    reranks = gains(right, examples.linear, errors=_SURELY)
    trials.keep({"no trees"} if not reranks else {f"{count} trees", *(["brands read off the line"] * reads)})
    chosen = replace(untrained, trials=tuple(trials.noted))
    if not reranks:
        return chosen
    scores = scores if reads else np.where(barred, -np.inf, scores)
    sharpness = _sharpness(scores, right, examples)
    sure = _fit_sure(scores, right, examples, sharpness, seed)
    chosen = replace(chosen, trees=halves[0].first(count), read_brand=reads, sharpness=sharpness, sure=sure)
    return replace(chosen, out_of_fold=_ranked(chosen, examples, scores))


def _ranked(reranker: Reranker, examples: Examples, scores: Floats) -> pd.DataFrame:
    """The best candidates of the rows out of fold, by scores of trees that were not trained on them."""
    places, shares = reranker.first(examples.described, scores, examples.starts)
    some = np.arange(places.shape[1]) < np.diff(examples.starts)[:, None]
    row, rank = np.nonzero(some)
    labels = examples.levels.columns(examples.paths[place] for place in places[some])
    keys = examples.keys.iloc[row].reset_index(drop=True)
    return pd.concat([keys, labels], axis=1).assign(rank=rank, score=shares[some])


def _cross(examples: Examples, halves: Sequence[Trees], unseen_paths: bool) -> Floats:
    """The scores of the candidates of each half by the trees of the other one."""
    scores = np.full(len(examples.right), -np.inf, dtype=np.float32)
    wanted = np.ones(len(scores), dtype=bool) if unseen_paths else examples.named("known") > 0
    for half, trees in enumerate(halves):
        inside = wanted & (examples.half == half)[examples.row]
        scores[inside] = trees.score(examples.described[inside])
    return scores


@dataclass(frozen=True)
class _Trials:
    """What was tried, as `linear.model.Trial`."""

    examples: Examples
    noted: list[Trial]

    def mark(self, name: str, scores: Floats) -> NDArray[np.bool_]:
        """Note how many rows some scores get right. Gives which ones (rows,)."""
        right = np.asarray(self.examples.right[best(scores, self.examples.starts, 1.0, 1)[0][:, 0]])
        self.noted.append(_note(name, right))
        return right

    def keep(self, names: set[str]) -> None:
        """Mark what is kept."""
        for trial in self.noted:
            trial["kept"] = trial["tried"] in names


def _note(name: str, right: NDArray[np.bool_]) -> Trial:
    log.info("rerank, %s: %d of %d rows right", name, right.sum(), len(right))
    return {"tried": name, "right": int(right.sum()), "rows": len(right), "kept": False}


def gains(right: NDArray[np.bool_], other: NDArray[np.bool_], errors: float = 1.0) -> bool:
    """Whether more rows are right than were before, by over so many standard errors (McNemar 1947)."""
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return gained - lost > errors * float(np.sqrt(gained + lost))


def _sharpness(scores: Floats, right: NDArray[np.bool_], examples: Examples) -> float:
    """The sharpness with the best Brier score of the first candidates' shares."""
    loss = [
        float(np.mean((best(scores, examples.starts, sharpness, 1)[1][:, 0] - right) ** 2))
        for sharpness in _SHARPNESSES
    ]
    return _SHARPNESSES[int(np.argmin(loss))]


def _fit_sure(
    scores: Floats, right: NDArray[np.bool_], examples: Examples, sharpness: float, seed: int
) -> Trees | None:
    """Trees that say how likely a first candidate is right; None with few rows."""
    if len(right) < _SURE_ROWS or right.all() or not right.any():
        return None
    places, shares = best(scores, examples.starts, sharpness, SHARES)
    features, params = sure_features(examples.described, places, shares), {**_SURE, "seed": seed}
    names = [*sure_names(tuple(examples.names))]
    rows = lightgbm.Dataset(features, right.astype(np.int32), feature_name=names, params=params)
    return Trees.parse(str(lightgbm.train(params, rows, _SURE_TREES).model_to_string()))
