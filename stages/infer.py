"""One answer for every row an arm is asked about; killed, it goes on where it was."""

import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import paths
from runner import Metrics, run_arm

from tillmap.answering import answer_all
from tillmap.arms import nearest
from tillmap.checkpoints import check_checkpoint
from tillmap.engines import Completion, Generation, Machine, Question
from tillmap.engines.loading import load_engine
from tillmap.journal import Journal, run_key, state_folder
from tillmap.params import Params
from tillmap.storage import read_json, read_jsonl, read_table, write_jsonl

PARAMS = ("seed", "run.{arm}", "{arm}", "engine")


def main(params: Params, arm: str) -> Metrics:
    target = paths.COMPLETIONS / f"{arm}.jsonl"
    return answer_by_vote(params, target) if arm == "nearest" else answer_by_model(params, arm, target)


def answer_by_vote(params: Params, target: Path) -> Metrics:
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    neighbours = read_table(paths.NEIGHBOURS / f"{params.nearest.retriever}.parquet")
    training = rows[rows["part"] == "train"]
    asked = rows.loc[rows["part"] != "train", ["split", "id"]]
    votes = nearest.vote(neighbours, training, asked, params.nearest.k, params.nearest.power)
    write_jsonl((answer.as_record() for answer in nearest.completions(votes)), target)
    return count(target, time.perf_counter() - began)


def answer_by_model(params: Params, arm: str, target: Path) -> Metrics:
    chosen, model, prompts = getattr(params, arm), paths.BASE / arm, paths.PROMPTS / arm
    check_checkpoint(model)
    machine = Machine(**params.engine.model_dump())
    answers = tuple(read_json(prompts / paths.ANSWERS)) if chosen.constrain == "tree" else None
    generation = Generation(chosen.max_new_tokens, chosen.temperature, params.seed, answers)
    questions = [Question(**record) for record in read_jsonl(prompts / paths.QUESTIONS)]
    key = run_key(
        {"engine": chosen.engine, "machine": asdict(machine), "generation": asdict(generation)},
        [file for folder in (prompts, model) for file in folder.rglob("*") if file.is_file()],
    )
    journal = Journal(state_folder() / "infer" / f"{key}.jsonl")
    answer_all(
        questions, lambda: load_engine(chosen.engine, model, machine, generation), journal, machine.batch_rows, arm
    )
    write_jsonl(journal.records(), target)
    return count(target, journal.seconds)


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
