"""One-vs-rest training of all labels at once, by stochastic gradient descent on the squared hinge loss."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import config, njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tqdm import tqdm

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SILENT = -1  # a row that says nothing about a head
_REST = -1.0  # the score of a label before its first row: just outside the margin, as most labels stay for most rows
_NEGLIGIBLE = 0.02  # violations of the margin that are not worth a step; they are 99% of all
_BIAS_STEP = 0.1


@dataclass(frozen=True)
class Heads:
    """The columns of a weight matrix, a label each: head after head.

    The rivals of column c, itself included, are the columns first[c] up to, and without, last[c]: a row of that label
    teaches them to score low. Usually they are the whole head.
    """

    first: Ints
    last: Ints

    @classmethod
    def of(cls, sizes: Sequence[int]) -> "Heads":
        """Heads of so many labels each, where every other label of its head is a label's rival."""
        ends = np.cumsum(sizes)
        return cls(np.repeat(ends - sizes, sizes), np.repeat(ends, sizes))

    def __len__(self) -> int:
        return len(self.first)


def train_heads(
    features: csr_matrix, columns: Ints, heads: Heads, *, epochs: int, rate: float, seed: int
) -> tuple[Floats, Floats]:
    """Weights (terms, labels) and biases (labels), float32: label c of row x scores x @ weights[:, c] + biases[c].

    Each label is told from its rivals by the squared hinge loss of a linear SVM, max(0, 1 -+ score)^2 (Chang, Hsieh
    and Lin, JMLR 9, 2008). Instead of solving label after label, a row teaches all of them at once, which takes a
    tenth of the time of liblinear and finds the same accuracy: steps fall linearly to 0, and stopping after a few
    rounds takes the place of the L2 penalty. Labels learn independently of each other, so each thread trains some of
    them, and neither the number of threads (NUMBA_NUM_THREADS, by default all) nor the processor changes the result.

    Args:
        features: (rows, terms), float32.
        columns: (rows, heads), the column of each row's label in each head; SILENT where the row has none.
        heads: the columns' rivals.
        epochs: how often each row is shown, in an order drawn from the seed.
        rate: the first step's length; rows of squared length 2 to 3 want about 0.2.
    """
    weights = np.zeros((features.shape[1], len(heads)), dtype=np.float32)
    biases = np.full(len(heads), _REST, dtype=np.float32)
    rng = np.random.default_rng(seed)
    cuts = _equal_shares(columns, heads, config.NUMBA_NUM_THREADS)
    with ThreadPoolExecutor(len(cuts) - 1) as threads:
        for epoch in tqdm(range(epochs), desc="training", unit="epoch", disable=None):
            show = partial(
                _compiled_epoch, features.indptr, features.indices, features.data, columns, heads.first, heads.last,
                weights, biases, rng.permutation(features.shape[0]), np.float32(rate * (1 - epoch / epochs)),
            )  # fmt: skip
            list(threads.map(show, cuts[:-1], cuts[1:]))
    return weights, biases


def _equal_shares(columns: Ints, heads: Heads, threads: int) -> list[int]:
    """Where to cut the columns so that the threads (fewer, if there are fewer labels) have the same work.

    A row costs its labels' rivals; a label is worth what the rows with it or a rival are.
    """
    size = len(heads)
    said = columns[columns >= 0]
    begun = np.bincount(heads.first[said], minlength=size + 1) - np.bincount(heads.last[said], minlength=size + 1)
    work = np.cumsum(np.cumsum(begun)[:size] + 1)
    cuts = np.searchsorted(work, work[-1] * np.arange(1, threads) / threads) + 1
    return sorted({0, *cuts.tolist(), size})


def _epoch(  # noqa: PLR0912, PLR0917 - one loop for the compiler
    starts: Any, terms: Any, values: Any, columns: Any, first: Any, last: Any,
    weights: Any, biases: Any, order: Any, step: Any, from_column: Any, to_column: Any,
) -> None:  # fmt: skip
    """Show each row once, in `order`; changes the weights and biases from one column up to, and without, another."""
    heads = columns.shape[1]
    low, high = np.empty((2, heads), np.int64)
    score = np.empty(weights.shape[1], np.float32)
    violators = np.empty(weights.shape[1], np.int64)
    slopes = np.empty(weights.shape[1], np.float32)
    for row in order:
        for head in range(heads):
            low[head] = high[head] = 0
            column = columns[row, head]
            if column >= 0:
                low[head], high[head] = max(first[column], from_column), min(last[column], to_column)
            if low[head] < high[head]:
                score[low[head] : high[head]] = biases[low[head] : high[head]]
        for place in range(starts[row], starts[row + 1]):
            line, value = weights[terms[place]], values[place]
            for head in range(heads):
                if low[head] < high[head]:
                    # As slices, for then the compiler knows the bounds and adds many labels at once.
                    sums, addends = score[low[head] : high[head]], line[low[head] : high[head]]
                    for rival in range(len(sums)):
                        sums[rival] += value * addends[rival]
        found = 0
        for head in range(heads):
            column = columns[row, head]
            for rival in range(low[head], high[head]):
                slope = score[rival] - np.float32(1) if rival == column else score[rival] + np.float32(1)
                if (slope < -_NEGLIGIBLE) if rival == column else (slope > _NEGLIGIBLE):
                    violators[found] = rival
                    slopes[found] = slope
                    found += 1
        for place in range(starts[row], starts[row + 1]):
            line, pull = weights[terms[place]], step * values[place]
            for number in range(found):
                line[violators[number]] -= pull * slopes[number]
        for number in range(found):
            biases[violators[number]] -= np.float32(_BIAS_STEP) * step * slopes[number]


_compiled_epoch = njit(cache=True, nogil=True)(_epoch)
