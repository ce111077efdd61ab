"""One answer for every row an arm is asked about; killed, it goes on where it was."""

import time
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
from runner import Metrics, run_arm

from tillmap import paths
from tillmap.answering import answer_all
from tillmap.arms import linear, nearest, openai
from tillmap.checkpoints import check_adapter, check_checkpoint
from tillmap.costs import PriceList, TokenCounter, cents, most_to_ask, require_budget
from tillmap.engines import Completion, Generation, Machine, Question
from tillmap.engines.loading import load_engine
from tillmap.engines.server import ServerEngine
from tillmap.journal import Journal, run_key, state_folder
from tillmap.openai_jobs.batches import Limits, answer_by_batch
from tillmap.openai_jobs.cancel import run_folder
from tillmap.openai_jobs.client import Service
from tillmap.openai_jobs.requests import Asking
from tillmap.params import Params
from tillmap.storage import read_json, read_jsonl, read_table, write_jsonl
from tillmap.targets import OpenAnswers

PARAMS = ("seed", "run.{arm}", "{arm}", "engine", "provider")
TUNED = ("llama",)


def main(params: Params, arm: str) -> Metrics:
    target = paths.COMPLETIONS / f"{arm}.jsonl"
    if arm == "nearest":
        return answer_by_vote(params, target)
    if arm == "linear":
        return answer_by_linear(target)
    return answer_by_provider(params, target) if arm == "openai" else answer_by_model(params, arm, target)


def answer_by_vote(params: Params, target: Path) -> Metrics:
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    neighbours = read_table(paths.NEIGHBOURS / f"{params.nearest.retriever}.parquet")
    training = rows[rows["part"] == "train"]
    asked = rows.loc[rows["part"] != "train", ["split", "id"]]
    votes = nearest.vote(neighbours, training, asked, params.nearest.k, params.nearest.power)
    write_jsonl((answer.as_record() for answer in nearest.completions(votes)), target)
    return count(target, time.perf_counter() - began)


def answer_by_linear(target: Path) -> Metrics:
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    asked = rows[rows["part"] != "train"]
    answers = linear.answer(paths.MODELS / "linear", asked)
    write_jsonl((answer.as_record() for answer in linear.completions(answers, asked)), target)
    return count(target, time.perf_counter() - began)


def answer_by_model(params: Params, arm: str, target: Path) -> Metrics:
    chosen, prompts = getattr(params, arm), paths.PROMPTS / arm
    model, adapter = find_model(arm)
    machine = Machine(**params.engine.model_dump())
    generation = replace(plan_answers(params, arm), choose=chosen.choose)
    questions = [Question(**record) for record in read_jsonl(prompts / paths.QUESTIONS)]
    folders = [folder for folder in (model, adapter) if folder]
    key = run_key(
        {"engine": chosen.engine, "machine": asdict(machine), "generation": asdict(generation)},
        [prompts / paths.QUESTIONS, *(file for folder in folders for file in folder.rglob("*") if file.is_file())],
    )
    journal = Journal(state_folder() / "infer" / f"{key}.jsonl")
    answer_all(
        questions,
        lambda: load_engine(chosen.engine, model, machine, generation, adapter),
        journal,
        machine.batch_rows,
        arm,
    )
    write_jsonl(journal.records(), target)
    return count(target, journal.seconds) | {"device": device()}


def answer_by_provider(params: Params, target: Path) -> Metrics:
    chosen, provider, prompts = params.openai, params.provider, paths.PROMPTS / "openai"
    began = time.perf_counter()
    job = read_json(paths.MODELS / "openai" / paths.JOB)
    tuned, batch = job["mode"] == "tuned", chosen.engine == "openai_batch"
    questions = [Question(**record) for record in read_jsonl(prompts / paths.QUESTIONS)]
    asking = Asking(
        job["model"],
        plan_answers(params, "openai"),
        stop=openai.stop_of(chosen),
        constraint=chosen.constraint,
        more=chosen.request,
    )
    prices = PriceList.of(provider.prices.model_dump()).asking(tuned=tuned, batch=batch)
    asked = (question.messages for question in questions)
    _, most = most_to_ask(asked, TokenCounter(job["model"]), chosen.max_new_tokens, prices)
    require_budget(f"answering {len(questions)} rows", most, provider.budget_usd, Decimal(str(job["usd"])))
    service = Service(
        provider.base_url,
        provider.key_variable,
        poll_seconds=provider.poll_seconds,
        settle_seconds=provider.settle_seconds,
    )
    settings = {"base_url": provider.base_url, "suffix": provider.suffix, "engine": chosen.engine}
    key = run_key({"kind": "ask", "asking": asdict(asking)} | settings, [prompts / paths.QUESTIONS])
    if batch:
        limits = Limits(provider.requests, provider.file_bytes, provider.enqueued_tokens)
        done = answer_by_batch(
            questions, service, asking, limits=limits, retries=provider.retries, folder=run_folder(key), run=key
        )
        write_jsonl((completion.as_record() for completion in done), target)
    else:
        server = ServerEngine(
            service, asking, concurrency=provider.concurrency, requests_a_minute=provider.requests_a_minute
        )
        journal = Journal(state_folder() / "infer" / f"{key}.jsonl")
        answer_all(questions, lambda: server, journal, 4 * provider.concurrency, "openai")
        write_jsonl(journal.records(), target)
    spent = {"tuned": tuned, "batch": batch, "estimated_usd": cents(most)}
    return count(target, time.perf_counter() - began) | spent


def plan_answers(params: Params, arm: str) -> Generation:
    """How the arm's answers are drawn, and which are allowed to all its questions."""
    chosen, prompts = getattr(params, arm), paths.PROMPTS / arm
    allowed = allowed_to_all(prompts) if chosen.constrain != "off" else {}
    return Generation(chosen.max_new_tokens, chosen.temperature, params.seed, **allowed)


def device() -> str:
    """Where local models run; only asked once an engine may have run here."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def find_model(arm: str) -> tuple[Path, Path | None]:
    """The checkpoint that an arm asks, and the adapter on top of it where a tuned model was not merged."""
    base, tuned = paths.BASE / arm, paths.MODELS / arm
    if arm not in TUNED:
        check_checkpoint(base)
        return base, None
    if (tuned / "config.json").is_file():
        check_checkpoint(tuned)
        return tuned, None
    check_checkpoint(base)
    check_adapter(tuned)
    return base, tuned


def allowed_to_all(prompts: Path) -> dict[str, Any]:
    """What `prompts` wrote of the answers that are allowed, as arguments of `Generation`."""
    written = read_json(prompts / paths.ANSWERS)
    answers, free = written["answers"], written["open_answers"]
    return {
        "answers": tuple(answers) if answers else None,
        "open_answers": OpenAnswers(**free | {"openings": tuple(free["openings"])}) if free else None,
    }


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
