"""Asks an arm's language model all of its questions: which model, how, within what budget, and resumed where cut."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from tillmap.arms import openai
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import Question
from tillmap.core.files import read_json
from tillmap.core.run_state import Journal, alone, run_key, state_folder
from tillmap.llm.answer_formats import OpenAnswers
from tillmap.llm.checkpoints import check_adapter, check_checkpoint
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.generation import Generation, Machine
from tillmap.llm.inference import answer_all
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.cancel import run_folder
from tillmap.providers.client import Service
from tillmap.providers.costs import PriceList, TokenCounter, TokenPrices, cents, max_cost, require_budget
from tillmap.providers.requests import Asking
from tillmap.providers.server import ServerEngine

TUNED = ("llama",)
_JOURNAL = "answers.jsonl"


@dataclass(frozen=True)
class Answers:
    """Completions as records, one for each question in order, the seconds they took, and what else was noted."""

    records: list[dict[str, Any]]
    seconds: float
    notes: dict[str, Any]


def ask(params: Params, arm: str, questions: Sequence[Question], allowed: dict[str, Any]) -> Answers:
    """Ask the model of `rag`, `llama` or `openai`; a run that was cut off goes on where it was.

    `allowed` is what `prompts` wrote of the answers that are allowed to all questions. Raises ModelError, ParamsError,
    ProviderError or ResourceError.
    """
    return _ask_provider(params, questions, allowed) if arm == "openai" else _ask_model(params, arm, questions, allowed)


def _ask_model(params: Params, arm: str, questions: Sequence[Question], allowed: dict[str, Any]) -> Answers:
    chosen = getattr(params, arm)
    model, adapter = find_model(arm)
    machine = Machine(**params.engine.model_dump())
    generation = replace(plan_answers(params, arm, allowed), choose=chosen.choose)
    folders = [folder for folder in (model, adapter) if folder]
    key = run_key(
        {
            "engine": chosen.engine,
            "machine": asdict(machine),
            "generation": asdict(generation),
            "questions": _digest(questions),
        },
        (file for folder in folders for file in folder.rglob("*") if file.is_file()),
    )
    folder = state_folder() / "infer" / key
    with alone(folder):
        journal = Journal(folder / _JOURNAL)
        answer_all(
            questions,
            lambda: load_engine(chosen.engine, model, machine, generation, adapter),
            journal,
            machine.batch_rows,
            arm,
        )
    return Answers(list(journal.records()), journal.seconds, {"device": _device()})


def _ask_provider(params: Params, questions: Sequence[Question], allowed: dict[str, Any]) -> Answers:
    chosen, provider = params.openai, params.provider
    began = time.perf_counter()
    job = read_json(paths.MODELS / "openai" / paths.JOB)
    tuned, batch = job["mode"] == "tuned", chosen.engine == "openai_batch"
    asking = Asking(
        job["model"],
        plan_answers(params, "openai", allowed),
        stop=openai.stop_of(chosen),
        constraint=chosen.constraint,
        more=chosen.request,
    )
    prices = prices_of(params, job)
    asked = (question.messages for question in questions)
    _, most = max_cost(asked, TokenCounter(job["model"]), chosen.max_new_tokens, prices)
    require_budget(f"answering {len(questions)} rows", most, provider.budget_usd, Decimal(str(job["usd"])))
    service = Service(
        provider.base_url,
        provider.key_variable,
        poll_seconds=provider.poll_seconds,
        settle_seconds=provider.settle_seconds,
    )
    settings = {"base_url": provider.base_url, "suffix": provider.suffix, "engine": chosen.engine}
    key = run_key({"kind": "ask", "asking": asdict(asking), "questions": _digest(questions)} | settings, [])
    if batch:
        limits = Limits(provider.requests, provider.file_bytes, provider.enqueued_tokens)
        done = answer_by_batch(
            questions, service, asking, limits=limits, retries=provider.retries, folder=run_folder(key), run=key
        )
        records = [completion.as_record() for completion in done]
    else:
        server = ServerEngine(
            service, asking, concurrency=provider.concurrency, requests_a_minute=provider.requests_a_minute
        )
        folder = state_folder() / "infer" / key
        with alone(folder):
            journal = Journal(folder / _JOURNAL)
            answer_all(questions, lambda: server, journal, 4 * provider.concurrency, "openai")
        records = list(journal.records())
    spent = {"tuned": tuned, "batch": batch, "estimated_usd": cents(most)}
    return Answers(records, time.perf_counter() - began, spent)


def prices_of(params: Params, job: Mapping[str, Any]) -> TokenPrices:
    """What the openai arm's questions and answers cost; `job` is the record of `train_openai`."""
    prices = PriceList.of(params.provider.prices.model_dump())
    return prices.asking(tuned=job["mode"] == "tuned", batch=params.openai.engine == "openai_batch")


def plan_answers(params: Params, arm: str, allowed: dict[str, Any]) -> Generation:
    """How the arm's answers are drawn, and which are allowed to all its questions."""
    chosen = getattr(params, arm)
    generation = Generation(chosen.max_new_tokens, chosen.temperature, params.seed)
    if chosen.constrain == "off":
        return generation
    answers, free = allowed["answers"], allowed["open_answers"]
    return replace(
        generation,
        answers=tuple(answers) if answers else None,
        open_answers=OpenAnswers(**free | {"openings": tuple(free["openings"])}) if free else None,
    )


def find_model(arm: str) -> tuple[Path, Path | None]:
    """The checkpoint that an arm asks, and the adapter on top of it where a tuned model was not merged.

    Raises ModelError where one is missing or incomplete.
    """
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


def _digest(questions: Sequence[Question]) -> str:
    digest = hashlib.sha256()
    for question in questions:
        digest.update(json.dumps(question.as_record(), sort_keys=True).encode())
    return digest.hexdigest()


def _device() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
