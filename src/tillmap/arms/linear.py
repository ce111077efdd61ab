"""The `linear` arm: one-vs-rest weights over character n-grams, the price and more, decoded over whole label paths."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tillmap.core.completions import Completion
from tillmap.core.errors import InputError
from tillmap.core.files import read_table
from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.linear.model import TREE, LinearModel, Recipe
from tillmap.linear.recipes import fit_best
from tillmap.llm.answer_formats import AnswerFormat, make_answer_format

_ITEM = ["id", "description", "retailer", "price"]
# Folders of models of the same recipe: of the training subset, of all labelled rows but the calibration subset, and of all.
_PART, _OTHERS, _WHOLE = "subset", "others", "whole"


@dataclass(frozen=True)
class Settings:
    """What a user decides; the rest of the recipe is chosen on the `dev` subset.

    epochs: how often each row is shown in training.
    ngrams: shortest and longest character n-gram.
    price, retailer: whether an item's price and its retailer are looked at; None: where the `dev` subset says it helps.
    unseen_paths: whether a known chain with a known brand may be answered that training never showed together.
    trial_rows: up to so many rows are tried with all of them, more on whole groups of about so many.
    weights_mib: the most that the weights' file may take.
    """

    epochs: int = 5
    ngrams: tuple[int, int] = (2, 4)
    price: bool | None = None
    retailer: bool | None = None
    unseen_paths: bool = False
    trial_rows: int = 20_000
    weights_mib: float = 16.0


def train(rows: pd.DataFrame, tree: LabelTree, settings: Settings, seed: int) -> LinearModel:
    """Train on the `train` part of a rows table with the recipe that gets the most of its `dev` subset right.

    `tree` holds the paths of the training subset. Raises InputError where that part is empty or has a path not of `tree`.
    """
    decided = {"price": settings.price, "retailer": settings.retailer}
    seen = {block: used for block, used in decided.items() if used is not None}
    recipe = Recipe(ngrams=settings.ngrams, epochs=settings.epochs, weights_mib=settings.weights_mib)
    columns = ["subset", *_ITEM, *LEVELS]
    parts = {part: table for part, table in rows[columns].groupby("subset", observed=True)}
    if "train" not in parts:
        raise InputError("linear: there is no row of the training subset; run `dvc repro stratify`")
    return fit_best(
        parts["train"], parts.get("dev", rows[columns].head(0)), tree, recipe, seed,
        seen=seen, trial_rows=settings.trial_rows, unseen_paths=settings.unseen_paths,
    )  # fmt: skip


def refit(model: LinearModel, rows: pd.DataFrame, seed: int) -> LinearModel:
    """Train a model's recipe anew on all labelled rows, the held-out parts included; for answering test rows alone."""
    labelled = rows.loc[rows["split"] == "train", [*_ITEM, *LEVELS]]
    return _refit(model, labelled, LabelTree.from_rows(labelled), seed)


def refit_for_calibration(model: LinearModel, rows: pd.DataFrame, seed: int) -> LinearModel:
    """Train a model's recipe anew on all labelled rows but the `calibration` subset, which it is to answer.

    It is nearly as good as the model of all rows, so that confidences fitted on its answers hold for that one's. It
    knows no other paths than `model`: rows with one are left out.
    """
    others = rows.loc[(rows["split"] == "train") & (rows["subset"] != "calibration"), [*_ITEM, *LEVELS]]
    known = [path in model.tree for path in others[list(LEVELS)].itertuples(index=False, name=None)]
    return _refit(model, others[known], model.tree, seed)


def _refit(model: LinearModel, rows: pd.DataFrame, tree: LabelTree, seed: int) -> LinearModel:
    return replace(LinearModel.fit(rows, tree, model.recipe, seed), trials=model.trials)


def save(
    model: LinearModel, folder: Path, *, others: LinearModel | None = None, whole: LinearModel | None = None
) -> None:
    """Write the model of the training subset and, where there are, that for the calibration subset and that for new rows."""
    for name, each in ((_PART, model), (_OTHERS, others), (_WHOLE, whole)):
        if each is not None:
            (folder / name).mkdir()
            each.save(folder / name)


def load(folder: Path) -> LinearModel:
    """The model for new rows. Raises InputError or ModelError where a file is missing or not as it should be."""
    return _load(folder, _WHOLE)


def _load(folder: Path, name: str) -> LinearModel:
    return LinearModel.load(folder / (name if (folder / name).is_dir() else _PART))


def training_tree(folder: Path) -> LabelTree:
    """The paths of the training subset, whether the model was refitted or not. Raises InputError where it is missing."""
    return LabelTree.from_table(read_table(folder / _PART / TREE))


def answer(folder: Path, asked: pd.DataFrame) -> pd.DataFrame:
    """The answers of `LinearModel.predict` to rows that were not trained on: split, id, subset, and what an item has.

    Each part's are those of the model that has seen the most rows besides: test rows' of the model of all labelled
    rows, the calibration subset's of the model of the others, where there are these; else of that of the training subset.
    """
    model_of = asked["subset"].map({"test": _WHOLE, "calibration": _OTHERS}).fillna(_PART)
    parts = [_load(folder, str(name)).predict(rows) for name, rows in asked.groupby(model_of, sort=False)]
    return pd.concat(parts).loc[asked.index]


def answer_format_of(tree: LabelTree) -> AnswerFormat:
    """How the arm writes its answers down."""
    return make_answer_format("json", tree)


def completions(answers: pd.DataFrame, asked: pd.DataFrame) -> Iterator[Completion]:
    """The answers of `LinearModel.predict` as completions of the rows asked (split and id, in the same order).

    `logprob` is the answers' evidence: how likely all four labels are, each judged alone.
    """
    columns = [asked["split"], asked["id"], answers["evidence"], answers["candidates"]]
    for split, row_id, evidence, candidates in zip(*columns, strict=True):
        shown = [[list(path), round(share, 6)] for path, share in candidates]
        text = json.dumps(candidates[0][0]._asdict(), ensure_ascii=False)
        yield Completion(split, row_id, text, "ok", logprob=round(evidence, 6), candidates=shown)
