"""Thresholds that keep a target accuracy with a stated probability."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.evaluation.promises import promise

answers = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)
MANY = 10**9  # new rows: their own accuracy does not vary


def drawn(rows, seed):
    """Confidences as a calibrated arm gives them, and which of its answers are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(0.8, 0.6, rows)
    return confidence, rng.random(rows) < confidence


@pytest.mark.parametrize(("target", "probability"), [(0.8, 0.9), (0.9, 0.9), (0.9, 0.75)])
@pytest.mark.parametrize("new_rows", [600, 6000])
def test_the_target_is_missed_no_more_often_than_promised(target, probability, new_rows):
    """200 draws; at most what a share of 1 - probability gives by chance, plus 2.5 standard errors."""
    missed, answered = 0, []
    for seed in range(200):
        confidence, right = drawn(600, seed)
        new, new_right = drawn(new_rows, 1000 + seed)
        kept = new >= promise(confidence, right, target, probability, new_rows=new_rows).value
        missed += bool(kept.any()) and new_right[kept].mean() < target
        answered.append(kept.mean())
    most = 1 - probability
    assert missed / 200 <= most + 2.5 * np.sqrt(most * (1 - most) / 200)
    assert np.mean(answered) > 0.2, "a promise that answers nothing would be worth nothing"


@pytest.mark.parametrize("flattery", [0.3, 3.0])
def test_confidences_that_are_too_high_or_too_low_change_nothing(flattery):
    """Only their order counts, apart from where the tests begin."""
    confidence, right = drawn(4000, 1)
    fair = promise(confidence, right, 0.9, 0.9, new_rows=MANY).value
    other = promise(confidence**flattery, right, 0.9, 0.9, new_rows=MANY).value
    assert other ** (1 / flattery) == pytest.approx(fair, abs=0.03)


@pytest.mark.parametrize(("target", "fewest"), [(0.8, 11), (0.9, 22), (0.95, 45)])
def test_how_many_rows_without_an_error_it_takes(target, fewest):
    """target ** rows <= 0.1, the rule that Clopper and Pearson's interval gives."""
    just, less = (promise([1.0] * rows, [True] * rows, target, 0.9, new_rows=MANY) for rows in (fewest, fewest - 1))
    assert just.value == 1.0 and not just.why
    assert less.value == float("inf") and fewest <= less.enough <= fewest + 2
    assert f"on its {fewest - 1} calibration rows; about {less.enough} should be enough" in less.why


def test_the_number_of_rows_that_is_named_is_about_enough():
    found = promise(*drawn(60, 2), 0.9, 0.9, new_rows=MANY)
    assert found.enough
    times = found.enough / 60
    enough = [
        np.isfinite(promise(*drawn(round(60 * times), seed), 0.9, 0.9, new_rows=MANY).value) for seed in range(40)
    ]
    assert np.mean(enough) > 0.4


def test_an_arm_that_is_never_so_often_right_gets_no_number():
    rng = np.random.default_rng(0)
    found = promise(np.full(2000, 0.5), rng.random(2000) < 0.5, 0.9, 0.9, new_rows=MANY)
    assert found.value == float("inf") and found.enough is None
    assert "of its 2,000 calibration rows, not even the surest are right so often" in found.why
    assert "no row of the calibration subset was answered" in promise([], [], 0.9, 0.9, new_rows=5).why


def test_lines_of_one_product_count_less():
    confidence, right = (np.repeat(each, 5) for each in drawn(300, 3))
    apart = promise(confidence, right, 0.8, 0.9, new_rows=MANY)
    together = promise(confidence, right, 0.8, 0.9, new_rows=MANY, product=pd.Series(np.repeat(np.arange(300), 5)))
    once = promise(*drawn(300, 3), 0.8, 0.9, new_rows=MANY)
    assert apart.value < together.value == once.value
    unknown = promise(confidence, right, 0.8, 0.9, new_rows=MANY, product=pd.Series([None] * 1500))
    assert unknown.value == apart.value, "a row without a product is its own"


def test_another_order_decides_which_rows_are_answered():
    confidence, right = drawn(2000, 4)
    order = np.where(np.arange(2000) % 2, confidence / 2, confidence / 2 + 0.5)
    found = promise(confidence, right, 0.9, 0.9, new_rows=MANY, order=order)
    assert found.value in order and right[order >= found.value].mean() >= 0.9


@settings(deadline=None, max_examples=60)
@given(answers, st.floats(0.1, 0.99), st.floats(0.5, 0.99))
def test_a_threshold_is_one_of_the_confidences_and_its_rows_are_right_more_often_than_the_target(pairs, target, odds):
    confidence, right = (np.array(values) for values in zip(*pairs, strict=True))
    found = promise(confidence, right, target, odds, new_rows=50)
    if found.why:
        assert found.value == float("inf")
    else:
        assert found.value in confidence and right[confidence >= found.value].mean() > target
    surer = promise(confidence, right, target, (1 + odds) / 2, new_rows=50)
    assert surer.value >= found.value, "more certainty answers no more rows"
