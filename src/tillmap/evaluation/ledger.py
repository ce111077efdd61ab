"""The bill of each arm, and what answering every test row would take."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

from tillmap.config.blocks import Costs, Prices
from tillmap.providers.costs import PriceList, Rates, bill, cents

_TOKENS = ("prompt_tokens", "completion_tokens")


def bill_arms(
    usage: Mapping[str, Mapping[str, Any]],
    training: Mapping[str, Mapping[str, Any] | None],
    prices: Prices,
    costs: Costs,
    test_rows: int,
) -> dict[str, dict[str, Any]]:
    """The ledger: each arm's bill, and under `all_rows` what answering all `test_rows` would take."""
    bills = {arm: bill_arm(usage[arm], training[arm], prices, costs) for arm in usage}
    return {arm: entry | {"all_rows": estimate_all_rows(usage[arm], entry, test_rows)} for arm, entry in bills.items()}


def bill_arm(
    usage: Mapping[str, Any], training: Mapping[str, Any] | None, prices: Prices, costs: Costs
) -> dict[str, Any]:
    """One arm's entry of metrics/costs.json, see `providers.costs.bill`.

    `usage` is what the arm's answers took, `training` what its model took: seconds and device of this machine, or the
    job of a provider. An arm that was asked at a provider noted `batch` and `tuned`.
    """
    rates = Rates(**costs.model_dump())
    if "batch" in usage:
        job = training or {"trained_tokens": 0, "estimated_usd": 0.0}
        return bill(usage, rates, prices=PriceList.of(prices.model_dump()), job=job)
    if training:
        device = "cpu" if training["device"] == "cpu" else "gpu"  # the name of a card is a GPU, too
        spent = {"seconds": training["train_seconds"], "device": device}
        return bill(usage, rates, training=spent)
    return bill(usage, rates)


def estimate_all_rows(usage: Mapping[str, Any], entry: Mapping[str, Any], test_rows: int) -> dict[str, Any]:
    """What an arm would take for all `test_rows`, at the speed and cost a row of those it was asked about.

    `usage` has `rows` and `test_rows` (of the test split, among them); the held-out rows are asked only once.
    Gives rows, minutes, tokens and dollars (the provider's and the machine's, training aside).
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


def estimate_table(costs: Mapping[str, Mapping[str, Any]], usage: Mapping[str, Mapping[str, Any]]) -> str:
    """What all test rows would take, as a plain text table, the slowest arm first.

    `costs` is that of `bill_arms`, `usage` what each arm's answers took.
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
