"""Costs to the cent: estimates and bills worked out by hand, and the budget that stops a run."""

import logging
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.errors import ResourceError
from tillmap.providers import costs
from tillmap.providers.costs import (
    PriceList,
    Rates,
    TokenCounter,
    TokenPrices,
    bill,
    cents,
    max_cost,
    require_budget,
)

PRICES = PriceList.of(
    {
        "date": "2026-11-22",
        "source": "https://example.com/prices",
        "training": 3.0,
        "tuned": {"input": 0.30, "cached_input": 0.15, "output": 1.20},
        "tuned_batch": {"input": 0.15, "cached_input": 0.15, "output": 0.60},
        "untuned": {"input": 0.15, "cached_input": 0.075, "output": 0.60},
        "untuned_batch": {"input": 0.075, "cached_input": 0.075, "output": 0.30},
    }
)
SEED = [
    {"role": "system", "content": "Your task is to classify the user text"},
    {"role": "user", "content": "baby disposable bed mats 10 s | herbgrove | 2.99 ->"},
    {"role": "assistant", "content": "baby care__baby care detail unknown total__baby care__pure baby"},
]
ASKED = {"rows": 1000, "rows_per_second": 0.5, "prompt_tokens": 40_000, "cached_tokens": 8_000}
OPENAI = ASKED | {"completion_tokens": 12_000, "tuned": True, "batch": True, "estimated_usd": 0.02}
JOB = {"trained_tokens": 2_308_240, "estimated_usd": 7.1}


def test_tuning_on_the_seeds_examples_for_two_epochs():
    tokens = 26_230 * 44 * 2
    assert tokens == 2_308_240
    assert PRICES.tuning_cost(tokens) == Decimal("6.92472")
    assert cents(PRICES.tuning_cost(tokens)) == 6.92


def test_all_rows_of_the_contest_in_batches():
    prompt, answer = 184_664 * 32, 184_664 * 14
    by_hand = Decimal(prompt) * Decimal("0.15") / 10**6 + Decimal(answer) * Decimal("0.60") / 10**6
    assert PRICES.token_prices(tuned=True, batch=True).cost(prompt, 0, answer) == by_hand
    assert cents(by_hand) == 2.44
    assert PRICES.token_prices(tuned=True, batch=False).cost(prompt, 0, answer) == 2 * by_hand
    assert PRICES.token_prices(tuned=False, batch=False).cost(prompt, 0, answer) == by_hand


def test_cached_tokens_are_part_of_the_prompt():
    prices = TokenPrices(Decimal(2), Decimal(1), Decimal(8))
    assert prices.cost(1_000_000, 250_000, 500_000) == Decimal("1.5") + Decimal("0.25") + 4


@given(st.integers(0, 10**9), st.floats(0, 1), st.integers(0, 10**9))
def test_a_cent_is_never_lost_in_binary_fractions(prompt, share, answer):
    cached = int(prompt * share)
    exact = PRICES.token_prices(tuned=True, batch=False).cost(prompt, cached, answer)
    millionths = (prompt - cached) * 30 + cached * 15 + answer * 120  # of a cent
    assert exact == Decimal(millionths) / 10**8
    assert round(cents(exact) * 100) == (millionths + 500_000) // 10**6


def test_half_a_cent_is_rounded_up():
    assert [cents(Decimal(text)) for text in ("0.004999", "0.005", "0.015", "2.675")] == [0.0, 0.01, 0.02, 2.68]


def test_a_budget_counts_what_is_spent_already(caplog):
    caplog.set_level(logging.INFO)
    require_budget("asking", Decimal("4.00"), 10.0, Decimal("6.00"))
    assert "asking: at most $4.00" in caplog.text
    with pytest.raises(ResourceError, match=r"may cost \$4\.01 on top of \$6\.00 already spent, above .* 10\.00"):
        require_budget("asking", Decimal("4.01"), 10.0, Decimal("6.00"))


@pytest.fixture
def offline(monkeypatch):
    """No encoding can be had, whatever this machine has."""
    monkeypatch.setattr(costs, "_encoding_of", lambda model: None)


def test_an_estimate_says_so_and_is_near(offline):
    counter = TokenCounter("gpt-4o-mini-2024-07-18")
    assert counter.method == "estimate"
    # By o200k_base these are 8, 19 and 12 tokens, with 4 more around each message.
    assert 51 <= counter.example(SEED) <= 51 * 1.2
    assert counter.prompt(SEED[:2]) == counter.example(SEED[:2]) + 3
    assert counter.text("") == 0


def test_without_the_encodings_file_tokens_are_estimated(monkeypatch, caplog):
    import tiktoken

    def unreachable(name):
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "encoding_for_model", unreachable)
    caplog.set_level(logging.INFO)
    assert TokenCounter("a model of this test").method == "estimate"
    assert "tokens are estimated" in caplog.text


def test_an_encoding_counts_exactly_and_takes_special_words_as_text(monkeypatch):
    import tiktoken

    letters = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("letters", pat_str=".", mergeable_ranks=letters, special_tokens={"<|endoftext|>": 256})
    monkeypatch.setattr(costs, "_encoding_of", lambda model: encoding)
    counter = TokenCounter("x")
    assert (counter.method, counter.text("milk"), counter.text("<|endoftext|>")) == ("letters", 4, 13)


@given(st.text())
def test_any_text_can_be_estimated(text):
    monkey = TokenCounter.__new__(TokenCounter)
    monkey._encoding = None
    assert 0 <= monkey.text(text) <= len(text)


def test_the_most_that_asking_can_cost(offline):
    counter = TokenCounter("x")
    tokens, usd = max_cost([SEED[:2]] * 1000, counter, 64, PRICES.token_prices(tuned=True, batch=True))
    assert tokens == 1000 * counter.prompt(SEED[:2])
    assert usd == (tokens * Decimal("0.15") + 64_000 * Decimal("0.60")) / 10**6


def test_the_bill_of_a_paid_arm():
    entry = bill(OPENAI, Rates(2.0, 0.1), prices=PRICES, job=JOB)
    # 40,000 x 0.15 + 12,000 x 0.60 = 13,200 millionths of a dollar; not in a batch 9,600 + 1,200 + 14,400.
    assert entry == {
        "rows": 1000,
        "prompt_tokens": 40_000,
        "cached_tokens": 8_000,
        "completion_tokens": 12_000,
        "trained_tokens": 2_308_240,
        "training_usd": 6.92,
        "training_estimated_usd": 7.1,
        "inference_usd": 0.01,
        "inference_estimated_usd": 0.02,
        "not_in_batch_usd": 0.03,
        "prices": {"date": "2026-11-22", "source": "https://example.com/prices"},
        "gpu_hours": 0.0,
        "cpu_hours": 0.0,
        "machine_usd": 0.0,
        "usd": 6.94,
        "usd_per_1000_rows": 0.0132,
    }


def test_the_bill_of_an_arm_on_ones_own_machine():
    asked = ASKED | {"device": "gpu", "rows_per_second": 10.0}
    entry = bill(asked, Rates(3.6, 0.1), training={"seconds": 1800, "device": "gpu"})
    assert entry["gpu_hours"] == round(100 / 3600 + 0.5, 4)
    assert entry["usd"] == entry["machine_usd"] == 1.9  # 100 s and half an hour at 3.60 an hour
    assert entry["usd_per_1000_rows"] == 0.1  # training is not paid again for more rows
    assert "prices" not in entry
    on_cpu = bill(ASKED, Rates(3.6, 0.1))
    assert (on_cpu["cpu_hours"], on_cpu["gpu_hours"]) == (round(2000 / 3600, 4), 0.0)
