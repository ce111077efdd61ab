"""How right an arm is: item accuracy, levels, F1, hierarchical F1, and how well a retriever finds the true path."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS
from tillmap.evaluation.bootstrap import IntArray, cluster_codes, mean_interval

KEY = ["split", "id"]
PREDICTED = {level: f"predicted_{level}" for level in LEVELS}
UNREPAIRED = "none"
RIGHT = {level: f"right_{level}" for level in LEVELS}
_DIGITS = 6  # of the numbers in metrics files


def mark(predictions: pd.DataFrame, truth: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Put one arm's predictions beside the truth, by key, in the truth's order.

    `truth` has split, id, the four labels and whatever else is to be kept (product makes the clusters);
    `predictions` has split, id and the four labels; rows of it that are not asked for are left out. The result has
    the truth's columns, `predicted_LEVEL`, `right_LEVEL` (that label alone), `right` (the item: all four) and those
    of confidence, repair, in_tree and source that are there. A null predicted label is an answer held back: wrong.

    Raises InputError where a table lacks a column, the truth is empty, has a null label or a key twice, or a row
    of the truth has no prediction or more than one.
    """
    _require(predictions, [*KEY, *LEVELS], f"the predictions of arm {arm}")
    _require_truth(truth)
    extra = [name for name in ("confidence", "repair", "in_tree", "source") if name in predictions]
    answers = predictions[[*KEY, *LEVELS, *extra]].rename(columns=PREDICTED)
    marks = truth.merge(answers, on=KEY, how="left", indicator="_found")
    again = "expected one prediction a row; run this arm's infer and postprocess again"
    _refuse(marks, marks["_found"] == "left_only", f"arm {arm}: no prediction for", again)
    _refuse(marks, marks.duplicated(KEY), f"arm {arm}: more than one prediction for", again)
    marks = marks.drop(columns="_found")
    for level in LEVELS:
        marks[PREDICTED[level]] = marks[PREDICTED[level]].astype("str")
        marks[RIGHT[level]] = (marks[level].astype("str") == marks[PREDICTED[level]]).to_numpy(bool)
    marks["right"] = marks[list(RIGHT.values())].all(axis=1)
    return marks


def clusters_of(marks: pd.DataFrame) -> IntArray | None:
    """Number the products of the rows (n,), or None where the table has no product column."""
    return cluster_codes(marks["product"]) if "product" in marks else None


def score_arm(
    predictions: pd.DataFrame, truth: pd.DataFrame, arm: str, *, resamples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Score one arm as numbers for a metrics file, rounded to 6 digits; for the inputs and errors see `mark`.

    Keys: rows; item_accuracy with its 95% interval low, high; accuracy (by level: that label alone), path_accuracy
    (by level: it and all above it), f1_macro and f1_weighted (by level), hierarchical (precision, recall, f1); and
    repair (see `repair_gain`), where some answer was repaired.
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
    """Say what the repair of answers did for an arm, from a `mark` table with the column repair.

    `without` is the item accuracy were only those answers counted that were exactly a path, `gained` what all others
    add to it. For each kind of repair, how many `rows` it had and how many of them came out `right`.
    """
    exact = marks["right"] & (marks["repair"] == UNREPAIRED)
    kinds = marks.groupby("repair", observed=True)["right"].agg(["size", "sum"])
    return {
        "without": float(exact.mean()),
        "gained": float(marks["right"].mean() - exact.mean()),
        **{str(kind): {"rows": int(rows), "right": int(right)} for kind, rows, right in kinds.itertuples()},
    }


def f1_scores(true: pd.Series, predicted: pd.Series) -> tuple[float, float]:
    """Give the macro and the weighted F1 of one level.

    The macro mean runs over every label that is true or predicted somewhere, so a label wrongly made up costs too;
    the weighted mean by the rows a label truly has. A null prediction is no label and only lowers recall.
    """
    codes, labels = pd.factorize(pd.concat([true.astype("str"), predicted.astype("str")]))
    expected, answered = np.split(codes, 2)
    _, _, scores, rows = precision_recall_fscore_support(
        expected, answered, labels=np.arange(len(labels)), zero_division=0
    )
    return float(np.mean(scores)), float(np.average(scores, weights=rows))


def hierarchical_scores(marks: pd.DataFrame) -> dict[str, float]:
    """Give hierarchical precision, recall and F1 over sets augmented with all ancestors.

    Kiritchenko, Matwin and Famili (2005): hP = sum |P & T| / sum |P|, hR = sum |P & T| / sum |T|, summed over rows,
    F1 their harmonic mean. A node is a path down to its level, so a brand under the wrong module is another node.
    Whole paths have four nodes each and make the three equal; they part where an arm holds back its lower levels.
    """
    answered = marks[list(PREDICTED.values())].notna().to_numpy().cumprod(axis=1).sum()
    shared = _right_depths(marks).sum()
    precision = float(shared / answered) if answered else 0.0
    recall = float(shared / (len(marks) * len(LEVELS)))
    f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def score_held_back(marks: pd.DataFrame) -> dict[str, Any]:
    """Score answers that may leave their lower levels null, as numbers for a metrics file.

    Keys: hierarchical (precision, recall, f1); by level answered, the share of the rows that are answered down to
    there, and accuracy, the share of these that are right down to there (None where there are none).
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
    """Give recall at K of a retriever: the share of rows whose true path is among their first K neighbours' paths.

    `neighbours` has split, id (the query), rank (0 the nearest) and neighbour (an id of `training`); `training` has
    id and the four labels. A row with no neighbours is not found; a K that no row's neighbours reach is left out.
    Columns: k, rows, found, recall, low, high (95%, clustered by the truth's product).

    Raises InputError where a table lacks a column or a neighbour is not among the training rows.
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
            "rebuild the index from this split"
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
    """Number the label paths of several tables alike: equal numbers, equal paths. One array (rows,) a table."""
    labels = pd.concat([table[list(LEVELS)].astype("str") for table in tables], ignore_index=True)
    codes = labels.groupby(list(LEVELS), sort=False, dropna=False, observed=True).ngroup().to_numpy(np.int64)
    return np.split(codes, np.cumsum([len(table) for table in tables])[:-1])


def rounded(value: Any) -> Any:
    """A number, or all numbers of nested mappings, as a metrics file has them: with 6 digits; whole ones stay."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, int) else round(float(value), _DIGITS)


def _right_depths(marks: pd.DataFrame) -> npt.NDArray[np.int64]:
    return np.asarray(marks[list(RIGHT.values())].to_numpy().cumprod(axis=1).sum(axis=1))


def _require(table: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise InputError(f"{what}: no column {', '.join(missing)}; expected {', '.join(columns)}")


def _require_truth(truth: pd.DataFrame) -> None:
    _require(truth, [*KEY, *LEVELS], "the truth")
    if truth.empty:
        raise InputError("the truth: no labelled rows to score against; give rows of a part that has labels")
    unlabelled = truth[list(LEVELS)].isna().any(axis=1)
    _refuse(truth, unlabelled, "the truth: a label is missing in", "give rows that have all four")
    _refuse(truth, truth.duplicated(KEY), "the truth: a repeated (split, id) in", "give each row once")


def _refuse(table: pd.DataFrame, bad: pd.Series, fault: str, remedy: str) -> None:
    if bad.any():
        split, row = table.loc[bad, KEY].iloc[0]
        raise InputError(f"{fault} {int(bad.sum()):,} rows, e.g. split={split} id={row}; {remedy}")
