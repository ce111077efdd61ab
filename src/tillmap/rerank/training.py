"""Training of the reranker: candidates out of fold, LightGBM, and the choices on these rows."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.taxonomy import LabelTree, Levels
from tillmap.linear.model import LinearModel, Trial
from tillmap.linear.recipes import rows_right
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.folds import assign_folds, hold_out
from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.reranker import SHARES, Reranker, best, sure_features, sure_names
from tillmap.rerank.trees import Trees

log = logging.getLogger(__name__)

MIN_ROWS = 100  # with fewer out of fold the choice would be by chance, and the linear model answers
_MAX_ASKED = 2000  # lines that say how hard the rows to be answered are
_LEAVES = 31  # of a tree
_FEW_ROWS = 5000  # with fewer training rows the trees have half as many leaves
_TREES = (0.25, 0.5, 1.0)  # shares of the trees that are tried
_HALVES = 2
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

    candidates: int = 60
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
    """

    described: Floats
    right: NDArray[np.bool_]
    starts: Ints
    linear: NDArray[np.bool_]
    half: Ints
    names: list[str]

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


def train(model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int) -> Reranker:
    """Train a reranker, and keep it if it gets more rows right than the linear model does.

    The rows are those out of fold. Each half of them is answered by trees that are trained on the other half, to choose
    the number of trees, whether brands are read off the line, and how sure an answer is. A choice must gain more rows
    than it loses by over one standard error, the root of their sum (McNemar 1947).

    Args:
        model: the linear model of the training rows. Its recipe is trained again, on parts of them.
        training: description, retailer, price and the levels.
        asked: description of rows like those to be answered.
        options: what the user sets.
        seed: for the folds and the training.
    """
    untrained = Reranker(None, options.candidates, options.unseen_paths)
    if len(training) < MIN_ROWS:
        log.info("rerank: %d rows are too few to choose by; the linear model answers", len(training))
        return untrained
    examples = collect(model, training, asked, options, seed)
    chosen = choose(untrained, examples, options, _leaves(training), seed)
    if chosen.trees is None:
        return chosen
    return replace(chosen, trees=examples.boost(len(chosen.trees), _leaves(training), seed))


def _leaves(rows: pd.DataFrame) -> int:
    return _LEAVES if len(rows) >= _FEW_ROWS else _LEAVES // 2


def collect(model: LinearModel, training: pd.DataFrame, asked: pd.DataFrame, options: Options, seed: int) -> Examples:
    """The candidates that training rows have out of fold. See `train`."""
    levels = model.tree.levels
    read = options.read_brand is not False and options.unseen_paths
    parts = []
    for outside, inside, half in _parts(training, levels, asked, options, seed):
        tree = LabelTree.from_rows(outside, levels, declared=model.tree if model.tree.definitions else None)
        evidence = Evidence.of(LinearModel.fit(outside, tree, model.recipe, seed), outside)
        log.info("rerank: %d rows out of fold", len(inside))
        parts.append((*_of_fold(evidence, inside, options.candidates, read), half))
    described, right, sizes, linear, half = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Examples(described, right, np.concatenate([[0], np.cumsum(sizes)]), linear, half, evidence.features)


def _parts(
    training: pd.DataFrame, levels: Levels, asked: pd.DataFrame, options: Options, seed: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, Ints]]:
    """The rows outside a fold, those in it, and the half of each of these: the folds in turn, or one held-out part."""
    path_of = pd.factorize(pd.Series(levels.paths(training)))[0]
    lines = Lines.of(training["description"])
    some = Lines.of(asked["description"].sample(min(len(asked), _MAX_ASKED), random_state=seed))
    if len(training) > options.fold_up_to:
        size = min(options.held_out_rows, len(training) // 2)
        held = np.sort(np.random.default_rng(seed).permutation(len(training))[:size])
        inside = training.iloc[held]
        yield (
            training[hold_out(lines, path_of, some, held, Lines.of(inside["description"]))],
            inside,
            np.arange(size) % _HALVES,
        )
        return
    fold_of = assign_folds(lines, path_of, some, options.folds, seed)
    for fold in range(options.folds):
        inside, outside = training[fold_of == fold], training[fold_of != fold]
        if not inside.empty and not outside.empty:
            yield outside, inside, np.full(len(inside), fold % _HALVES)


def _of_fold(
    evidence: Evidence, rows: pd.DataFrame, limit: int, read: bool
) -> tuple[Floats, NDArray[np.bool_], Ints, NDArray[np.bool_]]:
    """Features and rightness of candidates, candidates of each row, and whether the linear model gets it right."""
    paths, lines = evidence.model.tree.levels.paths(rows), rows["description"].tolist()
    parts, done = [], 0
    for found, described in evidence.chunks(rows, limit, read=read):
        end = done + len(found.starts) - 1
        parts.append((described, evidence.right(found, paths[done:end], lines[done:end]), np.diff(found.starts)))
        done = end
    described, right, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return described, right, sizes, rows_right(evidence.model, rows)


def choose(untrained: Reranker, examples: Examples, options: Options, leaves: int, seed: int) -> Reranker:
    """Choose by answering each half with the trees of the other one. See `train`; the trees are those of one half."""
    halves = [examples.boost(options.trees, leaves, seed, examples.half != half) for half in range(_HALVES)]
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
    reranks = gains(right, examples.linear)
    trials.keep({"no trees"} if not reranks else {f"{count} trees", *(["brands read off the line"] * reads)})
    chosen = replace(untrained, trials=tuple(trials.noted))
    if not reranks:
        return chosen
    scores = scores if reads else np.where(barred, -np.inf, scores)
    sharpness = _sharpness(scores, right, examples)
    sure = _fit_sure(scores, right, examples, sharpness, seed)
    return replace(chosen, trees=halves[0].first(count), read_brand=reads, sharpness=sharpness, sure=sure)


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


def gains(right: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether more rows are right than were before, by over one standard error (McNemar 1947)."""
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    return gained - lost > float(np.sqrt(gained + lost))


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
