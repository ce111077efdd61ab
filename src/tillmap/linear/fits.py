"""The three fits of a linear recipe, each on as many rows as the rows that it answers allow.

The fit on the training subset answers the `dev` and `holdout` subsets, the one on all labelled rows except the
`calibration` subset answers that subset, and the one on all labelled rows answers new rows.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tillmap.core.errors import InputError, ParamsError
from tillmap.core.files import read_table
from tillmap.core.taxonomy import LabelTree, Levels
from tillmap.linear.model import TREE, LinearModel, Recipe
from tillmap.linear.recipes import fit_best

_ITEM = ["id", "description", "retailer", "price"]
# Folder names of the three fits.
_TRAIN, _OTHERS, _ALL = "train", "all_but_calibration", "all"


@dataclass(frozen=True)
class Options:
    """What the user sets. The rest of the recipe is chosen on the `dev` subset.

    Attributes:
        epochs: how often each row is used in training.
        ngrams: shortest and longest character n-gram.
        price, retailer, sizes: whether an item's price, its retailer, and the weights, volumes and counts in its text
            are used; None: if they help on the `dev` subset.
        unseen_paths: whether a known chain may be answered with a known brand that it was never seen with.
        trial_rows: with more training rows than this, recipes are compared on whole groups with about this many rows.
        weights_mib: the largest size of the weights' file, in MiB.
    """

    epochs: int = 5
    ngrams: tuple[int, int] = (2, 4)
    price: bool | None = None
    retailer: bool | None = None
    sizes: bool | None = None
    unseen_paths: bool = False
    trial_rows: int = 20_000
    weights_mib: float = 16.0


def train(rows: pd.DataFrame, tree: LabelTree, options: Options, seed: int) -> LinearModel:
    """Train on the training subset of a rows table with the recipe that gets most rows of the `dev` subset right.

    `tree` has the paths of the training subset. Raises InputError if that subset is empty or has another path,
    ParamsError if unseen paths are wanted and there is no brand level.
    """
    if options.unseen_paths and not tree.levels.brand:
        raise ParamsError(
            "linear.unseen_paths is true, which pairs paths with brands, but `taxonomy.brand` is null; set it to false"
        )
    decided = {"price": options.price, "retailer": options.retailer, "sizes": options.sizes}
    seen = {block: used for block, used in decided.items() if used is not None}
    recipe = Recipe(ngrams=options.ngrams, epochs=options.epochs, weights_mib=options.weights_mib)
    columns = ["subset", *_ITEM, *tree.levels]
    rows = rows.loc[tree.levels.labelled(rows), columns]
    subsets = {name: table for name, table in rows.groupby("subset", observed=True)}
    if "train" not in subsets:
        raise InputError("linear: there is no row of the training subset; run `dvc repro stratify`")
    return fit_best(
        subsets["train"], subsets.get("dev", rows.head(0)), tree, recipe, seed,
        seen=seen, trial_rows=options.trial_rows, unseen_paths=options.unseen_paths,
    )  # fmt: skip


def refit(model: LinearModel, rows: pd.DataFrame, seed: int) -> LinearModel:
    """Train a model's recipe again on all labelled rows, held-out ones included; only for answering test rows."""
    labelled = _labelled(rows, model.tree.levels)
    tree = LabelTree.from_rows(labelled, model.tree.levels, declared=model.tree)
    return _refit(model, labelled, tree, seed)


def refit_for_calibration(model: LinearModel, rows: pd.DataFrame, seed: int) -> LinearModel:
    """Train a model's recipe again on all labelled rows except the `calibration` subset, which it answers.

    It is nearly as good as the model of all rows, so confidences fitted on its answers hold for that model's answers.
    It knows no other paths than `model`: rows with another path are left out.
    """
    return _refit(model, _others(rows, model.tree), model.tree, seed)


def rows_of(folder: Path, fit: str, rows: pd.DataFrame, tree: LabelTree) -> pd.DataFrame:
    """The rows that a saved fit was trained on: id, description, retailer, price and the levels.

    Args:
        folder: the folder of all fits.
        fit: the fit's name.
        rows: all rows of the split.
        tree: the paths that the fit knows.
    """
    trained = _folder_of(folder, fit).name
    if trained == _OTHERS:
        return _others(rows, tree)
    return _labelled(rows if trained == _ALL else rows[rows["subset"] == "train"], tree.levels)


def _others(rows: pd.DataFrame, tree: LabelTree) -> pd.DataFrame:
    """The labelled rows with known paths outside the calibration subset, and of other products than that."""
    others = _labelled(rows[~rows["subset"].isin(("calibration", "refit"))], tree.levels)
    return others[[path in tree for path in tree.levels.paths(others)]]


def _labelled(rows: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    return rows.loc[(rows["split"] == "train") & levels.labelled(rows), [*_ITEM, *levels]]


def _refit(model: LinearModel, rows: pd.DataFrame, tree: LabelTree, seed: int) -> LinearModel:
    return replace(LinearModel.fit(rows, tree, model.recipe, seed), trials=model.trials)


def save(
    model: LinearModel, folder: Path, *, others: LinearModel | None = None, whole: LinearModel | None = None
) -> None:
    """Write the model of the training subset and, where they exist, those for the calibration subset and new rows."""
    for name, each in ((_TRAIN, model), (_OTHERS, others), (_ALL, whole)):
        if each is not None:
            (folder / name).mkdir()
            each.save(folder / name)


def fit_for(subset: str) -> str:
    """The name of the fit that answers the rows of a subset: the one trained on most rows without these."""
    return {"test": _ALL, "calibration": _OTHERS}.get(subset, _TRAIN)


def load(folder: Path, fit: str = _ALL) -> LinearModel:
    """Load a fit, by default the one for new rows. If the model was not refitted, it is that of the training subset.

    Raises InputError or ModelError if a file is missing or damaged.
    """
    return LinearModel.load(_folder_of(folder, fit))


def known_paths(folder: Path) -> LabelTree:
    """The paths that the model for new rows knows. Raises InputError if the file is missing."""
    return LabelTree.from_table(read_table(_folder_of(folder, _ALL) / TREE))


def _folder_of(folder: Path, fit: str) -> Path:
    return folder / (fit if (folder / fit).is_dir() else _TRAIN)


def training_tree(folder: Path) -> LabelTree:
    """The paths of the training subset, refitted or not. Raises InputError if the file is missing."""
    return LabelTree.from_table(read_table(folder / _TRAIN / TREE))
