"""Answers without the levels that are not confident enough, and the rows that a person should label first."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.csv_files import to_csv
from tillmap.core.files import OFF, write_json, write_table, write_text
from tillmap.core.taxonomy import KEY, Levels, right_labels
from tillmap.evaluation.promises import Threshold, promise
from tillmap.postprocessing.calibration import CandidateScores, Confidence, cross_fit

CONFIDENCE, GUESS = "{}_confidence", "guess_{}"  # columns, to be filled in with a level's name
THRESHOLDS = "thresholds.json"  # of each arm: by level, the lowest confidence that is answered, or why none is
_EPS = 1e-3

logger = logging.getLogger(__name__)


def guesses(levels: Levels) -> list[str]:
    """The names of the columns with the path that is proposed for a row."""
    return [GUESS.format(level) for level in levels]


def level_confidences(
    predictions: pd.DataFrame, free: Mapping[str, CandidateScores], rows: pd.DataFrame, levels: Levels
) -> pd.DataFrame:
    """The probability that all labels down to each level are right: `LEVEL_confidence`, one row per prediction.

    For the last level it is the prediction's own confidence. For each level above, a `Confidence` is fitted on the
    `calibration` subset. Its signals are the prediction's confidence and, for each free arm, the total share of the
    candidates with the same labels down to that level. It is at least the confidence of the level below. If no row of
    the calibration subset was answered, all levels get the prediction's own confidence. Below the end of a path, right
    means that the true path has ended there, too.

    Args:
        predictions: one arm's predictions table, with calibrated confidences.
        free: the free arms' candidate scores, by name.
        rows: split, id, subset, the levels and optionally product of these rows.
        levels: their names.
    """
    known, right_to, product = _calibration(predictions, rows, levels)
    found = [predictions["confidence"].to_numpy(np.float64)]  # from the last level to the first
    for depth in range(len(levels) - 1, 0, -1):
        below = found[-1]
        if len(known):
            signals, right = _signals(predictions, free, levels, depth), right_to[:, depth - 1]
            sure = Confidence.fit(signals.iloc[known], right).of(signals)
            sure[known] = cross_fit(signals.iloc[known], right, product)
            below = np.maximum(below, sure)
        found.append(below)
    names = [CONFIDENCE.format(level) for level in levels]
    return pd.DataFrame(dict(zip(names, reversed(found), strict=True)), index=predictions.index)


def level_thresholds(
    predictions: pd.DataFrame,
    confidences: pd.DataFrame,
    rows: pd.DataFrame,
    levels: Levels,
    *,
    target: float,
    probability: float,
) -> list[Threshold]:
    """For each level the lowest confidence from which the labels down to it keep the target accuracy, see `promise`.

    Args:
        predictions: one arm's predictions table.
        confidences: the result of `level_confidences` for it.
        rows: split, id, subset, the levels and optionally product.
        levels: their names.
        target: the accuracy to keep.
        probability: that it is kept, for each level by itself.
    """
    known, right_to, product = _calibration(predictions, rows, levels)
    new_rows = int((rows["subset"] == "test").sum())
    held_out = confidences.to_numpy(np.float64)[known]
    found: list[Threshold] = []
    for sure, right in zip(held_out.T, right_to.T, strict=True):
        own = promise(sure, right, target, probability, new_rows=new_rows, product=product)
        # At least that of the level above: a label is answered only below labels that are.
        found.append(max([own, *found[-1:]], key=lambda each: each.value))
    return found


def review_arms(
    predictions: Mapping[str, pd.DataFrame],
    free: Mapping[str, CandidateScores],
    rows: pd.DataFrame,
    levels: Levels,
    *,
    target: float | None,
    probability: float,
    folder: Path,
) -> dict[str, pd.DataFrame]:
    """Write each arm's answers without the uncertain levels, and the rows to review, into an empty folder.

    `target` is the accuracy of the labels that are left at each level, `probability` that it is kept.

    Returns the result of `hold_back` for each arm. If `target` is None, review is off, and the result is empty.
    """
    if target is None:
        write_json({"off": True}, folder / OFF)
        return {}
    held_back, chosen = {}, {}
    for arm, table in predictions.items():
        confidences = level_confidences(table, free, rows, levels)
        thresholds = level_thresholds(table, confidences, rows, levels, target=target, probability=probability)
        held = hold_back(table, confidences, levels, [threshold.value for threshold in thresholds])
        todo = needs_review(held, table, rows, levels)
        write_table(held, folder / f"{arm}.parquet")
        write_text(to_csv(todo, for_people=True), folder / f"{arm}_needs_review.csv")
        held_back[arm] = held
        chosen[arm] = {
            level: {"why": found.why} if found.why else {"threshold": round(found.value, 6)}
            for level, found in zip(levels, thresholds, strict=True)
        }
        none = next(((level, each.why) for level, each in zip(levels, thresholds, strict=True) if each.why), None)
        if none:
            logger.warning("review: %s answers no row down to %s: %s", arm, *none)
    write_json(chosen, folder / THRESHOLDS)
    return held_back


def hold_back(
    predictions: pd.DataFrame, confidences: pd.DataFrame, levels: Levels, thresholds: Sequence[float]
) -> pd.DataFrame:
    """The predictions, with null for labels from the first level on whose confidence is less than its threshold.

    Columns: split, id, the levels, `answered` (how many levels have a label), and `LEVEL_confidence`.
    """
    sure = (confidences.to_numpy() >= np.asarray(thresholds)).cumprod(axis=1)
    labels = predictions[list(levels)].where(sure.astype(bool))
    return pd.concat([predictions[KEY], labels, confidences], axis=1).assign(answered=labels.notna().sum(axis=1))


def needs_review(held: pd.DataFrame, predictions: pd.DataFrame, rows: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """The test rows with a label held back, in the order in which labelling them should correct the most items.

    The doubt of a row is 1 minus its confidence. Rows of the same product (see `subsets.product_key`) usually need the
    same labels, so labelling one settles the others. The least confident row of a product therefore `teaches` the sum
    of the product's doubts; each other row its own doubt divided by the number of rows. Three rows of one product with
    doubts 0.5, 0.4 and 0.3 teach 1.2, 0.13 and 0.1.

    Columns: split, id, description, retailer, price, the levels (null if held back), `guess_LEVEL` (the prediction for
    each level), `confidence`, `similar` (rows of the same product in the table) and `teaches`.
    """
    proposed = guesses(levels)
    renamed = dict(zip(levels, proposed, strict=True))
    table = held.merge(predictions[[*KEY, *levels, "confidence"]].rename(columns=renamed), on=KEY)
    table = table[table["answered"] < table[proposed].notna().sum(axis=1)]
    table = table.merge(
        rows.loc[rows["subset"] == "test", [*KEY, "description", "retailer", "price", "product"]], on=KEY
    )
    table = table.sort_values(["confidence", *KEY], kind="stable")
    doubt = 1 - table["confidence"]
    same = table.groupby("product", sort=False)
    similar = same["product"].transform("size")
    table["similar"] = similar
    table["teaches"] = doubt.groupby(table["product"]).transform("sum").where(same.cumcount() == 0, doubt / similar)
    shown = [*KEY, "description", "retailer", "price", *levels, *proposed]
    ordered = table.sort_values("teaches", ascending=False, kind="stable", ignore_index=True)
    return ordered[[*shown, "confidence", "similar", "teaches"]].round({"confidence": 4, "teaches": 4})


def _calibration(
    predictions: pd.DataFrame, rows: pd.DataFrame, levels: Levels
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], pd.Series | None]:
    """The predictions for the calibration subset: their places (n,), and whether all is right down to each level.

    The second is (n, levels). The last is the product of each; None if it is not known.

    Raises InputError if a level has no column.
    """
    truth = rows.loc[rows["subset"] == "calibration"]
    place = predictions[KEY].reset_index(drop=True).reset_index(names="place").merge(truth, on=KEY)
    known = place["place"].to_numpy()
    right = np.asarray(right_labels(predictions.iloc[known], place, levels), dtype=bool)
    return known, np.logical_and.accumulate(right, axis=1), place.get("product")


def _signals(
    predictions: pd.DataFrame, free: Mapping[str, CandidateScores], levels: Levels, depth: int
) -> pd.DataFrame:
    """The signals of `level_confidences` for the first `depth` levels: one row per prediction, one column per arm."""
    signals = {"item": _log_odds(predictions["confidence"].to_numpy(np.float64))}
    keys = list(predictions[KEY].itertuples(index=False, name=None))
    answers = [path[:depth] for path in levels.paths(predictions)]
    for name, scores in free.items():
        shares = [
            sum(share for path, share in scores.get(key, ()) if path[:depth] == answer)
            for key, answer in zip(keys, answers, strict=True)
        ]
        signals[name] = _log_odds(np.array(shares))
    return pd.DataFrame(signals, index=predictions.index)


def _log_odds(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(shares, _EPS, 1 - _EPS)
    return np.asarray(np.log(clipped / (1 - clipped)))
