"""Sends an arm's questions to a provider, in batches or directly, within the budget; no question is paid for twice."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from tillmap.config.blocks import Provider
from tillmap.core.completions import Question
from tillmap.core.run_state import run_key
from tillmap.llm.interface.generation import Generation
from tillmap.llm.interface.inference import Answers, Save, answer_missing, ask_in_batches
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.cancel import run_folder
from tillmap.providers.client import Service
from tillmap.providers.costs import PriceList, TokenCounter, TokenPrices, cents, max_cost, require_budget
from tillmap.providers.requests import ChatSettings
from tillmap.providers.server import ServerEngine

_ROUNDS = 4  # answers of a server are saved after this many times `provider.concurrency` questions


def ask_provider(
    provider: Provider,
    settings: Any,
    job: Mapping[str, Any],
    questions: Sequence[Question],
    *,
    generation: Generation,
    stop: tuple[str, ...],
    desc: str,
) -> tuple[Answers, dict[str, Any]]:
    """Answer an arm's questions.

    Args:
        provider: the provider's block of params.
        settings: the arm's block of params.
        job: the record of the model to ask (see `tune_model`).
        questions, generation, stop: what to ask, and how long and with which stop texts to answer.
        desc: the label of the progress bar.

    Returns the answers and what `costs.bill` needs: `tuned`, `batch` and `estimated_usd`. Raises ParamsError without a
    key, ProviderError if the provider refuses, ResourceError if the questions may cost more than the budget.
    """
    tuned, batch = job["mode"] == "tuned", settings.engine == "openai_batch"
    chat = _chat_settings(settings, job, generation, stop)
    most = sum(max_costs(provider, settings, job, questions, generation), Decimal(0))
    require_budget(f"answering {len(questions)} rows", most, provider.budget_usd, Decimal(str(job["usd"])))
    model = {"base_url": provider.base_url, "suffix": provider.suffix, "engine": settings.engine}
    # Do not rename these keys: an unfinished run that was paid for would not be found again.
    model_key = run_key({"kind": "ask", "asking": asdict(chat)} | model, [])

    def ask(missing: Sequence[Question], save: Save, _: Path) -> None:
        service = service_of(provider)
        if not batch:
            limits = {"concurrency": provider.concurrency, "requests_a_minute": provider.requests_a_minute}
            engine = ServerEngine(service, chat, **limits)  # type: ignore[arg-type]
            ask_in_batches(missing, engine, save, _ROUNDS * provider.concurrency, desc)
            return
        run = run_key({"model": model_key, "questions": [question.as_record() for question in missing]}, [])
        began = time.perf_counter()
        done = answer_by_batch(
            missing,
            service,
            chat,
            limits=Limits(provider.requests, provider.file_bytes, provider.enqueued_tokens),
            retries=provider.retries,
            folder=run_folder(run),
            run=run,
        )
        save(done, time.perf_counter() - began)

    answers = answer_missing(questions, model_key, ask, desc)
    return answers, {"tuned": tuned, "batch": batch, "estimated_usd": cents(most)}


def max_costs(
    provider: Provider,
    settings: Any,
    job: Mapping[str, Any],
    questions: Sequence[Question],
    generation: Generation,
) -> list[Decimal]:
    """The most that each question costs, in unrounded dollars. The arguments are those of `ask_provider`."""
    counter, prices = TokenCounter(job["model"]), prices_of(provider, settings, job)
    chat = _chat_settings(settings, job, generation)
    return [
        max_cost(question.messages, counter, chat.answer_tokens, prices, chat.schema(question))
        for question in questions
    ]


def _chat_settings(
    settings: Any, job: Mapping[str, Any], generation: Generation, stop: tuple[str, ...] = ()
) -> ChatSettings:
    return ChatSettings(job["model"], generation, stop=stop, constraint=settings.constraint, more=settings.request)


def service_of(provider: Provider) -> Service:
    """Connect to the provider of the params. Raises ParamsError if its key is not in the environment."""
    return Service(
        provider.base_url,
        provider.key_variable,
        poll_seconds=provider.poll_seconds,
        settle_seconds=provider.settle_seconds,
    )


def prices_of(provider: Provider, settings: Any, job: Mapping[str, Any]) -> TokenPrices:
    """The token prices of the model in `job` (see `tune_model`)."""
    prices = PriceList.of(provider.prices.model_dump())
    return prices.token_prices(tuned=job["mode"] == "tuned", batch=settings.engine == "openai_batch")
