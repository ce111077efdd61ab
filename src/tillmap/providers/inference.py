"""Asks a provider's model an arm's questions, in batches or at once, within a budget, and never the same one twice."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from tillmap.config.blocks import Provider
from tillmap.core.completions import Question
from tillmap.core.run_state import run_key
from tillmap.llm.interface.generation import Generation
from tillmap.llm.interface.inference import Answers, Keep, answer_missing, ask_in_batches
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.cancel import run_folder
from tillmap.providers.client import Service
from tillmap.providers.costs import PriceList, TokenCounter, TokenPrices, cents, max_cost, require_budget
from tillmap.providers.requests import Asking
from tillmap.providers.server import ServerEngine

_BATCHES_UNDER_WAY = 4  # a batch of a server's rows is that many times as long as may be asked at once


def ask_provider(
    provider: Provider,
    settings: Any,
    job: Mapping[str, Any],
    questions: Sequence[Question],
    generation: Generation,
    stop: tuple[str, ...],
    desc: str,
) -> tuple[Answers, dict[str, Any]]:
    """Answers, and what the bill needs to know: whether the model was tuned, asked in batches, and the estimate.

    `settings` is the block of an arm that is asked at a provider; `job` the record of who is asked (`tune_model`).
    Raises ParamsError without a key, ProviderError where the provider refuses, ResourceError over the budget.
    """
    tuned, batch = job["mode"] == "tuned", settings.engine == "openai_batch"
    asking = Asking(job["model"], generation, stop=stop, constraint=settings.constraint, more=settings.request)
    asked = (question.messages for question in questions)
    prices = prices_of(provider, settings, job)
    _, most = max_cost(asked, TokenCounter(job["model"]), settings.max_new_tokens, prices)
    require_budget(f"answering {len(questions)} rows", most, provider.budget_usd, Decimal(str(job["usd"])))
    model = {"base_url": provider.base_url, "suffix": provider.suffix, "engine": settings.engine}
    model_key = run_key({"kind": "ask", "asking": asdict(asking)} | model, [])

    def ask(missing: Sequence[Question], keep: Keep) -> None:
        service = service_of(provider)
        if not batch:
            limits = {"concurrency": provider.concurrency, "requests_a_minute": provider.requests_a_minute}
            engine = ServerEngine(service, asking, **limits)  # type: ignore[arg-type]
            ask_in_batches(missing, engine, keep, _BATCHES_UNDER_WAY * provider.concurrency, desc)
            return
        run = run_key({"model": model_key, "questions": [question.as_record() for question in missing]}, [])
        began = time.perf_counter()
        done = answer_by_batch(
            missing,
            service,
            asking,
            limits=Limits(provider.requests, provider.file_bytes, provider.enqueued_tokens),
            retries=provider.retries,
            folder=run_folder(run),
            run=run,
        )
        keep(done, time.perf_counter() - began)

    answers = answer_missing(questions, model_key, ask, desc)
    return answers, {"tuned": tuned, "batch": batch, "estimated_usd": cents(most)}


def service_of(provider: Provider) -> Service:
    """The provider that the params name. Raises ParamsError where its key is not in the environment."""
    return Service(
        provider.base_url,
        provider.key_variable,
        poll_seconds=provider.poll_seconds,
        settle_seconds=provider.settle_seconds,
    )


def prices_of(provider: Provider, settings: Any, job: Mapping[str, Any]) -> TokenPrices:
    """What questions and answers cost; `job` is the record of who is asked."""
    prices = PriceList.of(provider.prices.model_dump())
    return prices.asking(tuned=job["mode"] == "tuned", batch=settings.engine == "openai_batch")
