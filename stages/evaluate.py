"""Compares the arms: scores with intervals, rows to review, costs, charts, a table and a page with all of them."""

import logging
from typing import Any

import pandas as pd

from stages.answers import asked_by, confidences_of, free_scores, predictions_of, said_by, training_usage, usage_of
from stages.context import neighbours
from tillmap.arms import ARMS, asks_model, proposer
from tillmap.cascade.report import score_routed
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.blocks import CASCADE
from tillmap.config.params import Params
from tillmap.core.errors import ParamsError
from tillmap.core.files import new_folder, read_table, write_json, write_text
from tillmap.core.stored import read_rows
from tillmap.core.taxonomy import LabelTree, Levels
from tillmap.evaluation import report as reports
from tillmap.evaluation.comparison import comparison_table
from tillmap.evaluation.ledger import bill_arms, devices_of, estimate_table, minutes_of
from tillmap.evaluation.page import about_run, render
from tillmap.evaluation.review import review_arms
from tillmap.evaluation.rows_shown import choose_rows, rows_shown
from tillmap.retrieval import PATHS, RETRIEVERS
from tillmap.retrieval.paths import paths_of_neighbours, paths_of_ranking
from tillmap.splitting.subsets import draw_pilot

# Those of the arms and of the data are only shown.
SHOWN = ("seed", "data.source", "nearest", "linear", "rerank", "rag", "llama", "openai")
PARAMS = (*SHOWN, "run", "review", "evaluate", "provider.prices", "costs", "vote.arms")
logger = logging.getLogger("tillmap")
MOST = 20  # of an arm's candidates, whose recall is reported


def main(params: Params) -> Metrics:
    rows, arms = read_rows(paths.ROWS), params.run.on
    if not arms:
        raise ParamsError(f"{paths.PARAMS}: every arm is off; switch one on, for example with `-S run.nearest=true`")
    levels = LabelTree.from_table(read_table(paths.TREE)).levels
    predictions = {arm: predictions_of(arm) for arm in arms}
    usage = {arm: usage_of(arm) for arm in arms}
    piloted = any(asks_model(arm, [voter for voter in params.vote.arms if voter in arms]) for arm in arms)
    pilot = draw_pilot(rows, params.run.pilot_rows, params.seed) if piloted else None
    truth = reports.choose_truth(rows, predictions, pilot, levels)
    draws: dict[str, Any] = {"resamples": params.evaluate.resamples, "seed": params.seed}

    free = free_scores(params)
    with new_folder(paths.REVIEW) as folder:
        held_back = review_arms(
            predictions, free, rows, levels,
            target=params.review.target_accuracy, probability=params.evaluate.promise, folder=folder,
        )  # fmt: skip
    training = {arm: training_usage(arm, usage[arm]) for arm in arms}
    costs = bill_arms(usage, training, params.provider.prices, params.costs, int((rows["subset"] == "test").sum()))
    estimate = estimate_table(costs, usage)
    write_json({"costs": costs}, paths.METRICS / "costs.json")
    if truth.empty:
        return _without_scores(estimate)
    report = reports.make_report(
        predictions, rows, truth, levels, held_back=held_back, confidences=confidences_of(arms), usage=usage,
        probability=params.evaluate.promise, **draws,
    )  # fmt: skip
    training_rows = rows[rows["subset"] == "train"]
    found = {name: paths_of_neighbours(neighbours(name), training_rows, levels) for name in RETRIEVERS}
    found[PATHS] = neighbours(PATHS)
    found |= {arm: paths_of_ranking(ranked, levels, MOST) for arm, ranked in free.items()}
    recall = reports.recall_of(found, truth, levels, **draws)

    with new_folder(paths.PLOTS) as folder:
        losses = {arm: done["losses"] for arm, done in training.items() if done and "losses" in done}
        drawings = reports.draw(report, recall, losses, levels, folder)
        write_text(comparison_table(report.scores) + "\n", folder / paths.TABLE.name)
        write_text(estimate + "\n", folder / paths.ESTIMATE.name)
    scores = report.as_json() | {"recall": reports.by_retriever(recall)}
    if params.run.cascade:
        free_arm = proposer(arms)
        assert free_arm is not None  # the cascade's stage has checked it
        routes = read_table(paths.CASCADE / "routes.parquet")
        scores["cascade"] = score_routed(report.marks, routes, free_arm, **draws)
    write_json({"scores": scores}, paths.METRICS / "scores.json")
    scored = "test" if truth["split"].eq("test").any() else "holdout"
    what = f"{len(truth):,} {scored} rows" + (", drawn at random (run.pilot_rows)" if pilot is not None else "")
    with new_folder(paths.REPORT) as folder:
        page = render(
            report,
            levels,
            run=about_run(params.data.source, rows, truth, what, devices_of(usage, training)),
            params=vars(params),
            drawings=drawings,
            recall=reports.of_whole_paths(recall),
            costs=costs,
            minutes=minutes_of(usage, training),
            rows=rows_to_show(report, predictions, rows, truth, levels),
        )
        write_text(page, folder / "index.html")
    return {"arms": report.compact(), "scored": scored, "rows": len(truth), "pilot": pilot is not None}


def rows_to_show(
    report: reports.Report,
    predictions: reports.Tables,
    rows: pd.DataFrame,
    truth: pd.DataFrame,
    levels: Levels,
) -> Metrics:
    """The rows of the page, with what each arm was asked and said about them."""
    best_first = sorted(predictions, key=lambda arm: -report.scores[arm]["item_accuracy"])
    answers = {arm: predictions[arm] for arm in best_first}
    asking = [arm for arm in best_first if arm == CASCADE or (arm in ARMS and not ARMS[arm].free)]
    return rows_shown(
        choose_rows(answers, rows, truth, levels),
        answers,
        levels,
        truth=truth,
        completions={arm: said_by(arm) for arm in best_first},
        questions={arm: asked_by(arm) for arm in asking},
        neighbours=neighbours("lexical"),
        training=rows[rows["subset"] == "train"],
    )


def _without_scores(estimate: str) -> Metrics:
    """Write what there is if no row has a label to score against: a catalogue of few rows without test labels."""
    said = "No scores: the test rows have no labels, and no labelled row was held out. Give more rows, or test labels."
    logger.warning(said)
    with new_folder(paths.PLOTS) as folder:
        write_text(said + "\n", folder / paths.TABLE.name)
        write_text(estimate + "\n", folder / paths.ESTIMATE.name)
    write_json({"scores": {}}, paths.METRICS / "scores.json")
    with new_folder(paths.REPORT) as folder:
        write_text(f"<!doctype html><meta charset=utf-8><title>tillmap</title><p>{said}\n", folder / "index.html")
    return {"arms": {}, "scored": "none", "rows": 0}


if __name__ == "__main__":
    run_stage(main, PARAMS)
