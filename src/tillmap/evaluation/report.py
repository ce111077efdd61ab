"""The evaluation of all arms: scores, slices, the expected accuracy of new rows, and charts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from tillmap.core.csv_files import to_csv
from tillmap.core.files import write_text
from tillmap.core.taxonomy import KEY, Levels
from tillmap.evaluation import charts
from tillmap.evaluation.calibration_curves import (
    answered_from,
    calibration_table,
    coverage_curve,
    expected_calibration_error,
)
from tillmap.evaluation.comparison import compare_arms
from tillmap.evaluation.metrics import WHOLE_PATH, mark, rounded, score_arm, score_held_back
from tillmap.evaluation.promises import promise
from tillmap.evaluation.recall import of_whole_paths
from tillmap.evaluation.slices import catch_all_paths, confusion, costliest_confusions, score_slices, slice_rows
from tillmap.postprocessing.calibration import Confidence

TARGETS = (0.8, 0.9, 0.95)  # target accuracies of the answered rows
OTHER = "other"  # the slice of rows without a catch-all path
NOT_DRAWN = ("all", "source", "in_tree")  # slices without a chart
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Report:
    """Scores by arm, the paired comparison with the reference arm, slices, and the marks behind them.

    `probability` is that of thresholds to keep their target accuracy.
    """

    scores: dict[str, dict[str, Any]]
    versus: pd.DataFrame
    slices: pd.DataFrame
    marks: dict[str, pd.DataFrame]
    probability: float

    def as_json(self) -> dict[str, Any]:
        """Scores and comparison, for metrics/scores.json."""
        return {"arms": self.scores, "versus": self.versus.set_index("arm").to_dict("index")}

    def best_first(self, tables: Tables) -> dict[str, pd.DataFrame]:
        """The tables of arms, that of the most accurate one first."""
        return {arm: tables[arm] for arm in sorted(tables, key=lambda arm: -self.scores[arm]["item_accuracy"])}

    def compact(self) -> dict[str, dict[str, float]]:
        """The figures for `dvc exp show`: item accuracy with its interval, and the accuracy of each level."""
        return {
            arm: {name: score[name] for name in ("item_accuracy", "low", "high")} | score["accuracy"]
            for arm, score in self.scores.items()
        }


def choose_truth(rows: pd.DataFrame, predictions: Tables, pilot: pd.DataFrame | None, levels: Levels) -> pd.DataFrame:
    """The rows to score: the labelled test rows, or if there are none, the holdout rows that all arms answered.

    `pilot` has the split and id of the test rows that every arm answered; None if these are all test rows.
    """
    test = rows[(rows["subset"] == "test") & levels.labelled(rows)]
    if len(test):
        return test if pilot is None else test.merge(pilot, on=KEY)
    holdout = rows[rows["subset"] == "holdout"]
    for table in predictions.values():
        holdout = holdout.merge(table[KEY], on=KEY)
    return holdout


def make_report(
    predictions: Tables,
    rows: pd.DataFrame,
    truth: pd.DataFrame,
    levels: Levels,
    *,
    held_back: Tables,
    confidences: Mapping[str, Confidence],
    usage: Mapping[str, Mapping[str, Any]],
    probability: float,
    resamples: int,
    seed: int,
) -> Report:
    """Score every arm on the rows of `truth`. The first arm is the reference of the comparison.

    Args:
        predictions: each arm's predictions table.
        rows: all rows of the split.
        truth: the rows to score, see `choose_truth`.
        levels: the names of the levels.
        held_back: each arm's answers without the levels that are not confident enough (`review.hold_back`); empty if
            review is off.
        confidences: the confidence model of each arm that has one.
        usage: the rows, rows_per_second and tokens of each arm's answers.
        probability: that a threshold keeps its target accuracy on the test rows.
        resamples, seed: of the bootstrap.
    """
    draws = {"resamples": resamples, "seed": seed}
    training = rows[rows["subset"] == "train"]
    marks = {arm: mark(table, truth, arm, levels) for arm, table in predictions.items()}
    scores = {
        arm: score_arm(table, truth, arm, levels, **draws) | _speed(usage[arm]) for arm, table in predictions.items()
    }
    new = rows.loc[(rows["subset"] == "test") & ~levels.labelled(rows), KEY]
    for arm, table in predictions.items():
        held_out = rows[rows["subset"] == "calibration"].merge(table[KEY], on=KEY)
        known = mark(table, held_out, arm, levels) if len(held_out) else None
        scores[arm]["confidence"] = _calibration(marks[arm], known, probability, int((rows["subset"] == "test").sum()))
        if arm in confidences:
            scores[arm] |= _expect(table, new, confidences[arm])
    versus = compare_arms(marks, next(iter(marks)), **draws)
    for line in versus.itertuples():
        scores[str(line.arm)]["verdict"] = line.verdict
    kinds = slice_rows(truth, training, levels, catch_all_paths(training, levels))
    slices = pd.concat(score_slices(table, kinds, arm, levels, **draws) for arm, table in marks.items())
    for arm, held in held_back.items():
        scores[arm]["held_back"] = score_held_back(mark(held, truth, arm, levels), levels)
    for line in slices[(slices["slice"] == "catch_all") & (slices["value"] == OTHER)].itertuples():
        scores[str(line.arm)]["without_catch_all"] = rounded(
            {"rows": line.rows, "item_accuracy": line.accuracy, "low": line.low, "high": line.high}
        )
    return Report(scores, versus, slices, marks, probability)


def _calibration(marks: pd.DataFrame, known: pd.DataFrame | None, probability: float, new_rows: int) -> dict[str, Any]:
    """The calibration error of an arm on the scored rows, and for each target accuracy a threshold and what it gives.

    The threshold is chosen on the rows of the calibration subset, `known`; coverage (the share of rows answered) and
    accuracy are those of the scored rows. Where there is none, `why` says it. There are no targets if `known` is None.
    """
    found: dict[str, Any] = {"ece": expected_calibration_error(marks["confidence"], marks["right"])}
    if known is not None:
        for target in TARGETS:
            threshold = promise(
                known["confidence"],
                known["right"],
                target,
                probability,
                new_rows=new_rows,
                product=known.get("product"),
            )
            coverage, accuracy = answered_from(marks["confidence"], marks["right"], threshold.value)
            at = {"coverage": coverage} | ({"accuracy": accuracy} if coverage else {})
            reached: dict[str, Any] = {"why": threshold.why} if threshold.why else {"threshold": threshold.value}
            found[f"at_{100 * target:.0f}"] = at | reached
    return dict(rounded(found))


def _expect(predictions: pd.DataFrame, new: pd.DataFrame, confidence: Confidence) -> dict[str, Any]:
    """The expected accuracy of the test rows without labels (split, id), with its interval; empty if there are none."""
    asked = predictions.merge(new, on=KEY)
    if asked.empty:
        return {}
    accuracy, low, high = confidence.expected_accuracy(asked["confidence"])
    return {"expected": rounded({"rows": len(asked), "accuracy": accuracy, "low": low, "high": high})}


def _speed(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Rows per second and tokens per row."""
    tokens = {name: usage.get(name, 0) / usage["rows"] for name in ("prompt_tokens", "completion_tokens")}
    return {"rows_per_second": usage["rows_per_second"], **(tokens if any(tokens.values()) else {})}


def draw(
    report: Report,
    recall: pd.DataFrame,
    losses: Mapping[str, Sequence[Sequence[float]]],
    levels: Levels,
    folder: Path,
) -> dict[str, charts.Drawing]:
    """Draw all charts into a folder, as PNG and CSV. `losses` has (step, loss, learning rate) of each tuned arm.

    Returns the charts by the names of their files, for a page.
    """
    first, last = levels.chain[0], levels.chain[-1]
    marks, slices = report.marks, report.slices
    drawn: dict[str, charts.Drawing] = {}

    def keep(figure: Figure, table: pd.DataFrame, name: str, *, narrow: bool = True) -> None:
        charts.save(figure, table, folder, name)
        drawn[name] = charts.to_svg(figure, name, narrow=narrow)

    arms = pd.DataFrame(
        [
            {"arm": arm, "accuracy": score["item_accuracy"], "low": score["low"], "high": score["high"]}
            for arm, score in report.scores.items()
        ]
    )
    curves = {
        "calibration": (calibration_table, charts.draw_calibration),
        "coverage": (coverage_curve, charts.draw_coverage),
    }
    keep(charts.draw_arms(arms), arms, "arms")
    of_path = of_whole_paths(recall)
    keep(charts.draw_recall(of_path), of_path, "recall")
    of_levels = recall[recall["level"] != WHOLE_PATH]
    keep(charts.draw_level_recall(of_levels), of_levels, "recall_by_level")
    for name, (tabulate, picture) in curves.items():
        table = pd.concat(tabulate(own["confidence"], own["right"]).assign(arm=arm) for arm, own in marks.items())
        keep(picture(table), table, name)
    for way in slices["slice"].unique():
        if way not in NOT_DRAWN:
            table = slices[slices["slice"] == way]
            keep(charts.draw_slices(table, way), table, "by_" + re.sub(r"[^\w-]+", "_", way))
    for arm, own in marks.items():
        matrix = confusion(own, first)
        keep(charts.draw_confusion(matrix, arm, first), matrix, f"confusion_{arm}", narrow=False)
        write_text(to_csv(costliest_confusions(own, last), for_people=True), folder / f"costliest_{arm}.csv")
    for arm, steps in losses.items():
        table = pd.DataFrame(steps, columns=["step", "loss", "learning_rate"])
        keep(charts.draw_loss(table), table, f"loss_{arm}")
    return drawn
