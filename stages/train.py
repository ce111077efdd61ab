"""Trains an arm's model, in the stages train_linear, train_rerank and so on. A killed tuning resumes."""

import time

from stages.context import context_of
from tillmap.arms import ARMS
from tillmap.arms.context import JOB
from tillmap.cli.stages import Metrics, run_arm_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OFF, write_json, write_text
from tillmap.core.writing import new_folder


def params_of(arm: str) -> tuple[str, ...]:
    asked = () if ARMS[arm].free else ("run.cascade", "cascade.llm")  # the cascade may ask an arm that is off
    return ("seed", "run.{arm}", *asked, *ARMS[arm].training_params)


def main(params: Params, arm: str) -> Metrics:
    began = time.perf_counter()
    context = context_of(params, arm)
    with new_folder(paths.MODELS / arm) as folder:
        found = ARMS[arm].train(context, getattr(params, f"train_{arm}", None), folder)
    spent = {"train_seconds": round(time.perf_counter() - began, 3), "device": "cpu"} | found
    write_json(spent, paths.USAGE / f"train_{arm}.json")
    found.pop("losses", None)  # not a metric: `evaluate` draws the curve
    return found


def write_off(arm: str) -> None:
    off = {"off": True}
    with new_folder(paths.MODELS / arm) as folder:
        write_json(off, folder / (JOB if ARMS[arm].paid else OFF))
    write_json(off, paths.USAGE / f"train_{arm}.json")
    if ARMS[arm].curve:
        write_text("", paths.CURVES / f"{arm}.csv")


def wanted(params: Params, arm: str) -> bool:
    return params.is_on(arm) if ARMS[arm].free else params.needs(arm)


if __name__ == "__main__":
    run_arm_stage(main, params_of, write_off, wanted, name="train_{arm}")
