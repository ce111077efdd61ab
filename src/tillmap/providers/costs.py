"""What the arms cost: dated prices, token counts before a run, and the bill after it, to the cent."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tillmap.core.completions import Message
from tillmap.core.errors import ResourceError

if TYPE_CHECKING:
    import tiktoken

logger = logging.getLogger(__name__)

_MILLION = 1_000_000
# Tokens that OpenAI's chat format adds: start, role, separator and end of each message. A prompt also contains the
# first three of them for the answer to come.
_AROUND_MESSAGE = 4
_BEFORE_ANSWER = 3
# Letters, up to three digits, underscores, signs, or line ends: "milk 500 g | 2.99" has milk, 500, g, |, 2, ., 99.
_PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|_+|[^\w\s]+|[\r\n]+")
_LETTERS_PER_TOKEN = 4
_NEWEST_ENCODING = "o200k_base"


@dataclass(frozen=True)
class TokenPrices:
    """US dollars per million tokens."""

    input: Decimal
    cached_input: Decimal
    output: Decimal

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "TokenPrices":
        """Make prices from params. A float such as 0.15 counts as exactly 0.15."""
        return cls(*(_exact(values[name]) for name in ("input", "cached_input", "output")))

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Decimal:
        """Cost in unrounded dollars. `cached_tokens` are part of `prompt_tokens`."""
        fresh = prompt_tokens - cached_tokens
        total = fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        return total / _MILLION


@dataclass(frozen=True)
class PriceList:
    """A provider's prices for one model on a date: tuned and untuned, immediate and in batches."""

    date: str
    source: str
    training: Decimal
    tuned: TokenPrices
    tuned_batch: TokenPrices
    untuned: TokenPrices
    untuned_batch: TokenPrices

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PriceList":
        """Make a price list from the `prices` block of params."""
        return cls(
            values["date"],
            values["source"],
            _exact(values["training"]),
            *(TokenPrices.of(values[name]) for name in ("tuned", "tuned_batch", "untuned", "untuned_batch")),
        )

    def token_prices(self, *, tuned: bool, batch: bool) -> TokenPrices:
        """The token prices of a tuned or untuned model, in a batch or immediate."""
        return getattr(self, ("tuned" if tuned else "untuned") + ("_batch" if batch else ""))  # type: ignore[no-any-return]

    def tuning_cost(self, tokens: int) -> Decimal:
        """Cost in unrounded dollars of the billed training tokens: those of all examples, times the epochs."""
        return tokens * self.training / _MILLION

    def origin(self) -> dict[str, str]:
        return {"date": self.date, "source": self.source}


def cents(amount: Decimal) -> float:
    """Dollars rounded to the cent, half a cent up."""
    return float(amount.quantize(Decimal("0.01"), ROUND_HALF_UP))


def require_budget(what: str, amount: Decimal, budget_usd: float, spent: Decimal = Decimal(0)) -> None:
    """Log what a run may cost. Raises ResourceError if this and `spent` together are above the budget."""
    logger.info("%s: at most $%.2f, by the prices in params", what, cents(amount))
    if amount + spent > _exact(budget_usd):
        already = f" on top of ${cents(spent):.2f} already spent" if spent else ""
        raise ResourceError(
            f"{what} may cost ${cents(amount):.2f}{already}, above budget_usd {budget_usd:.2f}; nothing was sent: "
            "raise provider.budget_usd, or use fewer rows"
        )


@lru_cache
def _encoding_of(model: str) -> "tiktoken.Encoding | None":
    try:
        import tiktoken

        try:
            return tiktoken.encoding_for_model(model)
        except KeyError:  # not a name of OpenAI's, but another provider's
            return tiktoken.get_encoding(_NEWEST_ENCODING)
    except (ImportError, OSError, ValueError) as error:
        logger.info("tokens are estimated: the encoding of %s is not available (%s)", model, type(error).__name__)
        return None


class TokenCounter:
    """Counts a chat's tokens with the model's own encoding, or estimates them if it is not available, say offline.

    The estimate counts four letters, three digits or a run of signs as one token. On receipt lines with their labels it
    is 8 to 12% above o200k_base; on abbreviated words alone it can be as much below.
    """

    def __init__(self, model: str) -> None:
        self._encoding = _encoding_of(model)

    @property
    def method(self) -> str:
        """How tokens are counted: the encoding's name, or `estimate`."""
        return "estimate" if self._encoding is None else self._encoding.name

    def text(self, text: str) -> int:
        if self._encoding is not None:
            return len(self._encoding.encode(text, disallowed_special=()))
        return sum(-(-len(piece) // _LETTERS_PER_TOKEN) if piece.isalpha() else 1 for piece in _PIECE.findall(text))

    def example(self, messages: Sequence[Message]) -> int:
        """Tokens billed for a training example in one epoch."""
        return sum(self.text(message["content"]) + _AROUND_MESSAGE for message in messages)

    def prompt(self, messages: Sequence[Message]) -> int:
        """Tokens billed for a prompt."""
        return self.example(messages) + _BEFORE_ANSWER


def max_cost(
    questions: Iterable[Sequence[Message]], counter: TokenCounter, max_new_tokens: int, prices: TokenPrices
) -> tuple[int, Decimal]:
    """Prompt tokens of all questions, and the dollars they cost if every answer has the maximum length."""
    lengths = [counter.prompt(messages) for messages in questions]
    return sum(lengths), prices.cost(sum(lengths), 0, len(lengths) * max_new_tokens)


@dataclass(frozen=True)
class Rates:
    """Dollars per hour of your own machines."""

    gpu_usd_per_hour: float
    cpu_usd_per_hour: float

    def cost(self, hours: Mapping[str, float]) -> Decimal:
        """Cost in unrounded dollars of so many hours of `gpu` and `cpu`."""
        usd_per_hour = {"gpu": self.gpu_usd_per_hour, "cpu": self.cpu_usd_per_hour}
        return sum((_exact(hours[kind]) * _exact(rate) for kind, rate in usd_per_hour.items()), Decimal(0))


def bill(
    asked: Mapping[str, Any],
    rates: Rates,
    *,
    prices: PriceList | None = None,
    job: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Compute one arm's entry in the ledger of costs.

    Args:
        asked: what `infer` measured: rows, rows_per_second, prompt_tokens, cached_tokens, completion_tokens, device
            ("gpu" or "cpu") and, for a paid provider, batch, tuned and estimated_usd.
        rates: what your own machines cost.
        prices, job: of a paid provider; `job` is the record of `train_openai`.
        training: seconds and device, for a model trained on your own machine.
    """
    tokens = {name: int(asked.get(name, 0)) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
    api, tuned = Decimal(0), Decimal(0)
    entry: dict[str, Any] = {"rows": asked["rows"], **tokens}
    if prices is not None and job is not None:
        api = prices.token_prices(tuned=asked["tuned"], batch=asked["batch"]).cost(*tokens.values())
        tuned = prices.tuning_cost(job["trained_tokens"])
        entry |= {
            "trained_tokens": job["trained_tokens"],
            "training_usd": cents(tuned),
            "training_estimated_usd": job["estimated_usd"],
            "inference_usd": cents(api),
            "inference_estimated_usd": asked["estimated_usd"],
            "not_in_batch_usd": cents(prices.token_prices(tuned=asked["tuned"], batch=False).cost(*tokens.values())),
            "prices": prices.origin(),
        }
    hours = {"gpu": 0.0, "cpu": 0.0}
    if prices is None:  # waiting for a provider costs no machine time
        hours[asked.get("device", "cpu")] += asked["rows"] / asked["rows_per_second"] / 3600
    answering = api + rates.cost(hours)
    if training is not None:
        hours[training["device"]] += training["seconds"] / 3600
    machine = rates.cost(hours)
    return entry | {
        "gpu_hours": round(hours["gpu"], 4),
        "cpu_hours": round(hours["cpu"], 4),
        "machine_usd": cents(machine),
        "usd": cents(api + tuned + machine),
        "usd_per_1000_rows": round(float(answering * 1000 / asked["rows"]), 6),
    }


def _exact(value: float) -> Decimal:
    return Decimal(str(value))
