"""What the arms cost: dated prices, token counts before a run, and the bill after it, to the cent."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from tillmap.core.completions import Message
from tillmap.core.errors import ParamsError, ResourceError

if TYPE_CHECKING:
    import tiktoken

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MILLION = 1_000_000
# Tokens that OpenAI's chat format adds: start, role, separator and end of each message. A prompt also contains the
# first three of them for the answer to come.
_AROUND_MESSAGE = 4
_BEFORE_ANSWER = 3
# Letters, up to three digits, underscores, signs, or line ends: "milk 500 g | 2.99" has milk, 500, g, |, 2, ., 99.
_PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|_+|[^\w\s]+|[\r\n]+")
_LETTERS_PER_TOKEN = 4
# The counts of a completion that a bill is made of, in the order of `TokenPrices.cost`.
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "cache_write_tokens")


@dataclass(frozen=True)
class TokenPrices:
    """US dollars per million tokens. `cache_write` is for prompt tokens that the provider keeps in its cache."""

    input: Decimal
    cached_input: Decimal
    output: Decimal
    cache_write: Decimal

    @classmethod
    def of(cls, values: Mapping[str, float | None]) -> "TokenPrices":
        """Make prices from params. 0.15 counts as exactly 0.15. Without a `cache_write` it is `input`."""
        written = values.get("cache_write")
        prices = [values["input"], values["cached_input"], values["output"], written]
        return cls(*(_exact(values["input"] if price is None else price) for price in prices))  # type: ignore[arg-type]

    def cost(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, cache_write_tokens: int = 0
    ) -> Decimal:
        """Cost in unrounded dollars. `cached_tokens` and `cache_write_tokens` are parts of `prompt_tokens`."""
        fresh = prompt_tokens - cached_tokens - cache_write_tokens
        read = fresh * self.input + cached_tokens * self.cached_input + cache_write_tokens * self.cache_write
        return (read + completion_tokens * self.output) / _MILLION

    def at_most(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """The most that so many tokens cost, in unrounded dollars, whatever the provider's cache does."""
        dearest = max(self.input, self.cached_input, self.cache_write)
        return (prompt_tokens * dearest + completion_tokens * self.output) / _MILLION


@dataclass(frozen=True)
class PriceList:
    """A provider's prices for one model on a date: tuned and untuned, immediate and in batches. None: not known."""

    date: str
    source: str
    training: Decimal | None
    tuned: TokenPrices | None
    tuned_batch: TokenPrices | None
    untuned: TokenPrices
    untuned_batch: TokenPrices

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PriceList":
        """Make a price list from the `prices` block of params."""
        tuned, tuned_batch = (values[name] and TokenPrices.of(values[name]) for name in ("tuned", "tuned_batch"))
        return cls(
            values["date"],
            values["source"],
            None if values["training"] is None else _exact(values["training"]),
            tuned,
            tuned_batch,
            *(TokenPrices.of(values[name]) for name in ("untuned", "untuned_batch")),
        )

    def token_prices(self, *, tuned: bool, batch: bool) -> TokenPrices:
        """The token prices of a tuned or untuned model, in a batch or immediate. Raises ParamsError without a price."""
        name = ("tuned" if tuned else "untuned") + ("_batch" if batch else "")
        prices: TokenPrices | None = getattr(self, name)
        return _known(prices, name)

    def tuning_cost(self, tokens: int) -> Decimal:
        """Cost in unrounded dollars of the billed training tokens: those of all examples, times the epochs.

        Raises ParamsError without a price, unless there are no tokens.
        """
        return tokens * _known(self.training, "training") / _MILLION if tokens else Decimal(0)

    def origin(self) -> dict[str, str]:
        return {"date": self.date, "source": self.source}


def _known(price: T | None, name: str) -> T:
    if price is None:
        raise ParamsError(
            f"provider.prices.{name} is null: nothing can be tuned, or a tuned model be asked, without a price. "
            "`tillmap profile openai-tuned` has OpenAI's; for another provider set its own (0 if it is free)"
        )
    return price


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

        return tiktoken.encoding_for_model(model)
    except (ImportError, OSError, ValueError, KeyError) as error:  # KeyError: tiktoken does not know the model
        logger.info(
            "the encoding of %s is not available (%s): a bill is bounded by bytes, which are 3 to 5 times as many",
            model,
            type(error).__name__,
        )
        return None


class TokenCounter:
    """Counts a chat's tokens with the model's own encoding, or their most if it is not available.

    It is not available offline, and for models that tiktoken does not know. Then every byte (of UTF-8) counts as a
    token: each token of a byte-level encoding, as all of OpenAI's are, stands for one byte or more. Receipt lines have
    3 to 5 bytes per token, so a bill is as many times lower than this bound.
    """

    def __init__(self, model: str) -> None:
        self._encoding = _encoding_of(model)

    @property
    def method(self) -> str:
        """How tokens are counted: the encoding's name, or `bytes`."""
        return "bytes" if self._encoding is None else self._encoding.name

    def text(self, text: str) -> int:
        """The tokens of a text, or their most."""
        if self._encoding is not None:
            return len(self._encoding.encode(text, disallowed_special=()))
        return len(text.encode(errors="surrogatepass"))  # half a surrogate pair is sent as a sign of three bytes

    def example(self, messages: Sequence[Message]) -> int:
        """Tokens billed for a training example in one epoch, or their most."""
        return sum(self.text(message["content"]) + _AROUND_MESSAGE for message in messages)

    def prompt(self, messages: Sequence[Message]) -> int:
        """Tokens billed for a prompt, or their most."""
        return self.example(messages) + _BEFORE_ANSWER

    def likely_prompt(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt, or an estimate of them. For a provider's queue: with the most, batches were too small.

        The estimate counts four letters, three digits or a run of signs as one token. On receipt lines with their
        labels it is 8 to 12% above o200k_base; on abbreviated words alone it can be as much below.
        """
        if self._encoding is not None:
            return self.prompt(messages)
        likely = _BEFORE_ANSWER
        for message in messages:
            pieces = _PIECE.findall(message["content"])
            likely += sum(-(-len(piece) // _LETTERS_PER_TOKEN) if piece.isalpha() else 1 for piece in pieces)
            likely += _AROUND_MESSAGE
        return likely


def max_cost(
    messages: Sequence[Message], counter: TokenCounter, answer_tokens: int, prices: TokenPrices, schema: str = ""
) -> Decimal:
    """The most that one question costs, in unrounded dollars.

    Args:
        messages: the question.
        counter: of the model.
        answer_tokens: the longest answer that the request allows.
        prices: of the model.
        schema: what the request has beside its messages that is billed as part of the prompt.
    """
    return prices.at_most(counter.prompt(messages) + counter.text(schema), answer_tokens)


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
        asked: what `infer` measured: rows, rows_per_second, the tokens of `TOKENS`, device ("gpu" or "cpu") and, for a
            paid provider, batch, tuned and estimated_usd.
        rates: what your own machines cost.
        prices, job: of a paid provider; `job` is the record of `train_openai`.
        training: seconds and device, for a model trained on your own machine.
    """
    tokens = {name: int(asked.get(name, 0)) for name in TOKENS}
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
