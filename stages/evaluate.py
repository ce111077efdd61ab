"""Compares the arms: scores with intervals, rows to review, costs, charts, a table and a page with all of them."""

from typing import Any

import pandas as pd

from stages.answers import asked_by, confidences_of, free_scores, predictions_of, said_by, training_usage, usage_of
from stages.context import neighbours
from tillmap.arms import asks_model, proposer
from tillmap.cascade.report import score_routed
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.errors import ParamsError
from tillmap.core.files import OFF, read_table, write_json
from tillmap.core.stored import read_audited, read_neighbours, read_rows, read_suspects
from tillmap.core.taxonomy import KEY, LabelTree
from tillmap.core.writing import new_folder
from tillmap.evaluation.labels_shown import labels_shown
from tillmap.evaluation.ledger import Ledger
from tillmap.evaluation.report import choose_truth
from tillmap.evaluation.review import guesses, review_arms
from tillmap.evaluation.run import Run, show
from tillmap.retrieval import PATHS, RETRIEVERS
from tillmap.splitting.subsets import draw_pilot

# Those of the arms and of the data are only shown.
SHOWN = ("seed", "data.source", "nearest", "linear", "rerank", "rag", "llama", "openai")
PARAMS = (*SHOWN, "run", "review", "evaluate", "provider.prices", "costs", "vote.arms")


def main(params: Params) -> Metrics:
    if not params.run.on:
        raise ParamsError(f"{paths.PARAMS}: every arm is off; switch one on, for example with `-S run.nearest=true`")
    run, promise = read_run(params), params.evaluate.promise
    ledger = Ledger.of(run.usage, run.training, params.provider.prices, params.costs, run.test_rows)
    draws: dict[str, Any] = {"resamples": params.evaluate.resamples, "seed": params.seed}
    with new_folder(paths.REVIEW) as folder:
        held_back = review_arms(
            run.predictions, run.free, run.rows, run.levels,
            target=params.review.target_accuracy, folder=folder, probability=promise,
        )  # fmt: skip
    with new_folder(paths.PLOTS) as plots, new_folder(paths.REPORT) as folder:
        report, scores = show(
            run, ledger, held_back=held_back, labels=suspicious_labels(run), params=vars(params),
            source=params.data.source, plots=plots, folder=folder, probability=promise, **draws,
        )  # fmt: skip
    if report and params.run.cascade:
        scores["cascade"] = score_routed(report.marks, read_routes(), str(proposer(params.run.on)), **draws)
    write_json({"costs": ledger.costs}, paths.METRICS / "costs.json")
    write_json({"scores": scores}, paths.METRICS / "scores.json")
    arms = report.compact() if report else {}
    return {"arms": arms, "scored": run.scored, "rows": len(run.truth), "pilot": run.pilot}


def read_run(params: Params) -> Run:
    arms, rows, levels = params.run.on, read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE)).levels
    predictions, usage = {arm: predictions_of(arm) for arm in arms}, {arm: usage_of(arm) for arm in arms}
    piloted = any(asks_model(arm, [voter for voter in params.vote.arms if voter in arms]) for arm in arms)
    pilot = draw_pilot(rows, params.run.pilot_rows, params.seed) if piloted else None
    return Run(
        rows, levels, choose_truth(rows, predictions, pilot, levels),
        pilot=pilot is not None,
        predictions=predictions,
        free=free_scores(params),
        confidences=confidences_of(arms),
        usage=usage,
        training={arm: training_usage(arm, usage[arm]) for arm in arms},
        completions={arm: said_by(arm) for arm in arms},
        questions={arm: asked_by(arm) for arm in arms if asks_model(arm)},
        neighbours={name: neighbours(name) for name in RETRIEVERS},
        candidates=neighbours(PATHS),
    )  # fmt: skip


def read_routes() -> pd.DataFrame:
    """The role of each row that the cascade answers."""
    return read_rows(paths.CASCADE / "routes.parquet", needed=(*KEY, "role"))


def suspicious_labels(run: Run) -> dict[str, Any] | None:
    """What `audit` found, for the page; None if it is off."""
    if (paths.AUDIT / OFF).is_file():
        return None
    suspects = read_suspects(paths.SUSPECTS, guesses(run.levels))
    return labels_shown(suspects, read_neighbours(paths.SIMILAR), read_audited(paths.SHARE), run.rows, run.levels)


if __name__ == "__main__":
    run_stage(main, PARAMS)
