"""Intervals by resampling clusters of rows, because the receipts of one product are right or wrong together."""

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]

TAIL = 0.025  # outside each end of a 95% interval


def cluster_codes(keys: pd.Series) -> IntArray:
    """Number the clusters (n,): rows with an equal key share one, a row without a key is a cluster of its own."""
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
    """Give the 95% interval of the mean of `values` (n whole numbers within `bounds`), n > 0.

    The percentile bootstrap over whole clusters (Davison and Hinkley 1997, 3.8; Efron and Tibshirani 1993, 13.3):
    as many clusters as there are get drawn with replacement, and the mean is that of all rows drawn. Clusters of
    the same size and sum are interchangeable, so one multinomial draw over these kinds is the same resample at a
    cost that hardly grows with n; it makes the order of the rows irrelevant too.

    Two cases where resampling would claim certainty: one cluster alone gives `bounds`; and where every value lies
    on one bound, the far limit is that of Clopper and Pearson (1934) with the clusters as trials. The interval is
    widened to hold the mean, should heavy skew put that outside. `clusters` None takes each row as its own.
    """
    numbers = np.asarray(values).astype(np.int64)
    codes = np.arange(numbers.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sizes = np.bincount(codes)
    least, most = bounds
    if sizes.size < 2:
        return float(least), float(most)
    slack = (most - least) * (1 - TAIL ** (1 / sizes.size))
    if np.all(numbers == least):
        return float(least), float(least + slack)
    if np.all(numbers == most):
        return float(most - slack), float(most)

    sums = np.bincount(codes, weights=numbers).astype(np.int64)
    offset = sums - sums.min()
    kinds, counts = np.unique(sizes * (offset.max() + 1) + offset, return_counts=True)
    kind_sizes, kind_sums = np.divmod(kinds, offset.max() + 1)
    kind_sums += sums.min()
    drawn = np.random.default_rng(seed).multinomial(sizes.size, counts / sizes.size, size=resamples)
    means = (drawn @ kind_sums) / (drawn @ kind_sizes)
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    mean = numbers.mean()
    return float(min(low, mean)), float(max(high, mean))
