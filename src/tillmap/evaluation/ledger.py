"""The costs of each arm, and an estimate for answering all test rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

import pandas as pd

from tillmap.config.blocks import Costs, Prices
from tillmap.providers.costs import PriceList, Rates, bill, cents

_TOKENS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Ledger:
    """What a run took.

    Attributes:
        costs: the result of `bill_arms`.
        minutes, devices: those of each arm, see `minutes_of` and `devices_of`.
        estimate: what all test rows would take, see `estimate_table`.
    """

    costs: dict[str, dict[str, Any]]
    minutes: dict[str, float]
    devices: dict[str, str]
    estimate: str

    @classmethod
    def of(
        cls,
        usage: Mapping[str, Mapping[str, Any]],
        training: Mapping[str, Mapping[str, Any] | None],
        prices: Prices,
        costs: Costs,
        test_rows: int,
    ) -> Self:
        """The ledger of all arms; the arguments are those of `bill_arms`."""
        bills = bill_arms(usage, training, prices, costs, test_rows)
        return cls(bills, minutes_of(usage, training), devices_of(usage, training), estimate_table(bills, usage))


def bill_arms(
    usage: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Mapping[str, Any] | None],
    prices: Prices,
    costs: Costs,
    test_rows: int,
) -> dict[str, dict[str, Any]]:
    """The costs of each arm, with an estimate for answering all `test_rows` under `all_rows`."""
    bills = {arm: bill_arm(usage[arm], training[arm], prices, costs) for arm in usage}
    return {arm: entry | {"all_rows": estimate_all_rows(usage[arm], entry, test_rows)} for arm, entry in bills.items()}


def bill_arm(
    usage: Mapping[str, Any], training: Mapping[str, Any] | None, prices: Prices, costs: Costs
) -> dict[str, Any]:
    """The costs of one arm, see `providers.costs.bill`.

    Args:
        usage: what the arm's answers took. An arm of a provider has `batch` and `tuned`.
        training: what the training of its model took: `train_seconds` and `device`, or a provider's job; None if
            nothing was trained.
        prices: the provider's prices.
        costs: the costs of this machine per hour.
    """
    rates = Rates(**costs.model_dump())
    if "batch" in usage:
        job = training or {"trained_tokens": 0, "estimated_usd": 0.0}
        return bill(usage, rates, prices=PriceList.of(prices.model_dump()), job=job)
    if training:
        device = "cpu" if training["device"] == "cpu" else "gpu"  # `device` may be the name of a GPU
        spent = {"seconds": training["train_seconds"], "device": device}
        return bill(usage, rates, training=spent)
    return bill(usage, rates)


def estimate_all_rows(usage: Mapping[str, Any], entry: Mapping[str, Any], test_rows: int) -> dict[str, Any]:
    """An estimate for answering all `test_rows`, from the speed and cost per row of the rows that were answered.

    `usage` has `rows` and `test_rows` (how many of them are test rows). The other rows are held out and are answered
    once, so they count as they are. Returns rows, minutes, tokens and dollars (of the provider and this machine,
    without training).
    """
    rows = test_rows + usage["rows"] - usage["test_rows"]
    more = rows / usage["rows"]
    answering = Decimal(str(entry["usd_per_1000_rows"])) * rows / 1000
    return {
        "rows": rows,
        "minutes": round(rows / usage["rows_per_second"] / 60, 2),
        **{name: round(usage.get(name, 0) * more) for name in _TOKENS},
        "usd": cents(answering),
    }


def devices_of(
    usage: Mapping[str, Mapping[str, Any]], training: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, str]:
    """What each arm was trained and asked on: "cpu", the name of a GPU, both, or "provider"."""
    used = {
        arm: {str(took.get("device", "cpu")) for took in (answering, training[arm]) if took}
        for arm, answering in usage.items()
    }
    return {arm: "provider" if "batch" in usage[arm] else " and ".join(sorted(found)) for arm, found in used.items()}


def minutes_of(
    usage: Mapping[str, Mapping[str, Any]], training: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, float]:
    """The minutes that each arm's training and answering took."""
    trained = {arm: float((entry or {}).get("train_seconds", 0.0)) for arm, entry in training.items()}
    return {arm: (entry["rows"] / entry["rows_per_second"] + trained[arm]) / 60 for arm, entry in usage.items()}


def estimate_table(costs: Mapping[str, Mapping[str, Any]], usage: Mapping[str, Mapping[str, Any]]) -> str:
    """The estimates for all test rows as a plain text table, the slowest arm first.

    `costs` is the result of `bill_arms`; `usage` is what each arm's answers took.
    """
    estimates = {arm: entry["all_rows"] for arm, entry in costs.items()}
    table = pd.DataFrame(
        [
            {
                "arm": arm,
                "rows asked": f"{usage[arm]['rows']:,}",
                "rows in all": f"{found['rows']:,}",
                "minutes": f"{found['minutes']:,.1f}",
                "tokens": f"{found['prompt_tokens'] + found['completion_tokens']:,}",
                "dollars": f"{found['usd']:,.2f}",
            }
            for arm, found in sorted(estimates.items(), key=lambda entry: -entry[1]["minutes"])
        ]
    )
    align = ["left", *["right"] * (len(table.columns) - 1)]
    return str(table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align))
