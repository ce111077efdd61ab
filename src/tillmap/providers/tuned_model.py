"""The record of the model that a provider is asked for: tuned now, tuned earlier, or untuned."""

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

from tillmap.config.blocks import Provider, TrainOpenAI
from tillmap.core.run_state import run_key
from tillmap.providers.cancel import run_folder
from tillmap.providers.chat_files import check_examples
from tillmap.providers.costs import PriceList, TokenCounter, cents, require_budget
from tillmap.providers.inference import service_of
from tillmap.providers.tuning_jobs import Tuning, tune


def untuned_record(mode: str, model: str) -> dict[str, Any]:
    """The record of a model for which nothing has to be tuned. `mode` is `tuned` (earlier) or `retrieved`."""
    return {
        "mode": mode, "model": model, "job": None, "examples": 0, "trained_tokens": 0, "usd": 0.0,
        "estimated_tokens": 0, "estimated_usd": 0.0,
    }  # fmt: skip


def tune_model(provider: Provider, chosen: TrainOpenAI, model: str, examples: Path, seed: int) -> dict[str, Any]:
    """Tune `model` on a file of conversations. Returns the record of the tuned model, with what it cost.

    After a kill, another call follows the same job. Raises ParamsError without a key, ProviderError if the provider
    refuses, ResourceError if tuning may cost more than the budget, InputError for a wrong example.
    """
    counter = TokenCounter(model)
    number, tokens = check_examples(examples, counter)
    prices = PriceList.of(provider.prices.model_dump())
    estimate = prices.tuning_cost(tokens * chosen.epochs)
    require_budget(f"tuning on {number} examples", estimate, provider.budget_usd)
    tuning = Tuning(model, provider.suffix, seed, chosen.epochs, chosen.batch_size, chosen.learning_rate_multiplier)
    run = run_key({"kind": "tune", "base_url": provider.base_url, "tuning": asdict(tuning)}, [examples])
    tuned = tune(service_of(provider), examples, tuning, run_folder(run), run)
    billed = tuned["trained_tokens"]
    cost: Decimal = estimate if billed is None else prices.tuning_cost(billed)
    return (
        untuned_record("tuned", model)
        | tuned
        | {
            "examples": number,
            "trained_tokens": tokens * chosen.epochs if billed is None else billed,
            "usd": cents(cost),
            "estimated_tokens": tokens * chosen.epochs,
            "estimated_usd": cents(estimate),
            "counted_by": counter.method,
            "prices": prices.origin(),
        }
    )
