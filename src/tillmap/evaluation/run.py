"""A run as its stages left it, and all that shows how good its answers are: scores, charts, a table and the report."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.core.files import write_text
from tillmap.core.taxonomy import Levels
from tillmap.evaluation import report as reports
from tillmap.evaluation.comparison import comparison_table
from tillmap.evaluation.ledger import Ledger
from tillmap.evaluation.page import about_run, render
from tillmap.evaluation.recall import by_retriever, of_whole_paths, paths_found, recall_of
from tillmap.evaluation.rows_shown import choose_rows, rows_shown
from tillmap.postprocessing.calibration import CandidateScores, Confidence

logger = logging.getLogger("tillmap")

TABLE, ESTIMATE, PAGE = "table.txt", "estimate.txt", "index.html"
_UNSCORED = "No scores: the test rows have no labels, and no labelled row was held out. Give more rows, or test labels."


@dataclass(frozen=True)
class Run:
    """What the stages before wrote. Mappings are by arm, in the order of params.yaml, if nothing else is said.

    Attributes:
        rows: all rows of the split.
        levels: the names of the levels.
        truth: the rows to score, see `report.choose_truth`.
        pilot: whether `truth` is a sample of the test rows.
        predictions: the predictions tables.
        free: the candidate scores of the free arms.
        confidences: the confidence model of each arm that has one.
        usage: what the answers took.
        training: what the training of the arms' models took; None if nothing was trained.
        completions: the completions, as records.
        questions: the questions of the arms that ask a model, as records.
        neighbours: the neighbours table of each retriever of rows.
        candidates: the paths table of the candidates.
    """

    rows: pd.DataFrame
    levels: Levels
    truth: pd.DataFrame
    pilot: bool
    predictions: Mapping[str, pd.DataFrame]
    free: Mapping[str, CandidateScores]
    confidences: Mapping[str, Confidence]
    usage: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Mapping[str, Any] | None]
    completions: Mapping[str, Iterable[Mapping[str, Any]]]
    questions: Mapping[str, Iterable[Mapping[str, Any]]]
    neighbours: Mapping[str, pd.DataFrame]
    candidates: pd.DataFrame

    @property
    def scored(self) -> str:
        """Which rows are scored: "test", "holdout" or "none"."""
        if self.truth.empty:
            return "none"
        return "test" if self.truth["split"].eq("test").any() else "holdout"

    @property
    def test_rows(self) -> int:
        """How many test rows there are."""
        return int((self.rows["subset"] == "test").sum())


def show(
    run: Run,
    ledger: Ledger,
    *,
    held_back: Mapping[str, pd.DataFrame],
    labels: Mapping[str, Any] | None,
    params: Mapping[str, Any],
    source: object,
    probability: float,
    resamples: int,
    seed: int,
    plots: Path,
    folder: Path,
) -> tuple[reports.Report | None, dict[str, Any]]:
    """Score a run, and write its charts and tables into the folder `plots`, and its report into `folder`.

    Args:
        run: the run.
        ledger: what it took.
        held_back, probability: see `report.make_report`.
        labels: the result of `labels_shown`; None if the audit is off.
        params: blocks of params.yaml, by name, to show.
        source: `data.source`.
        resamples, seed: of the bootstrap.
        plots, folder: two empty folders.

    Returns the report and the JSON value of metrics/scores.json. Without a row to score, the files say so, and there is
    no report.
    """
    write_text(ledger.estimate + "\n", plots / ESTIMATE)
    if run.truth.empty:
        logger.warning(_UNSCORED)
        write_text(_UNSCORED + "\n", plots / TABLE)
        write_text(f"<!doctype html><meta charset=utf-8><title>tillmap</title><p>{_UNSCORED}\n", folder / PAGE)
        return None, {}
    draws: dict[str, Any] = {"resamples": resamples, "seed": seed}
    report = reports.make_report(
        run.predictions, run.rows, run.truth, run.levels, held_back=held_back, confidences=run.confidences,
        usage=run.usage, probability=probability, **draws,
    )  # fmt: skip
    training = run.rows[run.rows["subset"] == "train"]
    found = paths_found(run.neighbours, run.candidates, run.free, training, run.levels)
    recall = recall_of(found, run.truth, run.levels, **draws)
    losses = {arm: done["losses"] for arm, done in run.training.items() if done and "losses" in done}
    drawings = reports.draw(report, recall, losses, run.levels, plots)
    write_text(comparison_table(report.scores) + "\n", plots / TABLE)
    scored = f"{len(run.truth):,} {run.scored} rows" + (", drawn at random (run.pilot_rows)" if run.pilot else "")
    page = render(
        report,
        run.levels,
        run=about_run(source, run.rows, run.truth, scored, ledger.devices),
        params=params,
        drawings=drawings,
        recall=of_whole_paths(recall),
        costs=ledger.costs,
        minutes=ledger.minutes,
        rows=_rows_of(run, report, training),
        labels=labels,
    )
    write_text(page, folder / PAGE)
    return report, report.as_json() | {"recall": by_retriever(recall)}


def _rows_of(run: Run, report: reports.Report, training: pd.DataFrame) -> dict[str, Any]:
    """The rows of the page, with what each arm was asked and said about them."""
    answers = report.best_first(run.predictions)
    return rows_shown(
        choose_rows(answers, run.rows, run.truth, run.levels),
        answers,
        run.levels,
        truth=run.truth,
        completions=run.completions,
        questions={arm: run.questions[arm] for arm in answers if arm in run.questions},
        neighbours=run.neighbours["lexical"],
        training=training,
    )
