"""One answer for every row an arm is asked about; killed, it goes on where it was."""

import time
from pathlib import Path

import pandas as pd
from runner import Metrics, run_arm

from tillmap.arms import linear, nearest
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import Completion, Question
from tillmap.core.files import read_json, read_jsonl, read_table, write_jsonl
from tillmap.llm.asking import ask

PARAMS = ("seed", "run.{arm}", "{arm}", "engine", "provider")


def main(params: Params, arm: str) -> Metrics:
    target = paths.COMPLETIONS / f"{arm}.jsonl"
    if arm == "nearest":
        return answer_by_vote(params, target)
    if arm == "linear":
        return answer_by_linear(target)
    return answer_by_model(params, arm, target)


def answer_by_vote(params: Params, target: Path) -> Metrics:
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    neighbours = read_table(paths.NEIGHBOURS / f"{params.nearest.retriever}.parquet")
    training = rows[rows["subset"] == "train"]
    asked = rows.loc[rows["subset"] != "train", ["split", "id"]]
    votes = nearest.vote(neighbours, training, asked, params.nearest.k, params.nearest.power)
    write_jsonl((answer.as_record() for answer in nearest.completions(votes)), target)
    return count(target, time.perf_counter() - began)


def answer_by_linear(target: Path) -> Metrics:
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    asked = rows[rows["subset"] != "train"]
    answers = linear.answer(paths.MODELS / "linear", asked)
    write_jsonl((answer.as_record() for answer in linear.completions(answers, asked)), target)
    return count(target, time.perf_counter() - began)


def answer_by_model(params: Params, arm: str, target: Path) -> Metrics:
    prompts = paths.PROMPTS / arm
    questions = [Question(**record) for record in read_jsonl(prompts / paths.QUESTIONS)]
    constrained = getattr(params, arm).constrain != "off"
    answers = ask(params, arm, questions, read_json(prompts / paths.ANSWERS) if constrained else {})
    write_jsonl(answers.records, target)
    return count(target, answers.seconds) | answers.notes


def count(target: Path, seconds: float) -> Metrics:
    """What the answers took, over all the rows, those of an earlier, interrupted run included."""
    answers = pd.DataFrame(read_jsonl(target))
    tokens = ["prompt_tokens", "cached_tokens", "completion_tokens"]
    return {
        "rows": len(answers),
        **{status: int((answers["status"] == status).sum()) for status in ("empty", "error")},
        "rows_per_second": round(len(answers) / seconds, 2),
        **{name: int(answers[name].sum()) for name in tokens},
    }


def write_off(arm: str) -> None:
    write_jsonl([Completion(None, None, "", "off").as_record()], paths.COMPLETIONS / f"{arm}.jsonl")


if __name__ == "__main__":
    run_arm(main, PARAMS, write_off)
