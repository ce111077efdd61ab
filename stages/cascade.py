"""Sends the rows below a confidence threshold to a language model, if a trial shows that this raises the accuracy."""

import time

from stages.answers import free_arms, free_scores
from stages.context import context_of
from tillmap.arms import proposer
from tillmap.arms.context import QUESTIONS
from tillmap.arms.rules import AnswerRules
from tillmap.cascade.plan import CascadeInputs, check, make_plan
from tillmap.cascade.roles import ROUTED, TRIAL
from tillmap.cascade.run import run_cascade
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OFF, read_table, write_json, write_jsonl, write_table
from tillmap.core.stored import read_predictions, read_rows
from tillmap.core.taxonomy import LabelTree
from tillmap.core.writing import new_folder
from tillmap.splitting.subsets import draw_pilot

PARAMS = ("seed", "run", "cascade", "rag", "llama", "openai", "engine", "provider", "evaluate.promise")


def main(params: Params) -> Metrics:
    began = time.perf_counter()
    with new_folder(paths.CASCADE) as folder:
        if not params.run.cascade:
            write_json({"off": True}, folder / OFF)
            return {"off": True}
        settings = params.cascade
        check(settings, free_arms(params))
        context = context_of(params, settings.llm)
        inputs = read_inputs(params)
        plan = make_plan(settings, context, inputs, params.provider.budget_usd)
        for role, name in ((TRIAL, "trial.jsonl"), (ROUTED, QUESTIONS)):
            write_jsonl((question.as_record() for question in plan.questions[role]), folder / name)
        write_table(plan.routes, folder / "routes.parquet")
        found = run_cascade(settings, context, inputs, plan)
        write_jsonl(found.completions, folder / "completions.jsonl")
        write_table(found.predictions, folder / "predictions.parquet")
        tests = int((found.predictions["split"] == "test").sum())
        speed = {
            "test_rows": tests,
            "rows_per_second": round(len(found.predictions) / (time.perf_counter() - began), 2),
        }
        write_json(found.report | speed, folder / "usage.json")
    return plan.report | found.report | speed


def read_inputs(params: Params) -> CascadeInputs:
    rows = read_rows(paths.ROWS)
    training = LabelTree.from_table(read_table(paths.TREE))
    free = proposer(params.run.on)
    assert free is not None
    return CascadeInputs(
        free=free,
        predictions=read_predictions(paths.PREDICTIONS / f"{free}.parquet"),
        scores=free_scores(params),
        trees=(training, AnswerRules.load(paths.RULES / free).paths or training),
        probability=params.evaluate.promise,
        pilot=draw_pilot(rows, params.run.pilot_rows, params.seed),
    )


if __name__ == "__main__":
    run_stage(main, PARAMS)
