"""Intervals of means by resampling clusters."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tillmap.evaluation.bootstrap import cluster_codes, mean_interval


def test_rows_with_equal_keys_share_a_cluster_and_rows_without_one_do_not():
    codes = cluster_codes(pd.Series(["tea", None, "jam", "tea", None]))
    assert codes[0] == codes[3]
    assert len(set(codes[[0, 1, 2, 4]])) == 4


def test_one_row_a_cluster_agrees_with_wilson():
    right = np.arange(2000) < 700
    wilson = binomtest(700, 2000).proportion_ci(method="wilson")
    assert mean_interval(right, resamples=20000) == pytest.approx((wilson.low, wilson.high), abs=0.002)


def test_agrees_with_resampling_the_clusters_one_by_one():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(120), rng.integers(1, 9, 120))
    ease = rng.random(120)
    right = rng.random(clusters.size) < ease[clusters]
    members = [right[clusters == cluster] for cluster in range(120)]
    means = [np.concatenate([members[i] for i in rng.integers(0, 120, 120)]).mean() for _ in range(4000)]
    expected = np.quantile(means, [0.025, 0.975])
    assert mean_interval(right, clusters, resamples=20000) == pytest.approx(expected, abs=0.006)


def test_rows_that_stand_or_fall_together_widen_the_interval():
    right = np.repeat(np.arange(100) < 40, 16)
    low, high = mean_interval(right, np.repeat(np.arange(100), 16))
    alone_low, alone_high = mean_interval(right)
    assert (high - low) == pytest.approx(4 * (alone_high - alone_low), rel=0.15)


def test_all_right_is_not_called_certain():
    low, high = mean_interval(np.ones(10))
    exact = binomtest(10, 10).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((exact.low, 1.0))
    assert mean_interval(np.zeros(10)) == pytest.approx((0.0, 1 - exact.low))


def test_one_cluster_says_nothing():
    assert mean_interval([1, 0, 1], ["tea"] * 3) == (0.0, 1.0)
    assert mean_interval([1, 1], ["tea"] * 2, bounds=(-1, 1)) == (-1.0, 1.0)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 5)), min_size=1, max_size=40),
    seed=st.integers(0, 3),
)
def test_holds_the_mean_and_keeps_to_the_bounds_whatever_the_order(rows, seed):
    values, clusters = np.array(rows).T
    low, high = mean_interval(values, clusters, bounds=(-1, 1), resamples=200, seed=seed)
    assert -1 <= low <= values.mean() <= high <= 1
    again = mean_interval(values[::-1], clusters[::-1], bounds=(-1, 1), resamples=200, seed=seed)
    assert again == (low, high)
