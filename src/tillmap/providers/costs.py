"""What the arms cost: prices with their date, tokens counted before a run, and the bill after it, to the cent."""

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
# Of OpenAI's chat format: start of message, role, separator and end around each message's text. A prompt also holds
# the first three of the answer to come.
_AROUND_MESSAGE = 4
_BEFORE_ANSWER = 3
_PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|_+|[^\w\s]+|[\r\n]+")
_LETTERS_PER_TOKEN = 4
_NEWEST_ENCODING = "o200k_base"


@dataclass(frozen=True)
class TokenPrices:
    """US dollars per million tokens of asking a model."""

    input: Decimal
    cached_input: Decimal
    output: Decimal

    @classmethod
    def of(cls, values: Mapping[str, float]) -> "TokenPrices":
        """From params; a float such as 0.15 is taken as it is written."""
        return cls(*(_exact(values[name]) for name in ("input", "cached_input", "output")))

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Decimal:
        """Unrounded dollars. `cached_tokens` are part of `prompt_tokens`."""
        fresh = prompt_tokens - cached_tokens
        total = fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output
        return total / _MILLION


@dataclass(frozen=True)
class PriceList:
    """A provider's prices for one model, tuned and untuned, asked at once or in batches, as of a date."""

    date: str
    source: str
    training: Decimal
    tuned: TokenPrices
    tuned_batch: TokenPrices
    untuned: TokenPrices
    untuned_batch: TokenPrices

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PriceList":
        """From the `prices` block of params."""
        return cls(
            values["date"],
            values["source"],
            _exact(values["training"]),
            *(TokenPrices.of(values[name]) for name in ("tuned", "tuned_batch", "untuned", "untuned_batch")),
        )

    def asking(self, *, tuned: bool, batch: bool) -> TokenPrices:
        """What tokens cost of a tuned or untuned model, in a batch or at once."""
        return getattr(self, ("tuned" if tuned else "untuned") + ("_batch" if batch else ""))  # type: ignore[no-any-return]

    def tuning_cost(self, tokens: int) -> Decimal:
        """Unrounded dollars for billed training tokens: those of all examples, times the epochs."""
        return tokens * self.training / _MILLION

    def origin(self) -> dict[str, str]:
        return {"date": self.date, "source": self.source}


def cents(amount: Decimal) -> float:
    """Dollars rounded to the cent, half a cent up."""
    return float(amount.quantize(Decimal("0.01"), ROUND_HALF_UP))


def require_budget(what: str, amount: Decimal, budget_usd: float, spent: Decimal = Decimal(0)) -> None:
    """Say what a run costs; raise ResourceError where that, with what is spent already, is above the budget."""
    logger.info("%s: at most $%.2f, prices of params", what, cents(amount))
    if amount + spent > _exact(budget_usd):
        already = f" on top of ${cents(spent):.2f} already spent" if spent else ""
        raise ResourceError(
            f"{what} may cost ${cents(amount):.2f}{already}, above budget_usd {budget_usd:.2f}; nothing was sent: "
            "raise provider.budget_usd, or ask or train on fewer rows"
        )


@lru_cache
def _encoding_of(model: str) -> "tiktoken.Encoding | None":
    try:
        import tiktoken

        try:
            return tiktoken.encoding_for_model(model)
        except KeyError:  # a provider's own name for a model
            return tiktoken.get_encoding(_NEWEST_ENCODING)
    except (ImportError, OSError, ValueError) as error:
        logger.info("tokens are estimated: the encoding of %s can't be had (%s)", model, type(error).__name__)
        return None


class TokenCounter:
    """Counts a chat's tokens with the model's own encoding, or estimates them where that can't be had.

    The estimate takes four letters, three digits or one run of signs as a token. On receipt lines with their labels
    it comes out 8 to 12% above o200k_base; it can be short by as much on cut words alone.
    """

    def __init__(self, model: str) -> None:
        self._encoding = _encoding_of(model)

    @property
    def method(self) -> str:
        """How tokens are counted: an encoding's name, or `estimate`."""
        return "estimate" if self._encoding is None else self._encoding.name

    def text(self, text: str) -> int:
        if self._encoding is not None:
            return len(self._encoding.encode(text, disallowed_special=()))
        return sum(-(-len(piece) // _LETTERS_PER_TOKEN) if piece.isalpha() else 1 for piece in _PIECE.findall(text))

    def example(self, messages: Sequence[Message]) -> int:
        """Tokens billed for one pass over a training example."""
        return sum(self.text(message["content"]) + _AROUND_MESSAGE for message in messages)

    def prompt(self, messages: Sequence[Message]) -> int:
        """Tokens billed for a question."""
        return self.example(messages) + _BEFORE_ANSWER


def max_cost(
    questions: Iterable[Sequence[Message]], counter: TokenCounter, max_new_tokens: int, prices: TokenPrices
) -> tuple[int, Decimal]:
    """Prompt tokens of all questions, and the dollars they cost if every answer is as long as it may be."""
    lengths = [counter.prompt(messages) for messages in questions]
    return sum(lengths), prices.cost(sum(lengths), 0, len(lengths) * max_new_tokens)


@dataclass(frozen=True)
class Rates:
    """Dollars an hour of one's own machines."""

    gpu_usd_per_hour: float
    cpu_usd_per_hour: float


def bill(
    asked: Mapping[str, Any],
    rates: Rates,
    *,
    prices: PriceList | None = None,
    job: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One arm's entry of the ledger.

    `asked` is what `infer` measured: rows, rows_per_second, prompt_tokens, cached_tokens, completion_tokens, `device`
    ("gpu" or "cpu") and, of a paid provider, `batch`, `tuned` and `estimated_usd`. `prices` and `job` (the record of
    `train_openai`) belong to a paid provider; `training` (seconds, device) to a model trained on one's own machine.
    """
    tokens = {name: int(asked.get(name, 0)) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
    api, tuned = Decimal(0), Decimal(0)
    entry: dict[str, Any] = {"rows": asked["rows"], **tokens}
    if prices is not None and job is not None:
        api = prices.asking(tuned=asked["tuned"], batch=asked["batch"]).cost(*tokens.values())
        tuned = prices.tuning_cost(job["trained_tokens"])
        entry |= {
            "trained_tokens": job["trained_tokens"],
            "training_usd": cents(tuned),
            "training_estimated_usd": job["estimated_usd"],
            "inference_usd": cents(api),
            "inference_estimated_usd": asked["estimated_usd"],
            "not_in_batch_usd": cents(prices.asking(tuned=asked["tuned"], batch=False).cost(*tokens.values())),
            "prices": prices.origin(),
        }
    hours = {"gpu": 0.0, "cpu": 0.0}
    if prices is None:  # waiting for a provider costs no machine
        hours[asked.get("device", "cpu")] += asked["rows"] / asked["rows_per_second"] / 3600
    if training is not None:
        hours[training["device"]] += training["seconds"] / 3600
    machine = sum(
        (_exact(hours[kind]) * _exact(rate))
        for kind, rate in (("gpu", rates.gpu_usd_per_hour), ("cpu", rates.cpu_usd_per_hour))
    )
    asking = api + (Decimal(0) if training is not None else machine)
    return entry | {
        "gpu_hours": round(hours["gpu"], 4),
        "cpu_hours": round(hours["cpu"], 4),
        "machine_usd": cents(Decimal(machine)),
        "usd": cents(api + tuned + machine),
        "usd_per_1000_rows": round(float(asking * 1000 / asked["rows"]), 4),
    }


def _exact(value: float) -> Decimal:
    return Decimal(str(value))
