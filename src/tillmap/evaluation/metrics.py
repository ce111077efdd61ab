"""Metrics of an arm (item accuracy, levels, F1, hierarchical F1) and of a retriever (recall of the true path)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, Levels, right_labels
from tillmap.evaluation.bootstrap import IntArray, cluster_codes, mean_interval

PREDICTED, RIGHT = "predicted_{}", "right_{}"  # columns of a marked table, to be filled in with a level's name
UNREPAIRED = ("none", "new_brand")  # answers that are label paths as they stand
WHOLE_PATH = "path"  # beside the levels; no level can have this name
_DIGITS = 6  # after the point, in metrics files


def mark(predictions: pd.DataFrame, truth: pd.DataFrame, arm: str, levels: Levels) -> pd.DataFrame:
    """Join one arm's predictions to the truth by key, in the truth's order, and mark what is right.

    Args:
        predictions: split, id, the levels and, where known, confidence, repair, in_tree and source. A label is null
            from where the path ends, and where it was held back. Rows that are not in `truth` are ignored.
        truth: split, id, the levels and other columns to keep; `product`, if present, makes the clusters.
        arm: for error messages.
        levels: the names of the levels.

    Returns: the columns of `truth`, `predicted_LEVEL`, `right_LEVEL` (that label alone; where the true path has none,
    an answer is right that has none either), `right` (the whole path) and the other columns of `predictions` named
    above.

    Raises InputError if a table lacks a column, the truth is empty or has a row without labels or a repeated key, or a
    row of the truth has no prediction or more than one.
    """
    _require(predictions, [*KEY, *levels], f"the predictions of arm {arm}")
    _require_truth(truth, levels)
    extra = [name for name in ("confidence", "repair", "in_tree", "source") if name in predictions]
    named = {level: PREDICTED.format(level) for level in levels}
    answers = predictions[[*KEY, *levels, *extra]].rename(columns=named)
    marks = truth.merge(answers, on=KEY, how="left", indicator="_found")
    again = "expected one prediction per row; run this arm's infer and postprocess again"
    _refuse(marks, marks["_found"] == "left_only", f"arm {arm}: no prediction for", again)
    _refuse(marks, marks.duplicated(KEY), f"arm {arm}: more than one prediction for", again)
    marks = marks.drop(columns="_found")
    for name in named.values():
        marks[name] = marks[name].astype("str")
    right = right_labels(marks[list(named.values())].set_axis(list(levels), axis=1), marks, levels)
    for i, level in enumerate(levels):
        marks[RIGHT.format(level)] = right[:, i]
    marks["right"] = np.asarray(right.all(axis=1))
    return marks


def clusters_of(marks: pd.DataFrame) -> IntArray | None:
    """The number of each row's product (rows,), or None if the table has no product column."""
    return cluster_codes(marks["product"]) if "product" in marks else None


def score_arm(
    predictions: pd.DataFrame,
    truth: pd.DataFrame,
    arm: str,
    levels: Levels,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score one arm, as numbers for a metrics file. See `mark` for the inputs and errors.

    Keys: rows; item_accuracy (the whole path, where it ends too) and its 95% interval low, high; by level, accuracy
    (that label), path_accuracy (that label and all above it), f1_macro and f1_weighted; hierarchical (precision,
    recall, f1); and repair (see `repair_gain`) if an answer was repaired.

    A level is scored on the rows whose true path reaches it, and left out if there are none.
    """
    marks = mark(predictions, truth, arm, levels)
    low, high = mean_interval(marks["right"], clusters_of(marks), resamples=resamples, seed=seed)
    reached = {level: table for level in levels if len(table := marks[marks[level].notna()])}
    f1 = {level: f1_scores(table[level], table[PREDICTED.format(level)]) for level, table in reached.items()}
    above = _right_above(marks, levels)
    score = {
        "rows": len(marks),
        "item_accuracy": marks["right"].mean(),
        "low": low,
        "high": high,
        "accuracy": {level: table[RIGHT.format(level)].mean() for level, table in reached.items()},
        "path_accuracy": {level: above.loc[table.index, level].mean() for level, table in reached.items()},
        "f1_macro": {level: macro for level, (macro, _) in f1.items()},
        "f1_weighted": {level: weighted for level, (_, weighted) in f1.items()},
        "hierarchical": hierarchical_scores(marks, levels),
    }
    if "repair" in marks and not marks["repair"].isin(UNREPAIRED).all():
        score["repair"] = repair_gain(marks)
    return {name: rounded(value) for name, value in score.items()}


def repair_gain(marks: pd.DataFrame) -> dict[str, Any]:
    """How much the repair of answers helped an arm, from a `mark` table with the column repair.

    `without` is the item accuracy if all repaired answers counted as wrong, and `gained` what they add to it. For each
    kind of repair: its number of `rows`, and how many of them are `right`.
    """
    exact = marks["right"] & marks["repair"].isin(UNREPAIRED)
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


def hierarchical_scores(marks: pd.DataFrame, levels: Levels) -> dict[str, float]:
    """Hierarchical precision, recall and F1 over label sets that include all ancestors.

    Kiritchenko, Matwin and Famili (2005): hP = sum |P & T| / sum |P| and hR = sum |P & T| / sum |T| over all rows; F1
    is their harmonic mean. A node is a path down to its level, so a brand under another module is another node. A path
    has as many nodes as it has labels. Where answers and true paths all have the same number, the three are equal.
    They differ if paths end at different levels, or lower levels are held back.
    """
    answered = marks[[PREDICTED.format(level) for level in levels]].notna().to_numpy().sum()
    true = marks[list(levels)].notna().to_numpy()
    shared = (_right_above(marks, levels).to_numpy() & true).sum()
    precision = float(shared / answered) if answered else 0.0
    recall = float(shared / true.sum())
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def score_held_back(marks: pd.DataFrame, levels: Levels) -> dict[str, Any]:
    """Score answers whose lower levels may be held back (null), as numbers for a metrics file.

    Keys: hierarchical (precision, recall, f1); by level, answered, the share of rows with a label there, and accuracy,
    the share of these that are right down to it (None if there are none).
    """
    answered = {level: marks[PREDICTED.format(level)].notna() for level in levels}
    right = _right_above(marks, levels)
    return {
        "hierarchical": rounded(hierarchical_scores(marks, levels)),
        "answered": {level: rounded(some.mean()) for level, some in answered.items()},
        "accuracy": {
            level: rounded(right.loc[some, level].mean()) if some.any() else None for level, some in answered.items()
        },
    }


def recall_table(
    paths: pd.DataFrame,
    truth: pd.DataFrame,
    levels: Levels,
    *,
    ks: Sequence[int] = (1, 5, 10, 20),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Recall at K of a retriever: how often the truth is among the first K distinct paths that it finds for a row.

    Args:
        paths: split, id (the query), rank (from 0) and the levels, each path once for a query.
        truth: see `mark`. A row without paths counts as not found.
        levels: the names of the levels.
        ks: the values of K. Those above the first that covers all paths found are left out.

    Returns: level, k, rows, found, recall, low, high (95% interval, clustered by the truth's product). `level` is
    `path` for the whole path, or the name of a level: then a path counts that has the true label there, whatever its
    others, and the rows are those whose true path reaches the level.

    Raises InputError if a table lacks a column.
    """
    _require(paths, [*KEY, "rank", *levels], "the paths")
    _require_truth(truth, levels)
    asked = pd.MultiIndex.from_frame(truth[KEY].astype({"split": "str"}))
    query = asked.get_indexer(pd.MultiIndex.from_frame(paths[KEY].astype({"split": "str"})))
    found, query = paths[query >= 0], query[query >= 0]
    rank = found["rank"].to_numpy()
    reached = int(paths["rank"].max()) + 1 if len(paths) else 0
    clusters = clusters_of(truth)
    table = []
    for name, names in [(WHOLE_PATH, list(levels)), *((level, [level]) for level in levels)]:
        codes, true = path_codes(names, found, truth)
        first = np.full(len(truth), np.iinfo(np.int64).max)
        hit = codes == true[query]
        np.minimum.at(first, query[hit], rank[hit])
        scored = np.ones(len(truth), dtype=bool) if name == WHOLE_PATH else truth[name].notna().to_numpy()
        own = None if clusters is None else clusters[scored]
        for k in (k for k, before in zip(ks, (0, *ks), strict=False) if before < reached) if scored.any() else ():
            right = first[scored] < k
            low, high = mean_interval(right, own, resamples=resamples, seed=seed)
            table.append((name, k, int(scored.sum()), int(right.sum()), right.mean(), low, high))
    return pd.DataFrame(table, columns=["level", "k", "rows", "found", "recall", "low", "high"])


def path_codes(levels: Iterable[str], *tables: pd.DataFrame) -> list[npt.NDArray[np.int64]]:
    """A number for each row's label path, equal for equal paths across the tables. One array (rows,) per table."""
    names = list(levels)
    labels = pd.concat([table[names].astype("str") for table in tables], ignore_index=True)
    codes = labels.groupby(names, sort=False, dropna=False, observed=True).ngroup().to_numpy(np.int64)
    return np.split(codes, np.cumsum([len(table) for table in tables])[:-1])


def rounded(value: Any) -> Any:
    """A number, or all numbers of nested mappings, rounded to 6 digits; integers, texts and None stay as they are."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, int | str) else round(float(value), _DIGITS)


def _right_above(marks: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """For each row and level, whether that label and all above it are right: a table with the levels as columns."""
    right = marks[[RIGHT.format(level) for level in levels]].to_numpy(bool)
    return pd.DataFrame(np.logical_and.accumulate(right, axis=1), index=marks.index, columns=list(levels))


def _require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{what}: no column {', '.join(missing)}; expected {', '.join(columns)}")


def _require_truth(truth: pd.DataFrame, levels: Levels) -> None:
    _require(truth, [*KEY, *levels], "the truth")
    if truth.empty:
        raise InputError("the truth: no labelled rows to score against; give rows of a subset that has labels")
    _refuse(truth, ~levels.labelled(truth), "the truth: there is no label in", "give labelled rows")
    _refuse(truth, truth.duplicated(KEY), "the truth: a repeated (split, id) in", "give each row once")


def _refuse(table: pd.DataFrame, bad: pd.Series, fault: str, remedy: str) -> None:
    if bad.any():
        split, row = table.loc[bad, KEY].iloc[0]
        raise InputError(f"{fault} {int(bad.sum()):,} rows, e.g. split={split} id={row}; {remedy}")
