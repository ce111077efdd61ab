"""Calibrated confidence: the probability that an answer is right, by a logistic regression on the `calibration` subset.

The regression's inputs ("signals") come from the arm itself and from the candidates of the free arms. Candidate scores
are ranked label paths with shares for each row. Arms that cost money are never inputs, so a confidence can always be
computed without a paid call.
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
from tillmap.core.files import of_this_version, read_as, read_json, write_json
from tillmap.core.taxonomy import KEY, Key, LabelPath, LabelTree, Levels, RankedPaths, right_labels
from tillmap.core.text import normalise

CandidateScores = Mapping[Key, RankedPaths]
Floats = npt.NDArray[np.float64]

ROWS_PER_SIGNAL = 5  # rows of the rarer outcome; Vittinghoff and McCulloch (2007) find 5 to 9 enough
_REPAIRS = ("folded", "parsed", "snapped", "vote")
_EPS = 1e-3  # shares are clipped to [EPS, 1 - EPS], because the log odds of 0 and 1 are infinite
_MIN_SCALE = 1e-3  # a signal with a smaller standard deviation counts as constant
_MIN_LOGPROB = -20.0
_C = 0.1  # LogisticRegression's inverse penalty: the best likelihood on held-out rows of real receipts
_MOVE = 0.1  # of an arm's own log odds: 2.5 points of a confidence of a half
_STEPS = 20
_Z = 1.96  # standard errors on either side of a 95% interval
_DIGITS = 6
_FORMAT = 1
_FOLDS = 10


def candidate_scores(completions: Sequence[Mapping[str, Any]]) -> dict[Key, list[tuple[LabelPath, float]]]:
    """Each row's candidate label paths and their shares, best first, by (split, id)."""
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
    """Compute the signals of each prediction: one row a prediction, in order; all values are finite.

    The most informative columns come first, because a model fitted on few rows uses only the first ones:

    - `support`: the mean share that the arm and each free arm give to the answered path, as log odds.
    - `own`: the arm's own confidence, as log odds.
    - `lead`: the log ratio of the arm's first and second candidate's shares.
    - `logprob`: the answer's log probability, 0 where the arm has none.
    - `ARM_path`, `ARM_chain`, `ARM_brand`: for each free arm, the total share of its candidates with the answer's path,
      with its chain, and with its brand. Without a brand level, `ARM_chain` is the share of the paths with the same
      parent, and there is no `ARM_brand`. `ARM_first`: the share of its first candidate.
    - `letters`, `words`: log(1 + count) for the description.
    - `repair_KIND`: 1 where the answer got that repair.
    - `in_tree`: 1 where `tree` has the path. The column of the predictions may be about more rows, and would leak: a
      calibration row's new path may be known from this row alone.
    - `known_rows`: log(1 + the path's rows in the training subset).

    Args:
        completions: the arm's completions, of the same rows in the same order as `predictions`.
        predictions: a predictions table, not calibrated yet.
        rows: split, id and description of at least these rows.
        free: candidate scores of the free arms by name, without the arm itself.
        tree: the paths of the training subset.

    Raises InputError if completions and predictions are of different rows, or if `rows` lacks one of them.
    """
    keys = list(zip(predictions["split"], predictions["id"], strict=True))
    if keys != [(answer["split"], answer["id"]) for answer in completions]:
        raise InputError("confidence: completions and predictions are not of the same rows; run `dvc repro` again")
    texts = dict(zip(zip(rows["split"], rows["id"], strict=True), rows["description"], strict=True))
    lacking = next((key for key in keys if key not in texts), None)
    if lacking:
        raise InputError(f"confidence: the rows table lacks {lacking[0]} id {lacking[1]}; run `dvc repro` again")
    answers = predictions[["confidence", "repair"]].itertuples(index=False, name=None)
    paths, levels, table = tree.levels.paths(predictions), tree.levels, []
    for key, path, completion, (own, repair) in zip(keys, paths, completions, answers, strict=True):
        ranked = {arm: scores.get(key, ()) for arm, scores in free.items()}
        signals = _of_arm(completion, own) | _of_free_arms(path, ranked, levels) | _of_text(texts[key])
        signals |= {f"repair_{kind}": float(repair == kind) for kind in _REPAIRS}
        signals |= {"in_tree": float(path in tree), "known_rows": log1p(tree.rows_of(path))}
        support = fmean([own, *(signals[f"{arm}_path"] for arm in free)])
        table.append({"support": _log_odds(support), **signals})
    return pd.DataFrame(table, index=predictions.index, dtype=np.float64)


def calibrate(
    predictions: pd.DataFrame, signals: pd.DataFrame, rows: pd.DataFrame, levels: Levels, *, keep_own: bool = False
) -> tuple[pd.DataFrame, "Confidence"]:
    """Replace the arm's own confidences by calibrated ones; also return the model, for new rows.

    The model is fitted on the answered rows of the `calibration` subset. These rows themselves get cross-fitted
    confidences (see `cross_fit`), so a threshold that is chosen on them holds for rows the model has not seen.

    Args:
        predictions: a predictions table.
        signals: the result of `make_signals` for it.
        rows: a rows table with split, id, subset, the levels and, optionally, product.
        levels: the names of the levels.
        keep_own: keep the arm's own confidences (see `Confidence.own`), which were fitted on more rows, unless the
            cross-fitted ones have a better log loss, at 5%.

    Raises InputError if no row of the `calibration` subset was answered.
    """
    truth = rows[rows["subset"] == "calibration"]
    asked = predictions[KEY].reset_index(drop=True)
    place = asked.reset_index(names="place").merge(truth, on=KEY)
    known = place["place"].to_numpy()
    right = np.asarray(right_labels(predictions.iloc[known], place, levels).all(axis=1), dtype=bool)
    out_of_fold = cross_fit(signals.iloc[known], right, place.get("product"))
    if keep_own:
        own = Confidence.own(signals.iloc[known], right)
        gain = _log_loss(own.of(signals.iloc[known]), right) - _log_loss(out_of_fold, right)
        if gain.sum() <= _Z * np.sqrt(len(gain)) * gain.std():
            return predictions.assign(confidence=own.of(signals)), own
    model = Confidence.fit(signals.iloc[known], right)
    confidence = model.of(signals)
    confidence[known] = out_of_fold
    return predictions.assign(confidence=confidence), model


def cross_fit(signals: pd.DataFrame, right: npt.ArrayLike, product: pd.Series | None = None) -> Floats:
    """Compute out-of-fold confidences (rows,): each row's by a model fitted on the other nine folds.

    Rows of the same product share a fold. If there are too few rows to use a signal, nothing can overfit, and all rows
    get the same confidence.
    """
    from sklearn.model_selection import PredefinedSplit

    outcome = np.asarray(right, dtype=bool)
    whole = Confidence.fit(signals, outcome)
    fold = (np.arange(len(signals)) if product is None else pd.factorize(product)[0]) % _FOLDS
    if not whole.names or (fold == fold[0]).all():
        return whole.of(signals)
    confidence = np.empty(len(signals))
    for others, held_out in PredefinedSplit(fold).split():
        confidence[held_out] = Confidence.fit(signals.iloc[others], outcome[others]).of(signals.iloc[held_out])
    return confidence


def _log_loss(confidence: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """The log loss of each row (rows,)."""
    return np.asarray(-np.log(np.clip(np.where(right, confidence, 1 - confidence), _EPS, 1)))


def _of_arm(completion: Mapping[str, Any], own: float) -> dict[str, float]:
    shares = [share for _, share in completion["candidates"] or ()]
    lead = log(max(shares[0], _EPS) / max(shares[1], _EPS)) if len(shares) > 1 else 0.0
    logprob = completion["logprob"]
    return {
        "own": _log_odds(own),
        "lead": lead,
        "logprob": 0.0 if logprob is None else max(logprob, _MIN_LOGPROB),
    }


def _of_free_arms(path: LabelPath, ranked: Mapping[str, RankedPaths], levels: Levels) -> dict[str, float]:
    signals, stem = {}, levels.stem(path)
    for arm, candidates in ranked.items():
        signals[f"{arm}_path"] = sum(share for other, share in candidates if other == path)
        signals[f"{arm}_chain"] = sum(share for other, share in candidates if levels.stem(other) == stem)
        if levels.brand:
            signals[f"{arm}_brand"] = sum(share for other, share in candidates if other[-1] == path[-1])
        signals[f"{arm}_first"] = candidates[0][1] if candidates else 0.0
    return signals


def _of_text(description: str) -> dict[str, float]:
    text = normalise(description)
    return {"letters": log1p(len(text)), "words": log1p(len(text.split()))}


def _log_odds(share: float) -> float:
    share = min(max(share, _EPS), 1 - _EPS)
    return log(share / (1 - share))


@dataclass(frozen=True)
class Confidence:
    """A fitted model: confidence = logistic(intercept + weights @ (signals - means) / scales).

    Attributes:
        kind: `full` uses all signals, `few` the first ones, as many as the rows allow, and `constant` none: there were
            too few rows, or all answers were right, or all wrong. `own` is the arm's own confidence, a bit moved.
        rows: how many rows it was fitted on.
        error: their mean squared error (Brier score), in sample.
        free: the free arms that the signals were made with.
    """

    kind: Literal["full", "few", "constant", "own"]
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
        """Fit a logistic regression with an L2 penalty on held-out rows.

        One signal is used for every `ROWS_PER_SIGNAL` rows of the rarer outcome. The mean confidence of the rows is
        their accuracy. If no signal can be used, the confidence is (right + 1) / (rows + 2), Laplace's rule.

        Args:
            signals: the rows' signals (see `make_signals`).
            right: whether each answer was right (rows,).

        Raises InputError if there is no row, or if signals and outcomes differ in number.
        """
        outcome = np.asarray(right, dtype=bool)
        if not len(outcome) or len(outcome) != len(signals):
            raise InputError(
                f"confidence: {len(signals)} rows of signals, {len(outcome)} outcomes; expected the same number, and "
                "at least one: answer some rows of the calibration subset"
            )
        rarer = int(min(outcome.sum(), (~outcome).sum()))
        names = tuple(signals.columns[: rarer // ROWS_PER_SIGNAL])
        if not names:
            share = (int(outcome.sum()) + 1) / (len(outcome) + 2)
            error = float(np.mean((outcome - share) ** 2))
            return cls("constant", len(outcome), error, log(share / (1 - share)))
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        values = signals[list(names)].to_numpy(np.float64)
        scaler = StandardScaler().fit(values)
        # Dividing by a tiny deviation would let one unusual new row get a confidence of 0 or 1.
        scaler.scale_[scaler.scale_ < _MIN_SCALE] = 1.0
        with threadpool_limits(1):  # for so small a fit, threads cost more than they save
            regression = LogisticRegression(C=_C, max_iter=1000).fit(scaler.transform(values), outcome)
        kind: Literal["full", "few"] = "full" if len(names) == signals.shape[1] else "few"
        # Rounded, because the last digits depend on the machine.
        means, scales, weights = (
            tuple(round(float(value), _DIGITS) for value in each)
            for each in (scaler.mean_, scaler.scale_, regression.coef_[0])
        )
        intercept = round(float(regression.intercept_[0]), _DIGITS)
        model = cls(kind, len(outcome), 0.0, intercept, names, means, scales, weights)
        return replace(model, error=float(np.mean((outcome - model.of(signals)) ** 2)))

    @classmethod
    def own(cls, signals: pd.DataFrame, right: npt.NDArray[np.bool_]) -> Self:
        """The arm's own confidence, with its log odds moved as far as the rows make likely.

        Before any row is seen, the move is normal around 0 with the deviation `_MOVE`. An arm learns its confidence
        from answers of models of fewer rows than its last one, which is a bit better, so it is a bit too modest.

        Args:
            signals: the rows' signals.
            right: whether each answer was right (rows,).
        """
        odds, move = signals["own"].to_numpy(np.float64), 0.0
        for _ in range(_STEPS):  # Newton's method
            chance = 1 / (1 + np.exp(-(odds + move)))
            slope = float((right - chance).sum()) - move / _MOVE**2
            move += slope / (float((chance * (1 - chance)).sum()) + 1 / _MOVE**2)
        model = cls("own", len(right), 0.0, round(move, _DIGITS), ("own",), (0.0,), (1.0,), (1.0,))
        return replace(model, error=float(np.mean((right - model.of(signals)) ** 2)))

    def of(self, signals: pd.DataFrame) -> Floats:
        """The confidence of each row of signals (rows,), 0 to 1. Raises InputError if a signal is missing."""
        missing = ", ".join(name for name in self.names if name not in signals)
        if missing:
            raise InputError(
                f"confidence: no signal {missing}; the model was fitted with other free arms: run `dvc repro` again"
            )
        odds = np.full(len(signals), self.intercept)
        for name, mean, scale, weight in zip(self.names, self.means, self.scales, self.weights, strict=True):
            odds += weight * (signals[name].to_numpy(np.float64) - mean) / scale
        return np.asarray(1 / (1 + np.exp(-odds)))

    def expected_accuracy(self, confidence: npt.ArrayLike) -> tuple[float, float, float]:
        """Estimate the accuracy of rows without labels from their confidences: mean, low and high of a 95% interval.

        The interval is the normal approximation for the rows that the model was fitted on: the fewer they are, the
        wider it is. It assumes that the new rows are like them.
        """
        mean = float(np.mean(np.asarray(confidence, dtype=np.float64)))
        slack = _Z * float(np.sqrt(self.error / self.rows))
        return mean, max(0.0, mean - slack), min(1.0, mean + slack)

    def save(self, path: Path) -> None:
        """Write the parameters to a JSON file."""
        write_json({"format": _FORMAT, **asdict(self)}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InputError if the file is missing, ModelError if it is something else."""
        written = read_json(path)
        if not isinstance(written, dict) or written.pop("format", None) != _FORMAT:
            raise ModelError(
                f"{path}: not a confidence model of this version of tillmap; run `dvc repro` to fit one, or use the "
                "version that made it"
            )
        model = read_as(cls, path, written)
        with of_this_version(path):
            numbers = [model.error, model.intercept, *model.means, *model.scales, *model.weights]
            if not np.isfinite(numbers).all() or 0 in model.scales or model.rows < 1 or model.error < 0:
                raise ValueError("numbers out of range")
            if len({len(each) for each in (model.names, model.means, model.scales, model.weights)}) > 1:
                raise ValueError("the signals' names, means, scales and weights differ in number")
            return model
