"""One-vs-rest training of all labels at once: stochastic gradient descent on the squared hinge loss."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from tqdm import tqdm

from tillmap.core.compiled import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

SILENT = -1  # the column of a row that has no label in a head
# The score of a label before training. It lies just outside the margin (-1), where most labels stay for most rows: the
# row "tata tea" says "not this one" to all brands but one, and those need no step.
_FIRST_BIAS = -1.0
_EPS = 0.02  # smaller violations of the margin, 99% of all, make no step
_BIAS_STEP = 0.1  # as a share of the weights' step


@dataclass(frozen=True)
class Heads:
    """The columns of a weight matrix: one column per label, head after head. A head is a level, such as the brands.

    The rivals of column c are the columns first[c] to last[c] - 1, c included. A row with the label c trains them to
    score low, and c to score high. Usually the rivals are the whole head.
    """

    first: Ints
    last: Ints

    @classmethod
    def of(cls, sizes: Sequence[int]) -> "Heads":
        """Heads with so many labels each. The rivals of a label are all labels of its head."""
        ends = np.cumsum(sizes)
        return cls(np.repeat(ends - sizes, sizes), np.repeat(ends, sizes))

    def __len__(self) -> int:
        return len(self.first)


def train_heads(
    features: csr_matrix, columns: Ints, heads: Heads, *, epochs: int, rate: float, seed: int
) -> tuple[Floats, Floats]:
    """Train weights (terms, labels) and biases (labels,), float32. Label c scores x @ weights[:, c] + biases[c].

    The loss of a label is that of a linear SVM against its rivals, the squared hinge max(0, 1 -+ score)^2 (Chang, Hsieh
    and Lin, JMLR 9, 2008). A row trains all labels at once, instead of one label after the other. This takes a tenth of
    liblinear's time at the same accuracy. The step falls linearly to 0. There is no L2 penalty; stopping after a few
    epochs has the same effect.

    Labels are trained independently, so each thread trains some of them. The result does not depend on the number of
    threads (NUMBA_NUM_THREADS, by default all) or on the processor.

    Args:
        features: (rows, terms), float32.
        columns: (rows, heads), the column of each row's label in each head; SILENT if the row has none.
        heads: the rivals of the columns.
        epochs: how often each row is used, in an order drawn from the seed.
        rate: the length of the first step; about 0.2 suits rows with a squared length of 2 to 3.
        seed: for the order of the rows.
    """
    weights = np.zeros((features.shape[1], len(heads)), dtype=np.float32)
    biases = np.full(len(heads), _FIRST_BIAS, dtype=np.float32)
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
    """Where to cut the columns so that all threads have about the same work; fewer shares if there are fewer labels.

    The work of a column is the number of rows that train it: those whose label has it as a rival.
    """
    size = len(heads)
    said = columns[columns >= 0]
    # A row with label c adds work from first[c] on and takes it away from last[c] on; the running sum is the work.
    begun = np.bincount(heads.first[said], minlength=size + 1) - np.bincount(heads.last[said], minlength=size + 1)
    work = np.cumsum(np.cumsum(begun)[:size] + 1)
    cuts = np.searchsorted(work, work[-1] * np.arange(1, threads) / threads) + 1
    return sorted({0, *cuts.tolist(), size})


def _epoch(  # noqa: PLR0912, PLR0917 - one loop for the compiler
    starts: Any, terms: Any, values: Any, columns: Any, first: Any, last: Any,
    weights: Any, biases: Any, order: Any, step: Any, from_column: Any, to_column: Any,
) -> None:  # fmt: skip
    """Train with each row once, in `order`. Changes the weights and biases of `from_column` to `to_column` - 1 only."""
    heads = columns.shape[1]
    low, high = np.empty((2, heads), np.int64)
    score = np.empty(weights.shape[1], np.float32)
    violators = np.empty(weights.shape[1], np.int64)
    slopes = np.empty(weights.shape[1], np.float32)
    for row in order:
        # 1. The rivals of the row's label in each head, from low[head] to high[head] - 1; none if this thread has none.
        for head in range(heads):
            low[head] = high[head] = 0
            column = columns[row, head]
            if column >= 0:
                low[head], high[head] = max(first[column], from_column), min(last[column], to_column)
            if low[head] < high[head]:
                score[low[head] : high[head]] = biases[low[head] : high[head]]
        # 2. Their scores.
        for place in range(starts[row], starts[row + 1]):
            line, value = weights[terms[place]], values[place]
            for head in range(heads):
                if low[head] < high[head]:
                    # With slices the compiler knows the bounds and adds many labels at once (SIMD).
                    sums, addends = score[low[head] : high[head]], line[low[head] : high[head]]
                    for rival in range(len(sums)):
                        sums[rival] += value * addends[rival]
        # 3. The labels within the margin, and the slope of their loss.
        found = 0
        for head in range(heads):
            column = columns[row, head]
            for rival in range(low[head], high[head]):
                slope = score[rival] - np.float32(1) if rival == column else score[rival] + np.float32(1)
                if (slope < -_EPS) if rival == column else (slope > _EPS):
                    violators[found] = rival
                    slopes[found] = slope
                    found += 1
        # 4. One step against the slope for these labels, in the weights of the row's terms and in the bias.
        for place in range(starts[row], starts[row + 1]):
            line, pull = weights[terms[place]], step * values[place]
            for number in range(found):
                line[violators[number]] -= pull * slopes[number]
        for number in range(found):
            biases[violators[number]] -= np.float32(_BIAS_STEP) * step * slopes[number]


_compiled_epoch = compiled(_epoch)
