"""Finds a linear model's recipe on the `dev` subset: what it sees, which heads it has, how it decodes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.linear.features import BLOCKS
from tillmap.linear.model import LinearModel, Recipe, Trial

log = logging.getLogger(__name__)

MIN_TUNE_ROWS = 50  # fewer decide nothing; the default recipe stands
_MAX_TUNE_ROWS = 5000
_BLOCK_CHANGES = {"without price": ("price", False), "with retailer": ("retailer", True)}
_OTHER_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "without label names": {"label_names": False},
    "with siblings": {"siblings": True},
}
_DENSE = 8  # training rows a path
_LEVEL_SCALES = (1.0, 0.5, 2.0)
_SIBLING_WEIGHTS = (0.3, 0.6, 1.0, 2.0)
_SHARPNESSES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_UNSEEN_PENALTIES = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2)


def fit_best(
    training: pd.DataFrame, tune: pd.DataFrame, tree: LabelTree, recipe: Recipe, seed: int,
    *, seen: Mapping[str, bool], trial_rows: int, unseen_paths: bool,
) -> LinearModel:  # fmt: skip
    """Fit the recipe that gets the most `dev` rows right, starting from `recipe` and changing one thing at a time.

    First what is seen and which heads there are: without the price, with the retailer, without the labels' names,
    with a head for siblings (on dense data only: it is the dearest, and where paths have few rows it gains nothing). A
    change is kept where it gains more rows than it loses by over a standard error, the root of their sum (McNemar
    1947). Each try trains anew; where there are more than `trial_rows` rows, on whole groups of about so many, for rows
    drawn singly would be thinner than the real data. Then, with the model of all rows, what each head counts, whether
    unseen paths are answered (`unseen_paths`), and how sharp the shares are.

    `seen` says of the blocks price and retailer whether they are used; one that it does not name is tried.
    `training` and `dev` have id, description, retailer, price and the four levels; fewer than 50 tune rows choose
    nothing. The model carries the list of trials.
    """
    for block, used in seen.items():
        recipe = _with_block(recipe, block, used)
    if len(tune) < MIN_TUNE_ROWS:
        log.info("%d tune rows are too few to choose a recipe with; the default is taken", len(tune))
        return LinearModel.fit(training, tree, recipe, seed)
    tune = tune.iloc[np.sort(np.random.default_rng(seed).permutation(len(tune))[:_MAX_TUNE_ROWS])]
    trials: list[Trial] = []
    changes = [change for change, (block, _) in _BLOCK_CHANGES.items() if block not in seen]
    changes += [change for change in _OTHER_CHANGES if change != "with siblings" or len(training) >= _DENSE * len(tree)]
    model = _choose_inputs(
        training, tune, tree, recipe, seed, changes=changes, trial_rows=trial_rows, trials=trials
    )  # fmt: skip
    if model.tree is not tree:
        model = LinearModel.fit(training, tree, model.recipe, seed)
    model = _choose_decoding(model, tune, trials)
    if unseen_paths:
        model = _choose_penalty(model, tune, trials)
    return replace(_choose_sharpness(model, tune), trials=tuple(trials))


def _choose_inputs(
    training: pd.DataFrame, tune: pd.DataFrame, tree: LabelTree, recipe: Recipe, seed: int,
    *, changes: Sequence[str], trial_rows: int, trials: list[Trial],
) -> LinearModel:  # fmt: skip
    """The best model on the trial rows; its tree is `tree` itself where these are all rows."""
    rows, asked, known = training, tune, tree
    if len(training) > trial_rows:
        groups = _draw_groups(training, trial_rows, seed)
        rows, asked = (table[_group(table).isin(groups)] for table in (training, tune))
        known = LabelTree.from_rows(rows)

    def attempt(change: str, recipe: Recipe) -> tuple[NDArray[np.bool_], LinearModel]:
        model = LinearModel.fit(rows, known, recipe, seed)
        levels = recipe.head_weights[:4]
        options = [
            model.with_recipe(head_weights=(*levels, weight))
            for weight in (_SIBLING_WEIGHTS if recipe.siblings else (0.0,))
        ]
        marks = [rows_right(option, asked) for option in options]
        best = int(np.argmax([right.sum() for right in marks]))
        _note(trials, change, marks[best])
        return marks[best], options[best]

    right, best = attempt("start", recipe)
    trials[-1]["kept"] = True
    for change in changes:
        now_right, model = attempt(change, _changed(best.recipe, change))
        gained, lost = int((now_right & ~right).sum()), int((right & ~now_right).sum())
        if gained - lost > np.sqrt(gained + lost):
            right, best = now_right, model
            trials[-1]["kept"] = True
    return best


def _changed(recipe: Recipe, change: str) -> Recipe:
    if change in _OTHER_CHANGES:
        return replace(recipe, **_OTHER_CHANGES[change])
    return _with_block(recipe, *_BLOCK_CHANGES[change])


def _with_block(recipe: Recipe, block: str, used: bool) -> Recipe:
    blocks = {*recipe.blocks, block} if used else {*recipe.blocks} - {block}
    return replace(recipe, blocks=tuple(name for name in BLOCKS if name in blocks))


def _choose_decoding(model: LinearModel, tune: pd.DataFrame, trials: list[Trial]) -> LinearModel:
    *levels, brand, _ = model.recipe.head_weights
    options = [
        model.with_recipe(head_weights=(*(round(scale * weight, 6) for weight in levels), brand, sibling))
        for sibling in (_SIBLING_WEIGHTS if model.recipe.siblings else (0.0,))
        for scale in _LEVEL_SCALES
    ]
    return _best(options, tune, trials, lambda option: f"head weights {list(option.recipe.head_weights)}")


def _choose_penalty(model: LinearModel, tune: pd.DataFrame, trials: list[Trial]) -> LinearModel:
    options = [model, *(model.with_recipe(unseen_penalty=penalty) for penalty in _UNSEEN_PENALTIES)]
    return _best(options, tune, trials, lambda option: f"unseen penalty {option.recipe.unseen_penalty}")


def _choose_sharpness(model: LinearModel, tune: pd.DataFrame) -> LinearModel:
    """The sharpness whose shares are nearest to being right, by the Brier score (Brier 1950)."""
    options = [model.with_recipe(sharpness=sharpness) for sharpness in _SHARPNESSES]
    loss = []
    for option in options:
        table = option.predict(tune)
        loss.append(float(np.mean((table["share"].to_numpy() - _right(table, tune)) ** 2)))
    return options[int(np.argmin(loss))]


def _best(options: Sequence[LinearModel], tune: pd.DataFrame, trials: list[Trial], name: Any) -> LinearModel:
    """The option that gets the most rows right, of equals the first."""
    marks = [rows_right(option, tune) for option in options]
    for option, right in zip(options, marks, strict=True):
        _note(trials, name(option), right)
    best = int(np.argmax([right.sum() for right in marks]))
    trials[best - len(options)]["kept"] = True
    return options[best]


def rows_right(model: LinearModel, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows' four labels the model all gets right (rows,)."""
    return _right(model.predict(rows, k=2), rows)


def _right(table: pd.DataFrame, rows: pd.DataFrame) -> NDArray[np.bool_]:
    levels = list(LEVELS)
    return np.asarray((table[levels].to_numpy(object) == rows[levels].to_numpy(object)).all(axis=1))


def _note(trials: list[Trial], change: str, right: NDArray[np.bool_]) -> None:
    log.info("%s: %d of %d tune rows right", change, right.sum(), len(right))
    trials.append({"tried": change, "right": int(right.sum()), "rows": len(right), "kept": False})


def _draw_groups(training: pd.DataFrame, rows: int, seed: int) -> list[tuple[str, str]]:
    """Whole groups of labels, in an order drawn by the seed, that have together about so many rows."""
    sizes = sorted(Counter(_group(training)).items())
    chosen: list[tuple[str, str]] = []
    for place in np.random.default_rng(seed).permutation(len(sizes)):
        group, size = sizes[place]
        if size <= rows:
            chosen.append(group)
            rows -= size
    return chosen or [min(sizes, key=lambda entry: entry[1])[0]]


def _group(table: pd.DataFrame) -> pd.Series:
    return pd.Series(list(zip(table["supergroup"], table["group"], strict=True)), index=table.index)
