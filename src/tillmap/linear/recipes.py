"""Chooses a linear model's recipe on the `dev` subset: its features, its heads and how it decodes."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.quantities import without_quantities
from tillmap.core.taxonomy import LabelTree, Levels, right_labels
from tillmap.linear.features import BLOCKS
from tillmap.linear.model import LinearModel, Recipe, Trial

log = logging.getLogger(__name__)

MIN_DEV_ROWS = 50  # with fewer the default recipe is taken
_MAX_DEV_ROWS = 5000
_BLOCK_CHANGES = {"without price": ("price", False), "with retailer": ("retailer", True), "with sizes": ("sizes", True)}
_OTHER_CHANGES: Mapping[str, Mapping[str, Any]] = {
    "without label names": {"label_names": False},
    "with siblings": {"siblings": True},
    "with noisy copies": {"copies": 2, "epochs": 3},
}
_CHANGES = ("without price", "with retailer", *_OTHER_CHANGES, "with sizes")
_MIN_ROWS_PER_PATH = 8  # from which on a head for siblings is tried
_MIN_SIZED_SHARE = 0.02  # of rows with a size in their text, from which on sizes are tried
_SIZE_SAMPLE = 5000  # rows that this share is estimated from
_LEVEL_SCALES = (1.0, 0.5, 2.0)
_SIBLING_WEIGHTS = (0.3, 0.6, 1.0, 2.0)
_SHARPNESSES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
_UNSEEN_PENALTIES = (1.0, 0.7, 0.5, 0.4, 0.3, 0.2)


def fit_best(
    training: pd.DataFrame, dev: pd.DataFrame, tree: LabelTree, recipe: Recipe, seed: int,
    *, seen: Mapping[str, bool], trial_rows: int, unseen_paths: bool,
) -> LinearModel:  # fmt: skip
    """Fit the recipe that gets the most `dev` rows right, starting from `recipe` and changing one thing at a time.

    First the features and heads: without the price, with the retailer, without the labels' names as examples, with a
    head for siblings, with noisy copies of the rows, and with the sizes in the text. Some are tried only where they may
    help: siblings, the most expensive head, with a brand and many rows per path; copies, with few rows per path; sizes,
    if 2% of the rows have one; and leaving out the names, if every path has rows. Each change trains a new model. It is
    kept if it gains more rows than it loses by over one standard error, the root of their sum (McNemar 1947). If there
    are more than `trial_rows` rows, the changes are tried on whole groups of labels with about so many rows; rows drawn
    one by one would leave each path fewer rows than it has.

    Then, with the model of all rows: the weights of the heads, the penalty of unseen paths (with `unseen_paths`), and
    the sharpness of the shares.

    Args:
        training, dev: id, description, retailer, price and the levels. With fewer than 50 `dev` rows the default
            recipe is taken.
        tree: the paths of the training subset.
        recipe: where to start.
        seed: for the training, and for what is drawn.
        seen: whether the blocks price, retailer and sizes are used; a block that is missing here is tried.
        trial_rows: see above.
        unseen_paths: whether unseen paths may be answered.

    Returns: the model, with the list of trials.
    """
    for block, used in seen.items():
        recipe = _with_block(recipe, block, used)
    if len(dev) < MIN_DEV_ROWS:
        log.info("linear: %d dev rows are too few to choose a recipe; the default is taken", len(dev))
        return LinearModel.fit(training, tree, recipe, seed)
    dev = dev.iloc[np.sort(np.random.default_rng(seed).permutation(len(dev))[:_MAX_DEV_ROWS])]
    trials: list[Trial] = []
    changes = [change for change in _CHANGES if _worth_trying(change, training, tree, seen)]
    model = _choose_inputs(
        training, dev, tree, recipe, seed, changes=changes, trial_rows=trial_rows, trials=trials
    )  # fmt: skip
    if model.tree is not tree:
        model = LinearModel.fit(training, tree, model.recipe, seed)
    model = _choose_decoding(model, dev, trials)
    if unseen_paths:
        model = _choose_penalty(model, dev, trials)
    return replace(_choose_sharpness(model, dev), trials=tuple(trials))


def _choose_inputs(
    training: pd.DataFrame, dev: pd.DataFrame, tree: LabelTree, recipe: Recipe, seed: int,
    *, changes: Sequence[str], trial_rows: int, trials: list[Trial],
) -> LinearModel:  # fmt: skip
    """The best model on the trial rows. Its tree is `tree` itself if these are all rows."""
    rows, asked, known = training, dev, tree
    if len(training) > trial_rows:
        groups = _draw_groups(training, tree.levels, trial_rows, seed)
        rows, asked = (table[_group(table, tree.levels).isin(groups)] for table in (training, dev))
        known = LabelTree.from_rows(rows, tree.levels)
        if tree.definitions:
            known = replace(known, definitions=tuple(map(tree.definition_of, known)))

    def attempt(change: str, recipe: Recipe) -> tuple[NDArray[np.bool_], LinearModel]:
        model = LinearModel.fit(rows, known, recipe, seed)
        options = [
            model.with_recipe(head_weights=(*model.recipe.head_weights[:-1], weight))
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


def _worth_trying(change: str, training: pd.DataFrame, tree: LabelTree, seen: Mapping[str, bool]) -> bool:
    if change == "with sizes" and "sizes" not in seen:
        some = training["description"].iloc[:: max(1, len(training) // _SIZE_SAMPLE)]
        return float(np.mean([without_quantities(text) != text for text in some])) >= _MIN_SIZED_SHARE
    dense = len(training) >= _MIN_ROWS_PER_PATH * len(tree)
    if change == "with siblings":
        return tree.levels.brand is not None and dense
    if change == "with noisy copies":
        return not dense
    if change == "without label names":
        return all(tree.rows)
    return _BLOCK_CHANGES[change][0] not in seen


def _with_block(recipe: Recipe, block: str, used: bool) -> Recipe:
    blocks = {*recipe.blocks, block} if used else {*recipe.blocks} - {block}
    return replace(recipe, blocks=tuple(name for name in BLOCKS if name in blocks))


def _choose_decoding(model: LinearModel, dev: pd.DataFrame, trials: list[Trial]) -> LinearModel:
    *above, last, _ = model.recipe.head_weights
    options = [
        model.with_recipe(head_weights=(*(round(scale * weight, 6) for weight in above), last, sibling))
        for sibling in (_SIBLING_WEIGHTS if model.recipe.siblings else (0.0,))
        for scale in _LEVEL_SCALES
    ]
    return _best(options, dev, trials, lambda option: f"head weights {list(option.recipe.head_weights)}")


def _choose_penalty(model: LinearModel, dev: pd.DataFrame, trials: list[Trial]) -> LinearModel:
    options = [model, *(model.with_recipe(unseen_penalty=penalty) for penalty in _UNSEEN_PENALTIES)]
    return _best(options, dev, trials, lambda option: f"unseen penalty {option.recipe.unseen_penalty}")


def _choose_sharpness(model: LinearModel, dev: pd.DataFrame) -> LinearModel:
    """The sharpness with the best Brier score (Brier 1950) of the shares."""
    options = [model.with_recipe(sharpness=sharpness) for sharpness in _SHARPNESSES]
    loss = []
    for option in options:
        table = option.predict(dev)
        right = right_labels(table, dev, model.tree.levels).all(axis=1)
        loss.append(float(np.mean((table["share"].to_numpy() - right) ** 2)))
    return options[int(np.argmin(loss))]


def _best(options: Sequence[LinearModel], dev: pd.DataFrame, trials: list[Trial], name: Any) -> LinearModel:
    """The option that gets the most rows right; the first of equal ones."""
    marks = [rows_right(option, dev) for option in options]
    for option, right in zip(options, marks, strict=True):
        _note(trials, name(option), right)
    best = int(np.argmax([right.sum() for right in marks]))
    trials[best - len(options)]["kept"] = True
    return options[best]


def rows_right(model: LinearModel, rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows the model gets right, the whole path (rows,)."""
    return np.asarray(right_labels(model.predict(rows, k=2), rows, model.tree.levels).all(axis=1))


def _note(trials: list[Trial], change: str, right: NDArray[np.bool_]) -> None:
    log.info("linear, %s: %d of %d dev rows right", change, right.sum(), len(right))
    trials.append({"tried": change, "right": int(right.sum()), "rows": len(right), "kept": False})


def _draw_groups(training: pd.DataFrame, levels: Levels, rows: int, seed: int) -> list[tuple[str, ...]]:
    """Groups (see `_group`) in random order that together have at most `rows` rows; at least one group."""
    sizes = sorted(Counter(_group(training, levels)).items())
    chosen: list[tuple[str, ...]] = []
    for place in np.random.default_rng(seed).permutation(len(sizes)):
        group, size = sizes[place]
        if size <= rows:
            chosen.append(group)
            rows -= size
    return chosen or [min(sizes, key=lambda entry: entry[1])[0]]


def _group(table: pd.DataFrame, levels: Levels) -> pd.Series:
    """The first two labels of each row's chain, or the first if there are no more."""
    return pd.Series([path[: min(2, levels.depth)] for path in levels.paths(table)], index=table.index, dtype=object)
