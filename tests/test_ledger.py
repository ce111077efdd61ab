"""What each arm cost, and what all test rows would take: worked out by hand."""

import pytest
from project import ROOT
from ruamel.yaml import YAML

from tillmap.config.blocks import Costs, Prices
from tillmap.evaluation.ledger import bill_arm, bill_arms, devices_of, estimate_all_rows, estimate_table, minutes_of

COSTS = Costs(gpu_usd_per_hour=3.6, cpu_usd_per_hour=0.36)
# 30 of 800 test rows and 100 rows of the calibration subset, at 2 rows a second.
PILOT = {"rows": 130, "test_rows": 30, "rows_per_second": 2.0, "prompt_tokens": 13_000, "cached_tokens": 0,
         "completion_tokens": 1_300, "device": "cpu"}  # fmt: skip
PAID = PILOT | {"tuned": True, "batch": True, "estimated_usd": 0.01}
JOB = {"trained_tokens": 1_000_000, "estimated_usd": 3.1}


@pytest.fixture(scope="module")
def prices():
    tuned = YAML(typ="safe").load(ROOT / "profiles/openai-tuned.yaml")
    return Prices(**tuned["provider"]["prices"])


def test_held_out_rows_are_asked_once_and_the_rest_grows_with_the_test_rows(prices):
    entry = bill_arm(PILOT, None, prices, COSTS)
    found = estimate_all_rows(PILOT, entry, 800)
    assert found["rows"] == 900
    assert found["minutes"] == 7.5
    assert (found["prompt_tokens"], found["completion_tokens"]) == (90_000, 9_000)
    assert found["usd"] == 0.05, "450 seconds at 36 cents an hour, rounded up"
    complete = PILOT | {"rows": 900, "test_rows": 800}
    assert estimate_all_rows(complete, bill_arm(complete, None, prices, COSTS), 800)["rows"] == 900


def test_training_is_paid_once_and_not_a_row(prices):
    trained = {"device": "gpu", "train_seconds": 3600.0}
    entry = bill_arm(PILOT, trained, prices, COSTS)
    assert entry["gpu_hours"] == 1.0 and entry["usd"] == pytest.approx(3.61, abs=0.005)
    assert estimate_all_rows(PILOT, entry, 800)["usd"] == 0.05
    named = bill_arm(PILOT, trained | {"device": "NVIDIA H100 80GB HBM3"}, prices, COSTS)
    assert named == entry, "the name of a card is a GPU, too"


def test_a_paid_arm_is_billed_by_its_tokens(prices):
    free_machine = Costs(gpu_usd_per_hour=0.0, cpu_usd_per_hour=0.0)
    entry = bill_arm(PAID, JOB, prices, free_machine)
    assert entry["training_usd"] == 3.0
    more = estimate_all_rows(PAID | {"prompt_tokens": 13_000_000, "completion_tokens": 1_300_000},
                             bill_arm(PAID | {"prompt_tokens": 13_000_000, "completion_tokens": 1_300_000}, JOB,
                                      prices, free_machine), 800)  # fmt: skip
    # 90 million tokens at 15 cents and 9 million at 60 cents a million.
    assert more["usd"] == 13.5 + 5.4
    untuned = bill_arm(PAID | {"tuned": False}, None, prices, free_machine)
    assert untuned["training_usd"] == 0.0


def test_the_bill_of_a_free_arm_has_no_tokens(prices):
    usage = {"rows": 1400, "test_rows": 800, "rows_per_second": 700.0}
    [entry] = bill_arms({"nearest": usage}, {"nearest": None}, prices, COSTS, 800).values()
    assert entry["all_rows"] == {
        "rows": 1400, "minutes": 0.03, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0,
    }  # fmt: skip


def test_the_table_shows_the_slowest_arm_first(prices):
    usage = {
        "nearest": {"rows": 1400, "test_rows": 800, "rows_per_second": 700.0},
        "rag": PILOT | {"rows": 1130, "test_rows": 1030, "rows_per_second": 0.5},
        "openai": PAID,
    }
    training = {"nearest": None, "rag": None, "openai": JOB}
    ledger = bill_arms(usage, training, prices, COSTS, 180_000)
    header, _, *lines = estimate_table(ledger, usage).splitlines()
    assert header.split("  ")[0] == "arm"
    assert [" ".join(line.split()) for line in lines] == [
        f"rag 1,130 180,100 6,003.3 {round(14_300 * 180_100 / 1130):,} 36.02",
        f"openai 130 180,100 1,500.8 {round(14_300 * 180_100 / 130):,} {ledger['openai']['all_rows']['usd']:.2f}",
        "nearest 1,400 180,600 4.3 0 0.03",
    ]


def test_devices_and_minutes_are_those_of_training_and_answering():
    on_gpu = PILOT | {"device": "NVIDIA H100"}
    usage = {"plain": PILOT, "tuned": PILOT, "on_gpu": on_gpu, "paid": PAID}
    training = {"plain": None, "tuned": {"device": "NVIDIA H100", "train_seconds": 60.0}, "on_gpu": None, "paid": JOB}
    assert devices_of(usage, training) == {
        "plain": "cpu", "tuned": "NVIDIA H100 and cpu", "on_gpu": "NVIDIA H100", "paid": "provider"
    }  # fmt: skip
    minutes = minutes_of(usage, training)
    assert minutes["plain"] == minutes["paid"] == pytest.approx(65 / 60)
    assert minutes["tuned"] == pytest.approx(65 / 60 + 1)
