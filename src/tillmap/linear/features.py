"""Features of an item: n-grams with and without vowels, words, the line's start, price, retailer, sizes in the text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import normalize

from tillmap.core.errors import InputError, ModelError
from tillmap.core.quantities import read_quantities
from tillmap.core.text import normalise, without_vowels
from tillmap.linear.counting import TermCounter

TEXT_BLOCKS = ("grams", "skeletons", "words", "start")
BLOCKS = (*TEXT_BLOCKS, "price", "retailer", "sizes")
_COLUMNS = ["block", "term", "weight"]
# Price buckets per doubling of the price. With 2, the prices 1.69 to 2.37 share a bucket, as goods of one kind do. With
# 4, the prices 1.84 to 2.18 do, which tells products apart.
_BUCKETS_PER_DOUBLING = (2, 4)
_OF_WORDS = ("grams", "skeletons")  # blocks whose terms lie within words
# What the blocks are called that do not count words of the line one by one.
_NAMES = {"start": "(start)", "price": "(price)", "retailer": "(retailer)", "sizes": "(amounts)"}
_MIN_PRICE = 0.01  # prices below count as this


Ints = NDArray[np.int64]


class _Block(NamedTuple):
    """How a block reads an item: scikit-learn's analyser, n-grams (None: the caller's), and the vector's length."""

    analyser: str
    ngrams: tuple[int, int] | None
    length: float


# Chosen on held-out training rows of real receipts. Words, at half the length of n-grams, help a little; the price
# helps much.
_HOW: Mapping[str, _Block] = {
    "grams": _Block("char_wb", None, 1.0),
    "skeletons": _Block("char_wb", None, 1.0),
    "words": _Block("word", (1, 2), 0.5),
    "start": _Block("word", (1, 1), 0.7),
    "price": _Block("word", (1, 1), 0.5),
    "retailer": _Block("word", (1, 1), 0.3),
    "sizes": _Block("word", (1, 1), 0.5),
}


class Featuriser:
    """Turns items into sparse TF-IDF rows.

    A block is a group of columns, such as the n-grams. Within a block all rows have the same Euclidean length.
    """

    def __init__(self, vectorisers: Mapping[str, TfidfVectorizer]) -> None:
        self._vectorisers = vectorisers

    @classmethod
    def fit(
        cls,
        items: pd.DataFrame,
        blocks: Sequence[str] = TEXT_BLOCKS,
        *,
        ngrams: tuple[int, int] = (2, 4),
        min_rows: int = 2,
        max_terms: int = 80_000,
        more: Sequence[str] = (),
    ) -> Self:
        """Learn the terms and how rare each is.

        Args:
            items: description, retailer and price (float, NaN if unknown).
            blocks: some of BLOCKS, in any order.
            ngrams: shortest and longest character n-gram, within words.
            min_rows: text terms in fewer rows are left out, if there are others. Those of other blocks are all kept.
            max_terms: the number of terms per block; the most frequent are kept.
            more: texts beside the items. Their terms are kept even if only one text has them.

        Raises InputError if no description has a letter or a digit.
        """
        if more:
            said = pd.DataFrame({"description": [*more] * min_rows, "retailer": "", "price": np.nan})
            items = pd.concat([items[list(said)], said], ignore_index=True)
        vectorisers = {}
        for block in (name for name in BLOCKS if name in blocks):
            tokens = _read(block, items)
            for fewest in (min_rows, 1) if block in TEXT_BLOCKS else (1,):
                vectoriser = _vectoriser(block, ngrams, min_df=min(fewest, len(items)), max_features=max_terms)
                with suppress(ValueError):  # scikit-learn's "empty vocabulary": no term is in so many rows
                    vectorisers[block] = vectoriser.fit(tokens)
                    break
        if not vectorisers or not {*vectorisers}.intersection(TEXT_BLOCKS):
            raise InputError("no description has a letter or a digit; check that column")
        return cls(vectorisers)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks with at least one term, in the order of their columns."""
        return tuple(self._vectorisers)

    def transform(self, items: pd.DataFrame) -> csr_matrix:
        """The features (items, terms), float32. A block that knows none of an item's terms is 0."""
        parts = [
            _weigh(self._counters[block].count(_read(block, items)), vectoriser) * np.float32(_HOW[block].length)
            for block, vectoriser in self._vectorisers.items()
        ]
        return hstack(parts, format="csr", dtype=np.float32)

    @cached_property
    def _counters(self) -> dict[str, TermCounter]:
        return {
            block: TermCounter.of(vectoriser.vocabulary_, vectoriser.ngram_range if block in _OF_WORDS else None)
            for block, vectoriser in self._vectorisers.items()
        }

    def read_words(self, items: pd.DataFrame) -> "Words":
        """The words of items' lines, with the terms in each: what `share_out` needs."""
        return Words.of(items["description"], self._vectorisers)

    def share_out(self, words: "Words", values: csr_matrix) -> list[dict[str, float]]:
        """Share values of items' terms (items, terms) out among the words of the lines that the terms were found in.

        An n-gram counts for each word by how often it is in it, and a pair of words half for each. Values of how the
        line starts, of the price, the retailer and the sizes are those of `(start)`, `(price)`, `(retailer)` and
        `(amounts)`. The result of an item has its normalised words, and sums to its values.
        """
        sums = np.zeros(len(words.rows))
        parts: list[dict[str, float]] = [{} for _ in range(words.lines)]
        at = 0
        for block, vectoriser in self._vectorisers.items():
            own = values[:, at : at + len(vectoriser.vocabulary_)]
            at += own.shape[1]
            if block in _NAMES:
                for part, value in zip(parts, np.asarray(own.sum(axis=1)).ravel().tolist(), strict=True):
                    part[_NAMES[block]] = value
                continue
            found = words.found(block)
            found.data = 1 / found.data
            each, inside = csr_matrix(own.multiply(found)), words.inside[block]
            products = each[words.rows].multiply(inside[words.words])
            sums += np.asarray(products.sum(axis=1)).ravel() * words.counts
        for row, word, value in zip(words.rows.tolist(), words.words.tolist(), sums.tolist(), strict=True):
            parts[row][words.known[word]] = value
        return parts

    def read_labels(self, texts: Sequence[str]) -> csr_matrix:
        """The features of labels (texts, terms), each read as the description of an item without retailer and price."""
        return self.transform(pd.DataFrame({"description": list(texts), "retailer": "", "price": np.nan}))

    def to_table(self) -> pd.DataFrame:
        """One row per term, in the order of the feature columns: block, term, weight (float32)."""
        parts = [
            pd.DataFrame({"block": block, "term": vectoriser.get_feature_names_out(), "weight": vectoriser.idf_})
            for block, vectoriser in self._vectorisers.items()
        ]
        return pd.concat(parts, ignore_index=True).astype({"block": "str", "term": "str", "weight": np.float32})

    @classmethod
    def from_table(cls, table: pd.DataFrame, ngrams: tuple[int, int]) -> Self:
        """The featuriser of a table that `to_table` made. Raises ModelError if it is another table."""
        if list(table.columns) != _COLUMNS or not set(table["block"]) <= set(BLOCKS):
            raise ModelError(
                f"terms: expected the columns {', '.join(_COLUMNS)} and known blocks; train the model again"
            )
        weights = pd.to_numeric(table["weight"], errors="coerce")
        texts = all(isinstance(term, str) for term in table["term"])
        if not texts or table.duplicated(["block", "term"]).any() or not np.isfinite(weights).all():
            raise ModelError("terms: one is no text, comes twice or has no weight; train the model again")
        vectorisers = {}
        for block, terms in table.astype({"weight": np.float32}).groupby("block", sort=False):
            vectoriser = _vectoriser(str(block), ngrams, vocabulary=terms["term"].tolist())
            vectoriser.idf_ = terms["weight"].to_numpy(np.float32)
            vectorisers[str(block)] = vectoriser
        return cls(vectorisers)


def _vectoriser(block: str, ngrams: tuple[int, int], **terms: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=_HOW[block].analyser,
        ngram_range=_HOW[block].ngrams or ngrams,
        token_pattern=r"\S+" if _HOW[block].analyser == "word" else None,
        lowercase=False,
        sublinear_tf=True,
        dtype=np.float32,
        **terms,
    )


def _weigh(counts: csr_matrix, vectoriser: TfidfVectorizer) -> csr_matrix:
    """The TF-IDF weights of counts, as the vectoriser weighs them. Changes `counts`."""
    counts.data = (1 + np.log(counts.data)) * vectoriser.idf_[counts.indices].astype(np.float32)
    return normalize(counts, copy=False)


@dataclass(frozen=True)
class Words:
    """The distinct words of each line.

    Attributes:
        lines: the number of lines.
        rows, words, counts: (pairs,), for each distinct word of a line the line, the word's number, and how often it is
            there.
        known: the words by their number, normalised.
        inside: by text block, how often each term is in each word (words, terms); a pair of words is in both.
    """

    lines: int
    rows: Ints
    words: Ints
    counts: Ints
    known: list[str]
    inside: dict[str, csr_matrix]

    @classmethod
    def of(cls, lines: "pd.Series[str]", vectorisers: Mapping[str, TfidfVectorizer]) -> Self:
        """The words of some descriptions, and the terms of these vectorisers in them."""
        number: dict[str, int] = {}
        pairs = [
            (row, number.setdefault(word, len(number)), count)
            for row, line in enumerate(lines)
            for word, count in Counter(normalise(line).split()).items()
        ]
        rows, words, counts = np.array(pairs, dtype=np.int64).reshape(-1, 3).T
        blocks = (block for block in TEXT_BLOCKS if block in vectorisers and block not in _NAMES)
        inside = {block: _terms_in(block, vectorisers[block], number) for block in blocks}
        return cls(len(lines), rows, words, counts, list(number), inside)

    def found(self, block: str) -> csr_matrix:
        """How often the terms in the words of each line are in it (lines, terms)."""
        shape = (self.lines, len(self.known))
        counts = self.counts.astype(np.float32)
        return csr_matrix((counts, (self.rows, self.words)), shape) @ self.inside[block]


def _terms_in(block: str, vectoriser: TfidfVectorizer, words: Mapping[str, int]) -> csr_matrix:
    if block in _OF_WORDS:
        spelt = map(without_vowels, words) if block == "skeletons" else words
        return csr_matrix(CountVectorizer.transform(vectoriser, spelt), dtype=np.float32)
    places = [
        (words[word], place)
        for term, place in vectoriser.vocabulary_.items()
        for word in term.split(" ")
        if word in words
    ]
    at, terms = np.array(places, dtype=np.int64).reshape(-1, 2).T
    return csr_matrix((np.ones(len(at), np.float32), (at, terms)), (len(words), len(vectoriser.vocabulary_)))


def _read(block: str, items: pd.DataFrame) -> list[str]:
    """The text of each item whose words or characters the block counts."""
    if block == "price":
        return [_buckets(price) for price in items["price"]]
    if block == "retailer":
        return [normalise(retailer).replace(" ", "_") for retailer in items["retailer"].fillna("")]
    if block == "sizes":
        return [_sizes(description) for description in items["description"]]
    text = [normalise(description) for description in items["description"]]
    if block == "start":
        return [_start(line) for line in text]
    return without_vowels("\n".join(text)).split("\n") if block == "skeletons" else text


def _start(line: str) -> str:
    """How a line begins, where tills print the brand: the starts of its first words, and single words, as marks."""
    words = line.split()
    if not words:
        return ""
    joined = "".join(words[:3])
    bare = without_vowels(joined)
    marks = [f"start:{joined[:size]}" for size in range(1, min(9, len(joined)) + 1)]
    marks += [f"bare:{bare[:size]}" for size in range(2, min(7, len(bare)) + 1)]
    marks += [f"first:{words[0]}", f"first_bare:{without_vowels(words[0])}", f"last:{without_vowels(words[-1])}"]
    return " ".join([*marks, f"second:{without_vowels(words[1])}"] if len(words) > 1 else marks)


def _buckets(price: float) -> str:
    """The price's bucket at each width, as words: "2:2 4:4" for 2.00, "refund 2:2 4:4" for -2.00, "" if unknown."""
    if np.isnan(price):
        return ""
    height = np.log2(max(abs(price), _MIN_PRICE))
    buckets = " ".join(f"{parts}:{round(height * parts)}" for parts in _BUCKETS_PER_DOUBLING)
    return f"refund {buckets}" if price < 0 else buckets


def _sizes(description: str) -> str:
    """The buckets of what a line says about amounts, as words: "millilitres:17 pieces:6" for 6X33CL."""
    amounts = asdict(read_quantities(description))
    del amounts["text"]
    return " ".join(f"{kind}:{_bucket(kind, value)}" for kind, value in amounts.items() if value)


def _bucket(kind: str, value: float) -> int:
    return round(value if kind == "pieces" else 2 * np.log2(value))  # sizes of one kind are at least 1.2 apart
