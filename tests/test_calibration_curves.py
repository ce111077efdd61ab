"""Calibration tables, coverage curves and thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.core.errors import InputError
from tillmap.evaluation.calibration_curves import (
    answered_from,
    calibration_table,
    coverage_curve,
    expected_calibration_error,
    threshold_for,
    threshold_for_use,
)

CONFIDENCE = [0.9, 0.8, 0.8, 0.3, 1.0]
CORRECT = [True, True, False, False, True]

answers = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_table_counted_by_hand():
    table = calibration_table(CONFIDENCE, CORRECT, bins=2)
    assert table["rows"].tolist() == [1, 4]
    assert table["confidence"].tolist() == pytest.approx([0.3, 0.875])
    assert table["accuracy"].tolist() == [0, 0.75]
    assert table[["low", "high"]].to_numpy().tolist() == [[0, 0.5], [0.5, 1]]
    assert expected_calibration_error(CONFIDENCE, CORRECT, bins=2) == pytest.approx((0.3 + 4 * 0.125) / 5)


def test_empty_bins_are_left_out():
    assert calibration_table([0.05, 0.95], [0, 1], bins=10)["low"].tolist() == [0, 0.9]


def test_confidences_that_are_shares_have_no_error():
    correct = np.arange(100) % 4 > 0
    assert expected_calibration_error(np.full(100, 0.75), correct) == pytest.approx(0)


def test_ties_are_answered_together():
    curve = coverage_curve(CONFIDENCE, CORRECT)
    assert curve["threshold"].tolist() == [1.0, 0.9, 0.8, 0.3]
    assert curve["coverage"].tolist() == [0.2, 0.4, 0.8, 1.0]
    assert curve["accuracy"].tolist() == [1, 1, 0.75, 0.6]


def coverage_at(confidence, correct, target):
    """The largest share of these rows that is right at the target accuracy."""
    return answered_from(confidence, correct, threshold_for(confidence, correct, target))[0]


def test_coverage_at_a_target():
    assert coverage_at(CONFIDENCE, CORRECT, 1.0) == 0.4
    assert coverage_at(CONFIDENCE, CORRECT, 0.7) == 0.8
    assert coverage_at([0.5, 0.5], [True, False], 0.9) == 0


@pytest.mark.parametrize("bad", [1.2, -0.1, float("nan")])
def test_confidences_outside_0_to_1_are_refused(bad):
    with pytest.raises(InputError, match="1 of 2 confidences are not within 0 to 1"):
        calibration_table([0.5, bad], [True, True])


def test_one_outcome_a_confidence():
    with pytest.raises(InputError, match="2 confidences for 1 outcomes"):
        coverage_curve([0.1, 0.2], [True])


@settings(deadline=None, max_examples=40)
@given(answers)
def test_error_is_a_share_and_every_row_is_in_a_bin(pairs):
    confidence, correct = zip(*pairs, strict=True)
    table = calibration_table(confidence, correct)
    assert table["rows"].sum() == len(pairs)
    assert ((table["low"] <= table["confidence"] + 1e-9) & (table["confidence"] <= table["high"] + 1e-9)).all()
    assert 0 <= expected_calibration_error(confidence, correct) <= 1


@settings(deadline=None, max_examples=40)
@given(answers, st.floats(0.1, 1))
def test_the_threshold_of_a_coverage_keeps_the_target(pairs, target):
    confidence, correct = (np.array(values) for values in zip(*pairs, strict=True))
    covered = coverage_at(confidence, correct, target)
    if covered:
        surest = np.argsort(-confidence, kind="stable")[: round(covered * len(pairs))]
        assert correct[surest].mean() >= target
    else:
        assert correct[confidence == confidence.max()].mean() < target


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(5000), rng.random(5000) < 0.5
    curve = coverage_curve(confidence, correct, points=100)
    assert len(curve) <= 100
    assert curve["coverage"].iloc[0] == 1 / 5000
    assert curve["coverage"].iloc[-1] == 1
    assert curve["accuracy"].iloc[-1] == pytest.approx(correct.mean())


def test_a_threshold_set_on_some_rows_is_carried_over_to_others():
    threshold = threshold_for([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 0.6)
    assert threshold == 0.7  # two of three
    assert answered_from([0.95, 0.7, 0.69, 0.1], [1, 0, 1, 0], threshold) == (0.5, 0.5)
    assert threshold_for([0.9], [0], 0.5) is None
    coverage, accuracy = answered_from([0.9], [1], None)
    assert coverage == 0 and np.isnan(accuracy)


def drawn(rows, seed):
    """Confidences as a calibrated arm gives them, and which of its answers are right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(0.8, 0.6, rows)
    return confidence, rng.random(rows) < confidence


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95])
def test_the_target_carries_over_to_rows_that_chose_nothing(target):
    reached = []
    for seed in range(20):
        confidence, right = drawn(800, seed)
        threshold = threshold_for_use(confidence, right, target)
        new, new_right = drawn(20_000, 1000 + seed)
        reached.append(new_right[new >= threshold].mean())
    assert abs(np.mean(reached) - target) < 0.01
    assert np.mean(np.abs(np.array(reached) - target) < 0.03) >= 0.9


def test_confidences_that_flatter_are_met_half_way():
    confidence, right = drawn(4000, 1)
    flattering = confidence**0.5
    threshold = threshold_for_use(flattering, right, 0.9)
    alone = threshold_for_use(flattering, flattering, 0.9)
    assert threshold > alone
    assert right[flattering >= threshold].mean() > right[flattering >= alone].mean() + 0.03
    assert threshold_for_use([0.2, 0.4], [False, False], 0.9) == float("inf")
    assert threshold_for_use([0.2, 0.99], [False, True], 0.9) == 0.99
