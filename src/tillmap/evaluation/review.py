"""Answers as far down the levels as they are sure, and what a person should label next."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.taxonomy import LEVELS
from tillmap.evaluation.metrics import KEY
from tillmap.postprocessing.calibration import CandidateScores, Confidence, cross_fit

CONFIDENCES = {level: f"{level}_confidence" for level in LEVELS}
_EPS = 1e-3


def level_confidences(
    predictions: pd.DataFrame, free: Mapping[str, CandidateScores], rows: pd.DataFrame
) -> pd.DataFrame:
    """How likely the labels down to each level are all right: `LEVEL_confidence`, a row a prediction, in order.

    The brand's is the prediction's own, calibrated. Each level's above is a `Confidence` over it and over the shares
    that the free arms' candidates with the same labels down to there have together, fitted on the `calibration` subset,
    and never below that of the level under it. Where no row of that part was answered all are the prediction's own.

    Args:
        predictions: of one arm, with calibrated confidences.
        free: the free arms' candidate_scores by name.
        rows: split, id, subset and the four levels of these rows, and maybe product.
    """
    truth = rows.loc[rows["subset"] == "calibration"]
    place = predictions[KEY].reset_index(drop=True).reset_index(names="place").merge(truth, on=KEY)
    known = place["place"].to_numpy()
    given = predictions["confidence"].to_numpy(np.float64)
    same = predictions[list(LEVELS)].to_numpy(object)[known] == place[list(LEVELS)].to_numpy(object)
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


def hold_back(predictions: pd.DataFrame, confidences: pd.DataFrame, least: float) -> pd.DataFrame:
    """The predictions with the labels that are less sure than `least` left null, and the confidence of each level.

    Columns: split, id, the four levels, `answered` (how many of them are), and `LEVEL_confidence`.
    """
    answered = (confidences.to_numpy() >= least).cumprod(axis=1)
    labels = predictions[list(LEVELS)].where(answered.astype(bool))
    return pd.concat([predictions[KEY], labels, confidences], axis=1).assign(answered=answered.sum(axis=1))


def needs_review(held: pd.DataFrame, predictions: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The test rows with a label held back, the one first that teaches most: that should mend the most wrong items.

    Rows of the same product (see `subsets.product_key`) wait for the same answer. The least sure of them teaches the
    sum of all their doubts, one less the confidence in the whole path; each other one, once that is known, its own
    doubt divided by how many there are. So a person who stops anywhere has had the most for the time.

    Columns: split, id, description, retailer, price, the four levels as far as they are answered, `guess_LEVEL` for all
    four, `confidence`, `similar` (rows of the same product that wait, itself included), `teaches`.
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
    signals = {"item": _log_odds(predictions["confidence"].to_numpy(np.float64))}
    answers = list(predictions[[*KEY, *LEVELS]].itertuples(index=False, name=None))
    for name, believed in free.items():
        shares = [
            sum(share for path, share in believed.get((split, row_id), ()) if path[:depth] == tuple(labels[:depth]))
            for split, row_id, *labels in answers
        ]
        signals[name] = _log_odds(np.array(shares))
    return pd.DataFrame(signals, index=predictions.index)


def _log_odds(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(shares, _EPS, 1 - _EPS)
    return np.asarray(np.log(clipped / (1 - clipped)))
