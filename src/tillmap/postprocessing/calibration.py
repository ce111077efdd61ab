"""How likely each answer is to be right: a small model over what the arm and the free arms say, fitted on the `calibration` subset.

The free arms' candidate_scores are ranked label paths with shares for each row, as `nearest.votes_by_key` gives them. No arm
that costs may be among them, so that a confidence can be had without asking one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import log, log1p
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import read_json, write_json
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.core.text import normalise

Key = tuple[str, int]
CandidateScores = Mapping[Key, Sequence[tuple[LabelPath, float]]]
Floats = npt.NDArray[np.float64]

FREE = ("nearest", "linear")  # the free arms: what they say of a row tells of every arm's answer
ROWS_PER_SIGNAL = 5  # of the rarer outcome; Vittinghoff and McCulloch (2007) find 5 to 9 enough
_REPAIRS = ("folded", "parsed", "snapped", "vote")
_EPS = 1e-3  # shares are kept this far from 0 and 1, where log odds have no end
_MIN_LOGPROB = -20.0
_PENALTY = 0.1  # sklearn's C, on standardised signals: chosen by the likelihood of held-out rows of real receipts
_Z = 1.96  # of a 95% interval
_DIGITS = 6
_FORMAT = 1
_FOLDS = 10


def candidate_scores(completions: Sequence[Mapping[str, Any]]) -> dict[Key, list[tuple[LabelPath, float]]]:
    """The candidates of an arm's completions: each row's label paths with their shares, best first."""
    return {
        (answer["split"], answer["id"]): [(LabelPath(*path), share) for path, share in answer["candidates"] or ()]
        for answer in completions
    }


def make_signals(
    completions: Sequence[Mapping[str, Any]],
    predictions: pd.DataFrame,
    rows: pd.DataFrame,
    free: Mapping[str, CandidateScores],
    tree: LabelTree,
) -> pd.DataFrame:
    """What speaks for and against each answer: a row a prediction, in order; finite floats.

    The first columns are the most telling ones, for a model of few rows takes these alone: `support`, the mean of the
    shares that the arm and each free arm give to the answered path, as log odds; `own`, the arm's own confidence, as
    log odds; `lead`, how much likelier its first candidate is than its second, as a log ratio. Then `logprob`; for each
    free arm the shares it gives to the answer's path, chain and brand, and that of its own first candidate; the text's
    letters and words, as logs; what repair there was; `in_tree`; `known_rows`, the log of the path's training rows.

    Args:
        completions: the arm's, of the same rows in the same order as `predictions`.
        predictions: an uncalibrated predictions table.
        rows: split, id and description of all these rows, and maybe others.
        free: the candidate_scores of the free arms by name, without those of the arm itself.
        tree: the paths of the training subset.

    Raises InputError where completions and predictions are not of the same rows, or `rows` lacks one.
    """
    keys = list(zip(predictions["split"], predictions["id"], strict=True))
    if keys != [(answer["split"], answer["id"]) for answer in completions]:
        raise InputError("confidence: completions and predictions are not of the same rows; run `dvc repro` again")
    texts = dict(zip(zip(rows["split"], rows["id"], strict=True), rows["description"], strict=True))
    lacking = next((key for key in keys if key not in texts), None)
    if lacking:
        raise InputError(f"confidence: the rows table lacks {lacking[0]} id {lacking[1]}; run `dvc repro` again")
    answers = predictions[[*LEVELS, "confidence", "repair", "in_tree"]].itertuples(index=False, name=None)
    table = []
    for key, completion, (*labels, own, repair, in_tree) in zip(keys, completions, answers, strict=True):
        path = LabelPath(*labels)
        believed = {arm: ranked.get(key, ()) for arm, ranked in free.items()}
        signals = _of_arm(completion, own) | _of_free_arms(path, believed) | _of_text(texts[key])
        signals |= {f"repair_{kind}": float(repair == kind) for kind in _REPAIRS}
        signals |= {"in_tree": float(in_tree), "known_rows": log1p(tree.rows_of(path))}
        support = fmean([own, *(signals[f"{arm}_path"] for arm in free)])
        table.append({"support": _log_odds(support), **signals})
    return pd.DataFrame(table, index=predictions.index, dtype=np.float64)


def calibrate(
    predictions: pd.DataFrame, signals: pd.DataFrame, rows: pd.DataFrame
) -> tuple[pd.DataFrame, "Confidence"]:
    """The predictions with a calibrated confidence in place of the arm's own, and the model that gave it.

    It is fitted on those rows of the `calibration` subset that were answered, be they few. These get their confidence from
    models of the others, so that a threshold chosen on them holds for rows that no model has seen. `signals` are those
    of `make_signals`; `rows` is a rows table with split, id, subset, the four levels and maybe product.

    Raises InputError where no row of that part was answered.
    """
    levels = list(LEVELS)
    truth = rows[rows["subset"] == "calibration"]
    asked = predictions[["split", "id"]].reset_index(drop=True)
    place = asked.reset_index(names="place").merge(truth, on=["split", "id"])
    known = place["place"].to_numpy()
    answers = predictions[levels].to_numpy(object)[known]
    right = (answers == place[levels].to_numpy(object)).all(axis=1)
    model = Confidence.fit(signals.iloc[known], right)
    confidence = model.of(signals)
    confidence[known] = cross_fit(signals.iloc[known], right, place.get("product"))
    return predictions.assign(confidence=confidence), model


def cross_fit(signals: pd.DataFrame, right: npt.ArrayLike, product: pd.Series | None = None) -> Floats:
    """The confidence of each of these rows by a model of the other nine tenths (rows,); a product's rows go together.

    Where the rows are too few for any signal there is nothing to overfit, and all get the same.
    """
    outcome = np.asarray(right, dtype=bool)
    whole = Confidence.fit(signals, outcome)
    if not whole.names:
        return whole.of(signals)
    fold = (np.arange(len(signals)) if product is None else pd.factorize(product)[0]) % _FOLDS
    confidence = np.empty(len(signals))
    for held_out in np.unique(fold):
        of_fold = fold == held_out
        others = Confidence.fit(signals[~of_fold], outcome[~of_fold]) if not of_fold.all() else whole
        confidence[of_fold] = others.of(signals[of_fold])
    return confidence


def _of_arm(completion: Mapping[str, Any], own: float) -> dict[str, float]:
    shares = [share for _, share in completion["candidates"] or ()]
    lead = log(max(shares[0], _EPS) / max(shares[1], _EPS)) if len(shares) > 1 else 0.0
    logprob = completion["logprob"]
    return {
        "own": _log_odds(own),
        "lead": lead,
        "logprob": 0.0 if logprob is None else max(logprob, _MIN_LOGPROB),
    }


def _of_free_arms(path: LabelPath, believed: Mapping[str, Sequence[tuple[LabelPath, float]]]) -> dict[str, float]:
    signals = {}
    for arm, ranked in believed.items():
        signals[f"{arm}_path"] = sum(share for other, share in ranked if other == path)
        signals[f"{arm}_chain"] = sum(share for other, share in ranked if other[:3] == path[:3])
        signals[f"{arm}_brand"] = sum(share for other, share in ranked if other.brand == path.brand)
        signals[f"{arm}_first"] = ranked[0][1] if ranked else 0.0
    return signals


def _of_text(description: str) -> dict[str, float]:
    text = normalise(description)
    return {"letters": log1p(len(text)), "words": log1p(len(text.split()))}


def _log_odds(share: float) -> float:
    share = min(max(share, _EPS), 1 - _EPS)
    return log(share / (1 - share))


@dataclass(frozen=True)
class Confidence:
    """A fitted model: a row's confidence is the logistic function of intercept + weights @ (signals - means) / scales.

    kind: `full` has all signals; `few` only the first, as many as the rows allow; `constant` none, for there were too
        few rows, or all came out alike.
    rows: how many it was fitted on. error: their mean squared error (the Brier score), in sample.
    free: the free arms whose candidate_scores the signals are made with.
    """

    kind: Literal["full", "few", "constant"]
    rows: int
    error: float
    intercept: float
    names: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    free: tuple[str, ...] = ()

    @classmethod
    def fit(cls, signals: pd.DataFrame, right: npt.ArrayLike) -> Self:
        """Fit on held-out rows: their signals (see `make_signals`), and which answers were right (booleans).

        A signal is used for every five rows of the rarer outcome. The fit is a logistic regression with an L2 penalty,
        and its mean over these rows is their accuracy. Where no signal can be used, all get (right + 1) / (rows + 2),
        the mean of Laplace's posterior.

        Raises InputError where there is no row, or signals and outcomes differ in number.
        """
        outcome = np.asarray(right, dtype=bool)
        if not len(outcome) or len(outcome) != len(signals):
            raise InputError(
                f"confidence: {len(signals)} rows of signals, {len(outcome)} outcomes; expected as many, and at least "
                "one: answer some rows of the calibration subset"
            )
        rarer = int(min(outcome.sum(), (~outcome).sum()))
        names = tuple(signals.columns[: rarer // ROWS_PER_SIGNAL])
        if not names:
            share = (int(outcome.sum()) + 1) / (len(outcome) + 2)
            error = float(np.mean((outcome - share) ** 2))
            return cls("constant", len(outcome), error, log(share / (1 - share)))
        from sklearn.linear_model import LogisticRegression

        values = signals[list(names)].to_numpy(np.float64)
        means, scales = values.mean(axis=0), values.std(axis=0)
        scales[scales < _EPS] = 1.0
        found = LogisticRegression(C=_PENALTY, max_iter=1000).fit((values - means) / scales, outcome)
        kind: Literal["full", "few"] = "full" if len(names) == signals.shape[1] else "few"
        # Rounded, for the last digits depend on the machine.
        centres, spreads, weights = (
            tuple(round(float(value), _DIGITS) for value in each) for each in (means, scales, found.coef_[0])
        )
        intercept = round(float(found.intercept_[0]), _DIGITS)
        model = cls(kind, len(outcome), 0.0, intercept, names, centres, spreads, weights)
        return replace(model, error=float(np.mean((outcome - model.of(signals)) ** 2)))

    def of(self, signals: pd.DataFrame) -> Floats:
        """The confidence of each row of signals (rows,), 0 to 1. Raises InputError where a signal is missing."""
        missing = [name for name in self.names if name not in signals]
        if missing:
            raise InputError(
                f"confidence: no signal {', '.join(missing)}; it was fitted with other free arms: run `dvc repro` again"
            )
        odds = np.full(len(signals), self.intercept)
        for name, mean, scale, weight in zip(self.names, self.means, self.scales, self.weights, strict=True):
            odds += weight * (signals[name].to_numpy(np.float64) - mean) / scale
        return np.asarray(1 / (1 + np.exp(-odds)))

    def expected_accuracy(self, confidence: npt.ArrayLike) -> tuple[float, float, float]:
        """The expected accuracy of rows without labels, from their confidences, and its 95% interval.

        The accuracy is their mean. The interval is for how little the rows that this was fitted on pin it down, by the
        normal approximation; it holds where the rows are like those.
        """
        mean = float(np.mean(np.asarray(confidence, dtype=np.float64)))
        slack = _Z * float(np.sqrt(self.error / self.rows))
        return mean, max(0.0, mean - slack), min(1.0, mean + slack)

    def save(self, path: Path) -> None:
        """Write one JSON file."""
        write_json({"format": _FORMAT, **asdict(self)}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InputError where it is missing, ModelError where it is something else."""
        written = read_json(path)
        if not isinstance(written, dict) or written.pop("format", None) != _FORMAT:
            raise ModelError(f"{path}: not a confidence model of this version; run `dvc repro` to fit one")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in written.items()
        }
        return cls(**values)
