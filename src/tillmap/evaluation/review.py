"""Answers without the levels that are not confident enough, and the rows that a person should label first."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.files import OFF, write_json, write_table, write_text
from tillmap.core.taxonomy import KEY, LEVELS, right_labels
from tillmap.postprocessing.calibration import CandidateScores, Confidence, cross_fit

CONFIDENCES = {level: f"{level}_confidence" for level in LEVELS}
_EPS = 1e-3


def level_confidences(
    predictions: pd.DataFrame, free: Mapping[str, CandidateScores], rows: pd.DataFrame
) -> pd.DataFrame:
    """The probability that all labels down to each level are right: `LEVEL_confidence`, one row per prediction.

    For the brand it is the prediction's own confidence. For each level above, a `Confidence` is fitted on the
    `calibration` subset. Its signals are the prediction's confidence and, for each free arm, the total share of the
    candidates with the same labels down to that level. It is at least the confidence of the level below. If no row of
    the calibration subset was answered, all levels get the prediction's own confidence.

    Args:
        predictions: one arm's predictions table, with calibrated confidences.
        free: the free arms' candidate scores, by name.
        rows: split, id, subset, the four levels and optionally product of these rows.
    """
    truth = rows.loc[rows["subset"] == "calibration"]
    place = predictions[KEY].reset_index(drop=True).reset_index(names="place").merge(truth, on=KEY)
    known = place["place"].to_numpy()
    given = predictions["confidence"].to_numpy(np.float64)
    same = right_labels(predictions.iloc[known], place)
    found = {CONFIDENCES["brand"]: given}
    for depth in range(len(LEVELS) - 1, 0, -1):
        below, level = found[CONFIDENCES[LEVELS[depth]]], LEVELS[depth - 1]
        if len(known):
            signals, right = _signals(predictions, free, depth), same[:, :depth].all(axis=1)
            sure = Confidence.fit(signals.iloc[known], right).of(signals)
            sure[known] = cross_fit(signals.iloc[known], right, place.get("product"))
            below = np.maximum(below, sure)
        found[CONFIDENCES[level]] = below
    return pd.DataFrame(found, index=predictions.index)[list(CONFIDENCES.values())]


def review_arms(
    predictions: Mapping[str, pd.DataFrame],
    free: Mapping[str, CandidateScores],
    rows: pd.DataFrame,
    min_confidence: float | None,
    folder: Path,
) -> dict[str, pd.DataFrame]:
    """Write each arm's answers without the uncertain levels, and the rows to review, into an empty folder.

    Returns the result of `hold_back` for each arm. If `min_confidence` is None, review is off, and the result is empty.
    """
    if min_confidence is None:
        write_json({"off": True}, folder / OFF)
        return {}
    held_back = {}
    for arm, table in predictions.items():
        held = hold_back(table, level_confidences(table, free, rows), min_confidence)
        todo = needs_review(held, table, rows)
        write_table(held, folder / f"{arm}.parquet")
        write_text(todo.to_csv(index=False, lineterminator="\n"), folder / f"{arm}_needs_review.csv")
        held_back[arm] = held
    return held_back


def hold_back(predictions: pd.DataFrame, confidences: pd.DataFrame, min_confidence: float) -> pd.DataFrame:
    """The predictions, with null for labels below the first level whose confidence is less than `min_confidence`.

    Columns: split, id, the four levels, `answered` (how many levels have a label), and `LEVEL_confidence`.
    """
    answered = (confidences.to_numpy() >= min_confidence).cumprod(axis=1)
    labels = predictions[list(LEVELS)].where(answered.astype(bool))
    return pd.concat([predictions[KEY], labels, confidences], axis=1).assign(answered=answered.sum(axis=1))


def needs_review(held: pd.DataFrame, predictions: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The test rows with a label held back, in the order in which labelling them should correct the most items.

    The doubt of a row is 1 minus its confidence. Rows of the same product (see `subsets.product_key`) usually need the
    same labels, so labelling one settles the others. The least confident row of a product therefore `teaches` the sum
    of the product's doubts; each other row its own doubt divided by the number of rows. Three rows of one product with
    doubts 0.5, 0.4 and 0.3 teach 1.2, 0.13 and 0.1.

    Columns: split, id, description, retailer, price, the four levels (null if held back), `guess_LEVEL` (the prediction
    for each level), `confidence`, `similar` (rows of the same product in the table) and `teaches`.
    """
    table = held[held["answered"] < len(LEVELS)].merge(
        predictions[[*KEY, *LEVELS, "confidence"]].rename(columns={level: f"guess_{level}" for level in LEVELS}), on=KEY
    )
    table = table.merge(
        rows.loc[rows["subset"] == "test", [*KEY, "description", "retailer", "price", "product"]], on=KEY
    )
    table = table.sort_values(["confidence", *KEY], kind="stable")
    doubt = 1 - table["confidence"]
    same = table.groupby("product", sort=False)
    similar = same["product"].transform("size")
    table["similar"] = similar
    table["teaches"] = doubt.groupby(table["product"]).transform("sum").where(same.cumcount() == 0, doubt / similar)
    shown = [*KEY, "description", "retailer", "price", *LEVELS, *(f"guess_{level}" for level in LEVELS)]
    ordered = table.sort_values("teaches", ascending=False, kind="stable", ignore_index=True)
    return ordered[[*shown, "confidence", "similar", "teaches"]].round({"confidence": 4, "teaches": 4})


def _signals(predictions: pd.DataFrame, free: Mapping[str, CandidateScores], depth: int) -> pd.DataFrame:
    """The signals of `level_confidences` for the first `depth` levels: one row per prediction, one column per arm."""
    signals = {"item": _log_odds(predictions["confidence"].to_numpy(np.float64))}
    answers = list(predictions[[*KEY, *LEVELS]].itertuples(index=False, name=None))
    for name, scores in free.items():
        shares = [
            sum(share for path, share in scores.get((split, row_id), ()) if path[:depth] == tuple(labels[:depth]))
            for split, row_id, *labels in answers
        ]
        signals[name] = _log_odds(np.array(shares))
    return pd.DataFrame(signals, index=predictions.index)


def _log_odds(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(shares, _EPS, 1 - _EPS)
    return np.asarray(np.log(clipped / (1 - clipped)))
