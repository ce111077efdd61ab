"""The order in which training sees its examples: batches of about equal length, so that few tokens are padding."""

from collections.abc import Sequence

import numpy as np

ORDER = 1  # raise it when `order_of` changes, so that no training goes on in another order than it began with


def padded_tokens(lengths: Sequence[int], batch_rows: int) -> int:
    """The tokens of all batches, padding included, of examples in the order of training."""
    batches = (lengths[first : first + batch_rows] for first in range(0, len(lengths), batch_rows))
    return sum(len(batch) * max(batch) for batch in batches)


def order_of(lengths: Sequence[int], batch_rows: int, epochs: float, *, grouped: bool, seed: int) -> list[int]:
    """The places of the examples in the order of training, which is cut into batches of `batch_rows`.

    A whole epoch adds each example once, a part of an epoch a random part of them. The order is the same for the same
    arguments, so a resumed training goes on where it stopped, in any epoch.

    Args:
        lengths: the tokens of each example.
        batch_rows: the size of a batch. Only the last one of all epochs may be smaller.
        epochs: above 0.
        grouped: whether a batch has examples of about equal length. What does not fill a batch then waits for the next
            epoch. The batches are shuffled, but one with the longest example is first: if memory is too small, it runs
            out at once.
        seed: for all that is random.
    """
    rng = np.random.default_rng(seed)
    count, whole = len(lengths), int(epochs)
    parts = [count] * whole + [max(round((epochs - whole) * count), 1)] * (epochs > whole)
    shuffled = [rng.permutation(count)[:part] for part in parts]
    if not grouped:
        return list(map(int, np.concatenate(shuffled)))
    sizes = np.asarray(lengths)
    batches: list[np.ndarray] = []
    left = np.empty(0, dtype=int)
    for places in shuffled:
        pool = np.concatenate([left, places])
        pool = pool[np.argsort(sizes[pool], kind="stable")]  # examples of one length stay shuffled
        spare = len(pool) % batch_rows
        first = int(rng.integers(len(pool) - spare + 1))
        left = pool[first : first + spare]
        full = np.delete(pool, slice(first, first + spare)).reshape(-1, batch_rows)
        batches += list(rng.permutation(full))
    if batches:
        longest = int(np.argmax([sizes[batch].max() for batch in batches]))
        batches[0], batches[longest] = batches[longest], batches[0]
    return list(map(int, np.concatenate([*batches, left])))
