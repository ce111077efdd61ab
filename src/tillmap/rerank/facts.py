"""What training rows say about chains, brands and their pairs: counts, prices and stems; and how labels are spelled."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.core.prices import cents, log_prices
from tillmap.core.taxonomy import labels_of
from tillmap.core.text import normalise
from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.similar import Groups

Path = tuple[str, ...]

READ = 3  # a new brand is read off at most so many words at the line's start
_STEM_LETTERS = 3  # consonants


class Names(NamedTuple):
    """The chains and the brands by their numbers. Without a brand level there is one brand, "".

    With one, `READ` brands without a name come after those of the training rows: what the first word of the line to be
    answered says, its first two words, and so on. No training row has them.

    Attributes:
        chains: their labels.
        brands: the named ones.
    """

    chains: Sequence[Path]
    brands: Sequence[str]

    @property
    def size(self) -> int:
        """The number of brands, with those that are read off a line."""
        return len(self.brands) + (READ if any(self.brands) else 0)


class Tally(NamedTuple):
    """How often each key was counted. `keys` are ascending."""

    keys: Ints
    counts: Floats

    @classmethod
    def of(cls, keys: Ints) -> "Tally":
        found, counts = np.unique(keys, return_counts=True)
        return cls(found.astype(np.int64), counts.astype(np.float32))

    def places(self, keys: Ints) -> Ints:
        """The position of each of some keys; -1 if it was not counted."""
        return np.where(np.isin(keys, self.keys), np.searchsorted(self.keys, keys), -1)


class Prices(NamedTuple):
    """The log prices of things: how many are known, their mean, and the sum of squared distances from it."""

    known: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def of(cls, owner: Ints, size: int, logs: NDArray[np.float64]) -> "Prices":
        """Those of the things 0 to size - 1. `owner` and `logs` (rows,); NaN is unknown."""
        kept = ~np.isnan(logs)
        owner, logs = owner[kept], logs[kept]
        known = np.bincount(owner, minlength=size)
        mean = np.bincount(owner, logs, size) / np.maximum(known, 1)
        squares = np.bincount(owner, (logs - mean[owner]) ** 2, size)
        return cls(known.astype(np.float32), mean.astype(np.float32), squares.astype(np.float32))


class Facts(NamedTuple):
    """What is known of a catalogue, as arrays. A pair is a chain with a brand that training rows show together.

    Without a brand level all paths have the same brand, number 0.

    Attributes:
        chain_of, brand_of, price_of, log_price_of: (rows,), of each training row; a price counts in cents, -1 unknown.
        chains, brands: (chains,) and (brands,), the number of rows of each.
        leaf, parent: (chains,), the number of each chain's last label, and of what comes before it.
        pair_of: (rows,), the position of each training row's pair.
        pairs: rows by pair; the key of a pair is chain * len(brands) + brand.
        pair_chain, pair_brand: (pairs,).
        parent_brands: rows by parent * len(brands) + brand.
        pair_prices, chain_prices, brand_prices: see `Prices`.
        same_price: the rows by price, in the order of `prices.keys`.
        prices: rows by cents. The exact prices of pairs, chains and brands are counted by number * len(prices) + the
            price's position in `prices.keys`.
        stems: rows by stem. `chain_stems` and `brand_stems` count by number * len(stems) + the stem's position.
    """

    chain_of: NDArray[np.int32]
    brand_of: NDArray[np.int32]
    price_of: Ints
    log_price_of: Floats
    chains: Floats
    brands: Floats
    leaf: NDArray[np.int32]
    parent: NDArray[np.int32]
    pair_of: Ints
    pairs: Tally
    pair_chain: NDArray[np.int32]
    pair_brand: NDArray[np.int32]
    parent_brands: Tally
    pair_prices: Prices
    chain_prices: Prices
    brand_prices: Prices
    same_price: Groups
    prices: Tally
    pair_exact: Tally
    chain_exact: Tally
    brand_exact: Tally
    stems: Tally
    chain_stems: Tally
    brand_stems: Tally


class Spellings(NamedTuple):
    """How labels are written. Arrays of `Lines`, one word a line.

    Attributes:
        named: the number of named brands; those after them are read off a line, and have no letters here.
        letters, ends: the brands' letters without spaces, in the order of their numbers.
        consonants, consonant_ends: the same without vowels.
        sorted_letters, sorted_consonants: the brands' numbers, sorted by letters and by consonants.
        words: the numbers of the distinct words of chains' labels: 0, 1, 2 and so on. The words are sorted.
        word_letters ... word_consonant_ends: these words.
        leaf_starts, leaf_words: chain c's last label has the words leaf_words[leaf_starts[c]:leaf_starts[c + 1]].
        parent_starts, parent_words: the same for the label before it.
    """

    named: int
    letters: NDArray[np.int32]
    ends: Ints
    consonants: NDArray[np.int32]
    consonant_ends: Ints
    sorted_letters: NDArray[np.int32]
    sorted_consonants: NDArray[np.int32]
    words: NDArray[np.int32]
    word_letters: NDArray[np.int32]
    word_ends: Ints
    word_consonants: NDArray[np.int32]
    word_consonant_ends: Ints
    leaf_starts: NDArray[np.int32]
    leaf_words: NDArray[np.int32]
    parent_starts: NDArray[np.int32]
    parent_words: NDArray[np.int32]


def gather(
    lines: Lines, prices: Floats, path_of: Ints, chain_of_path: Ints, brand_of_path: Ints, names: Names
) -> Facts:
    """Count what the training rows show.

    Args:
        lines: their descriptions.
        prices: (rows,), NaN if unknown.
        path_of: (rows,), the position of each row's path.
        chain_of_path, brand_of_path: (paths,), what each known path is made of. A path may have no row.
        names: of the chains and brands.
    """
    chains, size = names.chains, names.size
    chain_of, brand_of = chain_of_path[path_of], brand_of_path[path_of]
    leaf = pd.factorize(pd.Series([labels_of(chain)[-1] for chain in chains]))[0].astype(np.int32)
    parent = pd.factorize(pd.Series([labels_of(chain)[:-1] for chain in chains]))[0].astype(np.int32)
    keys = np.unique(chain_of_path * size + brand_of_path)
    place = np.searchsorted(keys, chain_of * size + brand_of)
    pairs = Tally(keys, np.bincount(place, minlength=len(keys)).astype(np.float32))
    known, logs = cents(prices), log_prices(prices)
    exact, by_price = Tally.of(known[known >= 0]), np.argsort(known, kind="stable")
    at = np.searchsorted(exact.keys, known)

    def exactly(owner: Ints) -> Tally:
        return Tally.of((owner * len(exact.keys) + at)[known >= 0])

    row_of, stem_of = stems_of(*lines.arrays()[:1], *lines.arrays()[3:])
    stems = Tally.of(stem_of)
    stem_at = np.searchsorted(stems.keys, stem_of)
    return Facts(
        chain_of.astype(np.int32),
        brand_of.astype(np.int32),
        known,
        np.nan_to_num(logs).astype(np.float32),
        np.bincount(chain_of, minlength=len(chains)).astype(np.float32),
        np.bincount(brand_of, minlength=size).astype(np.float32),
        leaf,
        parent,
        place.astype(np.int64),
        pairs,
        (pairs.keys // size).astype(np.int32),
        (pairs.keys % size).astype(np.int32),
        Tally.of(parent[chain_of].astype(np.int64) * size + brand_of),
        Prices.of(place, len(pairs.keys), logs),
        Prices.of(chain_of, len(chains), logs),
        Prices.of(brand_of, size, logs),
        Groups(np.append(np.searchsorted(known[by_price], exact.keys), len(known)), by_price),
        exact,
        exactly(place),
        exactly(chain_of),
        exactly(brand_of),
        stems,
        Tally.of(chain_of[row_of] * len(stems.keys) + stem_at),
        Tally.of(brand_of[row_of] * len(stems.keys) + stem_at),
    )


def spell(names: Names) -> Spellings:
    """The letters of brands, and the words of the last two labels of chains."""
    chains, brands = names.chains, names.brands
    joined = [normalise(brand).replace(" ", "") for brand in brands] + [""] * (names.size - len(brands))
    text = Lines.read([word or "\x00" for word in joined])
    leaves = [normalise(labels_of(chain)[-1]).split() for chain in chains]
    above = [normalise(" ".join(labels_of(chain)[-2:-1])).split() for chain in chains]
    kept = [[word for word in words if len(word) > 2] for words in (*leaves, *above)]
    words = sorted({word for each in kept for word in each})
    number = {word: place for place, word in enumerate(words)}
    starts = np.concatenate([[0], np.cumsum([len(each) for each in kept])]).astype(np.int32)
    flat = np.array([number[word] for each in kept for word in each], dtype=np.int32)
    by_word = Lines.read(words)
    return Spellings(
        len(brands),
        *text.arrays()[1:],
        np.array(sorted(range(len(joined)), key=lambda brand: joined[brand] or "\x00"), dtype=np.int32),
        np.array(
            sorted(range(len(joined)), key=lambda brand: _written(text.consonants, text.consonant_ends, brand)),
            dtype=np.int32,
        ),
        np.arange(len(words), dtype=np.int32),
        *by_word.arrays()[1:],
        starts[: len(chains) + 1],
        flat,
        starts[len(chains) :],
        flat,
    )


def _written(letters: Any, ends: Any, word: int) -> list[int]:
    return letters[ends[word] : ends[word + 1]].tolist()  # type: ignore[no-any-return]


@compiled
def stem(consonants: Any, begin: int, end: int) -> int:
    """A number for the first three consonants of a word (its first letter is one of them); -1 if it has a digit."""
    code = 0
    for place in range(begin, min(end, begin + _STEM_LETTERS)):
        if 48 <= consonants[place] <= 57:
            return -1
        code = code * 1_114_112 + consonants[place]  # one more than the largest code point
    return code


@compiled
def stems_of(starts: Any, consonants: Any, consonant_ends: Any) -> Any:
    """The row and the stem of each word that has one."""
    size = len(consonant_ends) - 1
    rows, stems = np.empty(size, np.int64), np.empty(size, np.int64)
    count = 0
    for row in range(len(starts) - 1):
        for word in range(starts[row], starts[row + 1]):
            found = stem(consonants, consonant_ends[word], consonant_ends[word + 1])
            if found >= 0:
                rows[count], stems[count] = row, found
                count += 1
    return rows[:count].copy(), stems[:count].copy()


@compiled
def position(keys: Any, key: Any) -> int:
    """Where a key is among ascending ones; -1 if it is not."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < len(keys) and keys[low] == key else -1


@compiled
def tallied(tally: Any, key: Any) -> Any:
    """How often a key was counted."""
    place = position(tally.keys, key)
    return tally.counts[place] if place >= 0 else np.float32(0)
