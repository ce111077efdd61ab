"""Calibration tables and coverage curves."""

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


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(5000), rng.random(5000) < 0.5
    curve = coverage_curve(confidence, correct, points=100)
    assert len(curve) <= 100
    assert curve["coverage"].iloc[0] == 1 / 5000
    assert curve["coverage"].iloc[-1] == 1
    assert curve["accuracy"].iloc[-1] == pytest.approx(correct.mean())


def test_what_a_threshold_answers():
    assert answered_from([0.95, 0.7, 0.69, 0.1], [1, 0, 1, 0], 0.7) == (0.5, 0.5)
    coverage, accuracy = answered_from([0.9], [1], float("inf"))
    assert coverage == 0 and np.isnan(accuracy)
