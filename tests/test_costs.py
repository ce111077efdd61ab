"""Costs to the cent: estimates and bills worked out by hand, and the budget that stops a run."""

import logging
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.errors import ParamsError, ResourceError
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
    prices = TokenPrices.of({"input": 2.0, "cached_input": 1.0, "output": 8.0})
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


def test_without_an_encoding_bytes_bound_a_prompt_and_an_estimate_is_near(offline):
    counter = TokenCounter("gpt-4o-mini-2024-07-18")
    assert counter.method == "bytes"
    letters = sum(len(message["content"]) for message in SEED)
    assert counter.example(SEED) == letters + 4 * len(SEED)
    assert counter.prompt(SEED[:2]) == counter.example(SEED[:2]) + 3
    assert (counter.text(""), counter.text("Käse"), counter.text("乳"), counter.text("\ud83d")) == (0, 5, 3, 3)
    # By o200k_base these are 8, 19 and 12 tokens, with 4 more around each message and 3 before the answer.
    assert 54 <= counter.likely_prompt(SEED) <= 54 * 1.2


def test_a_model_that_tiktoken_does_not_know_is_bounded_by_bytes():
    assert TokenCounter("gpt-6-luna").method == TokenCounter("meta-llama/Llama-3.1-8B").method == "bytes"


def test_without_the_encodings_file_bytes_are_counted(monkeypatch, caplog):
    import tiktoken

    def unreachable(name):
        raise OSError("no network")

    monkeypatch.setattr(tiktoken, "encoding_for_model", unreachable)
    caplog.set_level(logging.INFO)
    assert TokenCounter("a model of this test").method == "bytes"
    assert "bounded by bytes" in caplog.text


def test_an_encoding_counts_exactly_and_takes_special_words_as_text(monkeypatch):
    import tiktoken

    letters = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("letters", pat_str=".", mergeable_ranks=letters, special_tokens={"<|endoftext|>": 256})
    monkeypatch.setattr(costs, "_encoding_of", lambda model: encoding)
    counter = TokenCounter("x")
    assert (counter.method, counter.text("milk"), counter.text("<|endoftext|>")) == ("letters", 4, 13)


def counter_by(encoding):
    counter = TokenCounter.__new__(TokenCounter)
    counter._encoding = encoding
    return counter


@st.composite
def encodings(draw):
    """A byte-level encoding as OpenAI's are: every byte, and some merges of two tokens each."""
    import tiktoken

    words = [bytes([byte]) for byte in range(256)]
    for _ in range(draw(st.integers(0, 30))):
        merged = draw(st.sampled_from(words)) + draw(st.sampled_from(words))
        if merged not in words:
            words.append(merged)
    split = draw(st.sampled_from([r"\p{L}+|\p{N}{1,3}|[^\p{L}\p{N}]+", r"\s+|\S+", r"(?s:.)"]))
    ranks = {word: rank for rank, word in enumerate(words)}
    return tiktoken.Encoding("drawn", pat_str=split, mergeable_ranks=ranks, special_tokens={})


# Letters, digits, combining signs, emoji, control characters, and halves of surrogate pairs.
TEXTS = st.text(st.characters(exclude_categories=())) | st.text("abz 019|é乳👩‍🌾\ud83d\n\x00")


@given(encodings(), TEXTS)
def test_bytes_bound_the_tokens_of_any_text(encoding, text):
    counter = counter_by(None)
    assert counter_by(encoding).text(text) <= counter.text(text)
    assert counter.likely_prompt([{"role": "user", "content": text}]) >= 7


def test_a_prompt_is_bounded_at_the_dearest_price_and_the_longest_answer(offline):
    counter, prices = TokenCounter("x"), PRICES.token_prices(tuned=True, batch=True)
    tokens = counter.prompt(SEED[:2])
    assert max_cost(SEED[:2], counter, 64, prices) == (tokens * Decimal("0.15") + 64 * Decimal("0.60")) / 10**6
    written = TokenPrices.of({"input": 0.1, "cached_input": 0.01, "cache_write": 0.125, "output": 0.5})
    schema = '{"type": "json_schema"}'
    most = max_cost(SEED[:2], counter, 64, written, schema)
    assert most == ((tokens + len(schema)) * Decimal("0.125") + 32) / 10**6


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 64))
def test_whatever_the_cache_does_a_bill_is_at_most_its_bound(prompt, kept, written, answer):
    prices = TokenPrices.of({"input": 0.1, "cached_input": 0.01, "cache_write": 0.125, "output": 0.5})
    cached = int(prompt * kept)
    bill = prices.cost(prompt, cached, answer, int((prompt - cached) * written))
    assert bill <= prices.at_most(prompt, 64)


def test_tokens_written_to_the_cache_have_a_price_of_their_own():
    prices = TokenPrices.of({"input": 0.1, "cached_input": 0.01, "cache_write": 0.125, "output": 0.5})
    # 600,000 fresh, 250,000 from the cache, 150,000 into it: 6 + 0.25 + 1.875 cents, and 5 cents of answers.
    assert prices.cost(1_000_000, 250_000, 100_000, 150_000) == Decimal("0.13125")
    assert PRICES.untuned.cache_write == PRICES.untuned.input, "models before GPT-5.6 have no fee for it"


def test_without_a_price_nothing_is_tuned_and_no_tuned_model_asked():
    values = {"date": "2026-11-26", "source": "x", "training": None, "tuned": None, "tuned_batch": None}
    untuned = {"input": 0.1, "cached_input": 0.01, "cache_write": 0.125, "output": 0.5}
    prices = PriceList.of(values | {"untuned": untuned, "untuned_batch": untuned})
    with pytest.raises(ParamsError, match=r"prices\.training is null.*openai-tuned"):
        prices.tuning_cost(1)
    with pytest.raises(ParamsError, match=r"prices\.tuned_batch is null"):
        prices.token_prices(tuned=True, batch=True)
    assert prices.tuning_cost(0) == 0, "an untuned model is billed, too"
    assert prices.token_prices(tuned=False, batch=False).input == Decimal("0.1")


def test_the_bill_of_a_paid_arm():
    entry = bill(OPENAI, Rates(2.0, 0.1), prices=PRICES, job=JOB)
    # 40,000 x 0.15 + 12,000 x 0.60 = 13,200 millionths of a dollar; not in a batch 9,600 + 1,200 + 14,400.
    assert entry == {
        "rows": 1000,
        "prompt_tokens": 40_000,
        "cached_tokens": 8_000,
        "completion_tokens": 12_000,
        "cache_write_tokens": 0,
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
