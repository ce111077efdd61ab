"""Tunes a model at OpenAI, or a provider like it, on the openai arm's sample; killed, it follows the same job again."""

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from runner import Metrics, run

from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, write_json
from tillmap.core.run_state import run_key
from tillmap.providers.cancel import run_folder
from tillmap.providers.chat_files import check_examples
from tillmap.providers.client import Service
from tillmap.providers.costs import PriceList, TokenCounter, cents, require_budget
from tillmap.providers.tuning_jobs import Tuning, tune

PARAMS = ("seed", "run.openai", "run.cascade", "cascade.llm", "openai.mode", "openai.model", "train_openai", "provider")


def main(params: Params) -> Metrics:
    if not params.needs("openai"):
        return keep({"off": True})
    chosen, model = params.train_openai, params.openai.model
    if params.openai.mode == "retrieved":
        return keep(record("retrieved", model))
    if chosen.tuned_model:
        return keep(record("tuned", chosen.tuned_model))
    return keep(record("tuned", model) | tune_model(params, paths.PROMPTS / "openai" / paths.TRAINING))


def record(mode: str, model: str) -> dict[str, Any]:
    """Who answers, where nothing was tuned for it."""
    return {
        "mode": mode, "model": model, "job": None, "examples": 0, "trained_tokens": 0, "usd": 0.0,
        "estimated_tokens": 0, "estimated_usd": 0.0,
    }  # fmt: skip


def tune_model(params: Params, examples: Path) -> dict[str, Any]:
    chosen, provider = params.train_openai, params.provider
    counter = TokenCounter(params.openai.model)
    number, tokens = check_examples(examples, counter)
    prices = PriceList.of(provider.prices.model_dump())
    estimate = prices.tuning_cost(tokens * chosen.epochs)
    require_budget(f"tuning on {number} examples", estimate, provider.budget_usd)
    service = Service(
        provider.base_url,
        provider.key_variable,
        poll_seconds=provider.poll_seconds,
        settle_seconds=provider.settle_seconds,
    )
    tuning = Tuning(
        params.openai.model,
        provider.suffix,
        params.seed,
        chosen.epochs,
        chosen.batch_size,
        chosen.learning_rate_multiplier,
    )
    run_name = run_key({"kind": "tune", "base_url": provider.base_url, "tuning": asdict(tuning)}, [examples])
    tuned = tune(service, examples, tuning, run_folder(run_name), run_name)
    billed = tuned["trained_tokens"]
    cost: Decimal = estimate if billed is None else prices.tuning_cost(billed)
    return tuned | {
        "examples": number,
        "trained_tokens": tokens * chosen.epochs if billed is None else billed,
        "usd": cents(cost),
        "estimated_tokens": tokens * chosen.epochs,
        "estimated_usd": cents(estimate),
        "counted_by": counter.method,
        "prices": prices.origin(),
    }


def keep(job: dict[str, Any]) -> Metrics:
    with new_folder(paths.MODELS / "openai") as folder:
        write_json(job, folder / paths.JOB)
    return dict(job)


if __name__ == "__main__":
    run(main, PARAMS)
