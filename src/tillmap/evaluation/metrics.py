"""Metrics of an arm (item accuracy, levels, F1, hierarchical F1) and of a retriever (recall of the true path)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, LEVELS, right_labels
from tillmap.evaluation.bootstrap import IntArray, cluster_codes, mean_interval

PREDICTED = {level: f"predicted_{level}" for level in LEVELS}
UNREPAIRED = "none"
RIGHT = {level: f"right_{level}" for level in LEVELS}
_DIGITS = 6  # after the point, in metrics files


def mark(predictions: pd.DataFrame, truth: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Join one arm's predictions to the truth by key, in the truth's order, and mark what is right.

    Args:
        predictions: split, id, the four labels and, where known, confidence, repair, in_tree and source. A null label
            is one that was held back, and wrong. Rows that are not in `truth` are ignored.
        truth: split, id, the four labels and other columns to keep; `product`, if present, makes the clusters.
        arm: for error messages.

    Returns: the columns of `truth`, `predicted_LEVEL`, `right_LEVEL` (that label alone), `right` (all four labels) and
    the other columns of `predictions` named above.

    Raises InputError if a table lacks a column, the truth is empty or has a null label or a repeated key, or a row of
    the truth has no prediction or more than one.
    """
    _require(predictions, [*KEY, *LEVELS], f"the predictions of arm {arm}")
    _require_truth(truth)
    extra = [name for name in ("confidence", "repair", "in_tree", "source") if name in predictions]
    answers = predictions[[*KEY, *LEVELS, *extra]].rename(columns=PREDICTED)
    marks = truth.merge(answers, on=KEY, how="left", indicator="_found")
    again = "expected one prediction per row; run this arm's infer and postprocess again"
    _refuse(marks, marks["_found"] == "left_only", f"arm {arm}: no prediction for", again)
    _refuse(marks, marks.duplicated(KEY), f"arm {arm}: more than one prediction for", again)
    marks = marks.drop(columns="_found")
    for level in LEVELS:
        marks[PREDICTED[level]] = marks[PREDICTED[level]].astype("str")
    right = right_labels(marks[list(PREDICTED.values())].set_axis(LEVELS, axis=1), marks)
    for i, level in enumerate(LEVELS):
        marks[RIGHT[level]] = right[:, i]
    marks["right"] = marks[list(RIGHT.values())].all(axis=1)
    return marks


def clusters_of(marks: pd.DataFrame) -> IntArray | None:
    """The number of each row's product (rows,), or None if the table has no product column."""
    return cluster_codes(marks["product"]) if "product" in marks else None


def score_arm(
    predictions: pd.DataFrame, truth: pd.DataFrame, arm: str, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Score one arm, as numbers for a metrics file. See `mark` for the inputs and errors.

    Keys: rows; item_accuracy and its 95% interval low, high; by level, accuracy (that label), path_accuracy (that label
    and all above it), f1_macro and f1_weighted; hierarchical (precision, recall, f1); and repair (see `repair_gain`) if
    an answer was repaired.
    """
    marks = mark(predictions, truth, arm)
    low, high = mean_interval(marks["right"], clusters_of(marks), resamples=resamples, seed=seed)
    f1 = {level: f1_scores(marks[level], marks[PREDICTED[level]]) for level in LEVELS}
    depths = _right_depths(marks)
    score = {
        "rows": len(marks),
        "item_accuracy": marks["right"].mean(),
        "low": low,
        "high": high,
        "accuracy": {level: marks[RIGHT[level]].mean() for level in LEVELS},
        "path_accuracy": {level: np.mean(depths > i) for i, level in enumerate(LEVELS)},
        "f1_macro": {level: macro for level, (macro, _) in f1.items()},
        "f1_weighted": {level: weighted for level, (_, weighted) in f1.items()},
        "hierarchical": hierarchical_scores(marks),
    }
    if "repair" in marks and (marks["repair"] != UNREPAIRED).any():
        score["repair"] = repair_gain(marks)
    return {name: rounded(value) for name, value in score.items()}


def repair_gain(marks: pd.DataFrame) -> dict[str, Any]:
    """How much the repair of answers helped an arm, from a `mark` table with the column repair.

    `without` is the item accuracy if all repaired answers counted as wrong, and `gained` what they add to it. For each
    kind of repair: its number of `rows`, and how many of them are `right`.
    """
    exact = marks["right"] & (marks["repair"] == UNREPAIRED)
    kinds = marks.groupby("repair", observed=True)["right"].agg(["size", "sum"])
    return {
        "without": float(exact.mean()),
        "gained": float(marks["right"].mean() - exact.mean()),
        **{str(kind): {"rows": int(rows), "right": int(right)} for kind, rows, right in kinds.itertuples()},
    }


def f1_scores(true: pd.Series, predicted: pd.Series) -> tuple[float, float]:
    """The macro and the weighted F1 of one level.

    The macro mean is over all labels that are true or predicted somewhere, so a label that no row has lowers it too.
    The weighted mean weighs each label by its true rows. A null prediction counts for no label and lowers recall only.
    """
    codes, labels = pd.factorize(pd.concat([true.astype("str"), predicted.astype("str")]))
    expected, answered = np.split(codes, 2)
    _, _, scores, rows = precision_recall_fscore_support(
        expected, answered, labels=np.arange(len(labels)), zero_division=0
    )
    return float(np.mean(scores)), float(np.average(scores, weights=rows))


def hierarchical_scores(marks: pd.DataFrame) -> dict[str, float]:
    """Hierarchical precision, recall and F1 over label sets that include all ancestors.

    Kiritchenko, Matwin and Famili (2005): hP = sum |P & T| / sum |P| and hR = sum |P & T| / sum |T| over all rows; F1
    is their harmonic mean. A node is a path down to its level, so a brand under another module is another node. For
    whole paths, which have four nodes each, the three are equal. They differ if lower levels are held back.
    """
    answered = marks[list(PREDICTED.values())].notna().to_numpy().cumprod(axis=1).sum()
    shared = _right_depths(marks).sum()
    precision = float(shared / answered) if answered else 0.0
    recall = float(shared / (len(marks) * len(LEVELS)))
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def score_held_back(marks: pd.DataFrame) -> dict[str, Any]:
    """Score answers whose lower levels may be held back (null), as numbers for a metrics file.

    Keys: hierarchical (precision, recall, f1); by level, answered, the share of rows with an answer down to it, and
    accuracy, the share of these that are right down to it (None if there are none).
    """
    answered = marks[list(PREDICTED.values())].notna().to_numpy().cumprod(axis=1).astype(bool)
    right = marks[list(RIGHT.values())].to_numpy().cumprod(axis=1)
    return {
        "hierarchical": rounded(hierarchical_scores(marks)),
        "answered": {level: rounded(answered[:, i].mean()) for i, level in enumerate(LEVELS)},
        "accuracy": {
            level: rounded(right[answered[:, i], i].mean()) if answered[:, i].any() else None
            for i, level in enumerate(LEVELS)
        },
    }


def recall_table(
    neighbours: pd.DataFrame,
    truth: pd.DataFrame,
    training: pd.DataFrame,
    ks: Sequence[int] = (1, 5, 10, 20),
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Recall at K of a retriever: the share of rows whose true path is among the paths of their first K neighbours.

    Args:
        neighbours: split, id (the query), rank (from 0) and neighbour (an id of `training`).
        truth: see `mark`. A row without neighbours counts as not found.
        training: id and the four labels.
        ks: the values of K. Those larger than the number of neighbours are left out.

    Returns: k, rows, found, recall, low, high (95% interval, clustered by the truth's product).

    Raises InputError if a table lacks a column or a neighbour is not a training row.
    """
    _require(neighbours, [*KEY, "rank", "neighbour"], "the neighbours")
    _require(training, ["id", *LEVELS], "the training rows")
    _require_truth(truth)
    true_paths, training_paths = path_codes(truth, training)
    first = np.full(len(truth), np.iinfo(np.int64).max)
    places = pd.Index(training["id"]).get_indexer(pd.Index(neighbours["neighbour"]))
    unknown = places < 0
    if unknown.any():
        example = neighbours["neighbour"][unknown].iloc[0]
        raise InputError(
            f"neighbours: {unknown.sum():,} of {len(neighbours):,} are not training rows, e.g. id={example}; "
            "run `dvc repro index` to build the index from this split"
        )
    for split, rows in truth.reset_index(drop=True).groupby("split", observed=True):
        asked = (neighbours["split"] == split).to_numpy()
        query = pd.Index(rows["id"]).get_indexer(pd.Index(neighbours["id"][asked]))
        where = rows.index.to_numpy()[query]
        hit = (query >= 0) & (training_paths[places[asked]] == true_paths[where])
        np.minimum.at(first, where[hit], neighbours["rank"].to_numpy()[asked][hit])
    clusters = clusters_of(truth)
    reached = neighbours["rank"].max() + 1 if len(neighbours) else 0
    table = []
    for k in (k for k in ks if k <= reached):
        found = first < k
        low, high = mean_interval(found, clusters, resamples=resamples, seed=seed)
        table.append((k, len(truth), int(found.sum()), found.mean(), low, high))
    return pd.DataFrame(table, columns=["k", "rows", "found", "recall", "low", "high"])


def path_codes(*tables: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """A number for each row's label path, equal for equal paths across the tables. One array (rows,) per table."""
    labels = pd.concat([table[list(LEVELS)].astype("str") for table in tables], ignore_index=True)
    codes = labels.groupby(list(LEVELS), sort=False, dropna=False, observed=True).ngroup().to_numpy(np.int64)
    return np.split(codes, np.cumsum([len(table) for table in tables])[:-1])


def rounded(value: Any) -> Any:
    """A number, or all numbers of nested mappings, rounded to 6 digits; integers and None stay as they are."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, int) else round(float(value), _DIGITS)


def _right_depths(marks: pd.DataFrame) -> npt.NDArray[np.int64]:
    """How many levels of each row are right, counted from the top to the first wrong one (rows,)."""
    return np.asarray(marks[list(RIGHT.values())].to_numpy().cumprod(axis=1).sum(axis=1))


def _require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{what}: no column {', '.join(missing)}; expected {', '.join(columns)}")


def _require_truth(truth: pd.DataFrame) -> None:
    _require(truth, [*KEY, *LEVELS], "the truth")
    if truth.empty:
        raise InputError("the truth: no labelled rows to score against; give rows of a subset that has labels")
    unlabelled = truth[list(LEVELS)].isna().any(axis=1)
    _refuse(truth, unlabelled, "the truth: a label is missing in", "give rows that have all four")
    _refuse(truth, truth.duplicated(KEY), "the truth: a repeated (split, id) in", "give each row once")


def _refuse(table: pd.DataFrame, bad: pd.Series, fault: str, remedy: str) -> None:
    if bad.any():
        split, row = table.loc[bad, KEY].iloc[0]
        raise InputError(f"{fault} {int(bad.sum()):,} rows, e.g. split={split} id={row}; {remedy}")
