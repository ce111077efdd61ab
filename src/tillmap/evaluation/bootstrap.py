"""Cluster bootstrap intervals: the receipt lines of one product tend to be right or wrong together."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

IntArray = npt.NDArray[np.int64]

_TAIL = 0.025  # the probability outside each end of a 95% interval


def cluster_codes(keys: pd.Series) -> IntArray:
    """Number the clusters (n,). Rows with the same key share a cluster; a row without a key is its own."""
    codes = pd.factorize(keys)[0].astype(np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(alone.sum())
    return codes


def mean_interval(
    values: npt.ArrayLike,
    clusters: npt.ArrayLike | None = None,
    *,
    bounds: tuple[int, int] = (0, 1),
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute the 95% interval of the mean of `values` (n > 0 whole numbers within `bounds`).

    This is the percentile bootstrap over whole clusters (Davison and Hinkley 1997, 3.8; Efron and Tibshirani 1993,
    13.3): draw as many clusters as there are, with replacement, and take the mean of all their rows. Clusters of the
    same size and sum are interchangeable, so one multinomial draw over these kinds gives the same resample. Its cost
    hardly grows with n, and the order of the rows does not matter.

    Two cases where resampling would wrongly give an interval of no width: a single cluster gives `bounds`; and if all
    values lie on one bound, the other limit is Clopper and Pearson's (1934), with the clusters as trials. If heavy skew
    puts the mean outside the interval, the interval is widened to contain it. Without `clusters`, each row is its own.
    """
    numbers = np.asarray(values).astype(np.int64)
    codes = np.arange(numbers.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(codes)
    least, most = bounds
    if sizes.size < 2:
        return float(least), float(most)
    if np.all(numbers == least) or np.all(numbers == most):
        share = binomtest(sizes.size, sizes.size).proportion_ci(0.95, method="exact").low
        slack = (most - least) * (1 - share)
        return (float(least), float(least + slack)) if numbers[0] == least else (float(most - slack), float(most))

    sums = np.bincount(codes, weights=numbers).astype(np.int64)
    offset = sums - sums.min()
    # A kind is a pair of size and sum, written as one number so that `unique` can count it.
    kinds, counts = np.unique(sizes * (offset.max() + 1) + offset, return_counts=True)
    kind_sizes, kind_sums = np.divmod(kinds, offset.max() + 1)
    kind_sums += sums.min()
    drawn = np.random.default_rng(seed).multinomial(sizes.size, counts / sizes.size, size=resamples)
    means = (drawn @ kind_sums) / (drawn @ kind_sizes)
    low, high = np.quantile(means, [_TAIL, 1 - _TAIL])
    mean = numbers.mean()
    return float(min(low, mean)), float(max(high, mean))
