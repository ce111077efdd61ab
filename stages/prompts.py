"""Writes the questions and the training examples of an arm that asks a language model."""

from stages.context import context_of
from tillmap.arms import ARMS
from tillmap.arms.context import ALLOWED, QUESTIONS, TRAINING
from tillmap.cli.stages import Metrics, run_arm_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OFF, write_json, write_jsonl
from tillmap.core.writing import new_folder
from tillmap.splitting.samples import sample_for_training, sample_report
from tillmap.splitting.subsets import rows_to_answer

PARAMS = ("seed", "run.{arm}", "run.cascade", "run.pilot_rows", "cascade.llm", "{arm}")


def main(params: Params, name: str) -> Metrics:
    arm, context, settings = ARMS[name], context_of(params, name), params.block(name)
    rows = context.rows
    # Only rows that something is fitted or scored on: each question costs time or money.
    scored = context.levels.labelled(rows[rows["subset"] == "test"]).any()
    used = rows["subset"].isin(("test", "calibration") if scored else ("test", "calibration", "holdout"))
    asked = rows_to_answer(rows[used], settings.held_out_rows, params.seed, params.run.pilot_rows)
    metrics: Metrics = {"questions": len(asked)}
    with new_folder(paths.PROMPTS / name) as folder:
        allowed = arm.allowed(context)
        if allowed is not None:
            write_json(allowed, folder / ALLOWED)
        write_jsonl((question.as_record() for question in arm.questions(context, asked)), folder / QUESTIONS)
        if arm.tuned:
            training = arm.teaching(context)
            sample = sample_for_training(
                training, context.levels, settings.sample_rows, settings.sample_policy, params.seed
            )
            conversations = arm.training_examples(context, sample)
            write_jsonl(({"messages": messages} for messages in conversations), folder / TRAINING)
            reports = (("sample", sample), ("all", training))
            metrics |= {name: sample_report(some, training, context.levels) for name, some in reports}
    return metrics


def write_off(name: str) -> None:
    with new_folder(paths.PROMPTS / name) as folder:
        write_json({"off": True}, folder / OFF)
        if ARMS[name].tuned:
            write_jsonl([], folder / TRAINING)


if __name__ == "__main__":
    run_arm_stage(main, PARAMS, write_off, Params.needs)
