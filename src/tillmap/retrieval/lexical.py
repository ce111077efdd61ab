"""Neighbours by spelling: TF-IDF of character n-grams, which also match shortened words and words without vowels."""

import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import TfidfVectorizer
from sparse_dot_topn import sp_matmul_topn
from tqdm import tqdm

from tillmap.core.arrays import require_numbers, require_places, require_starts
from tillmap.core.errors import InputError
from tillmap.core.files import of_this_version, read_json, write_json
from tillmap.core.text import without_vowels
from tillmap.retrieval.base import MAX_PAIRS, Descriptions, Floats, Ids, Retriever, Texts, read_tensors
from tillmap.retrieval.postings import Postings

log = logging.getLogger(__name__)

CHUNK = 512  # queries per call: limits memory and updates the progress bar
_MAX_NGRAM = 100
PAIRS = 50_000  # of a query and a text that are compared at a time
# In a large index the rarest n-grams of a query find candidates; common ones such as "ch" cost the most time and say
# the least. The 200 best candidates are then scored with all n-grams.
POSTINGS = 80_000
CANDIDATES = 200


class LexicalRetriever(Retriever):
    """TF-IDF similarity of character n-grams, taken from a text with and without its vowels.

    The score of a query q and a text d is q.d / (|q|^(2 - length) |d|^length), which is the cosine if `length` is 1.
    A smaller `length` lowers the penalty for texts that say more than the query, because tills leave words out. Equal
    texts score 1.
    """

    def __init__(
        self, texts: Texts, vectoriser: TfidfVectorizer, documents: csr_matrix, settings: dict[str, Any]
    ) -> None:
        super().__init__(texts)
        self.vectoriser = vectoriser
        self.documents = documents
        self.settings = settings

    @classmethod
    def build(
        cls,
        ids: Sequence[int] | Ids,
        descriptions: Descriptions,
        *,
        ngrams: tuple[int, int] = (2, 3),
        initial: float = 1.5,
        length: float = 0.8,
        flat_up_to: int = 50_000,
        sizes: bool = True,
    ) -> Self:
        """Build an index of rows.

        Args:
            ids: row ids [n], unique.
            descriptions: their texts [n].
            ngrams: shortest and longest n-gram, within words.
            initial: the weight of n-grams at the start of a word. Tills shorten words at the end, so starts say more:
                "ald" is the start of "alderley", not the end of "emerald".
            length: the penalty for long texts, 0 to 1; see the class.
            flat_up_to: up to so many distinct texts the search is exact. Above, a query's rarest n-grams find 200
                candidates that are scored with all n-grams: 0.986 of the exact first five neighbours, 9 times as fast.
            sizes: False leaves out the weights, volumes, counts and prices in texts.

        Raises InputError as `Texts.group` does, and if no description has a letter or digit.
        """
        texts, distinct = Texts.group(ids, descriptions, sizes=sizes)
        vectoriser = _vectoriser(ngrams)
        log.info("indexing %d texts of %d rows by n-grams", len(distinct), len(texts.rows))
        try:
            counts = vectoriser.fit_transform(_spellings(distinct))
        except ValueError as error:
            raise InputError("no description to index has a letter or a digit; check that column") from error
        grams = vectoriser.get_feature_names_out()
        weights = np.where([gram.startswith(" ") for gram in grams], initial, 1.0).astype(np.float32)
        vectoriser.idf_ = vectoriser.idf_ * weights
        documents = _scaled(counts @ diags(weights), length)
        return cls(texts, vectoriser, documents, {"ngrams": ngrams, "length": length, "flat_up_to": flat_up_to})

    def nearest(self, queries: list[str], k: int, among: Ids | None) -> tuple[Ids, Floats]:
        """See `Retriever.nearest`. Texts that share no n-gram with a query are not found."""
        vectors = _scaled(self.vectoriser.transform(_spellings(queries)), 2 - self.settings["length"])
        engine = self._engine if among is None else _Engine(self.documents[among], self.settings["flat_up_to"])
        chunk = max(1, min(CHUNK, MAX_PAIRS // k))
        starts = tqdm(range(0, len(queries), chunk), desc="lexical search", unit="chunk", leave=None, disable=None)
        parts = [engine.top(vectors[start : start + chunk], k) for start in starts]
        positions, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        return positions if among is None else np.where(positions >= 0, among[positions], -1), scores

    def similarity(self, queries: list[str], which: Ids, positions: Ids) -> Floats:
        """See `Retriever.similarity`."""
        vectors = _scaled(self.vectoriser.transform(_spellings(queries)), 2 - self.settings["length"])
        scores = np.zeros(len(which), dtype=np.float32)
        for start in range(0, len(which), PAIRS):
            here = slice(start, start + PAIRS)
            products = vectors[which[here]].multiply(self.documents[positions[here]])
            scores[here] = np.asarray(products.sum(axis=1)).ravel()
        return scores

    @cached_property
    def _engine(self) -> "_Engine":
        return _Engine(self.documents, self.settings["flat_up_to"])

    def save(self, folder: Path) -> None:
        """Write `lexical.safetensors` (rows, TF-IDF matrix, n-gram weights) and `lexical.json` (settings, n-grams)."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self.documents, name) for name in ("data", "indices", "indptr")}
        save_file(
            {**self.texts.tensors(), **arrays, "idf": self.vectoriser.idf_.astype(np.float32)},
            folder / "lexical.safetensors",
        )
        write_json(
            {**self.settings, "grams": self.vectoriser.get_feature_names_out().tolist()}, folder / "lexical.json"
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises InputError if a file is missing or damaged, ModelError if it is of another version.
        """
        arrays, written = read_tensors(folder / "lexical.safetensors"), read_json(folder / "lexical.json")
        with of_this_version(folder / "lexical.json"):
            shortest, longest = map(int, written["ngrams"])
            length, grams = float(written["length"]), written["grams"]
            settings = {"ngrams": (shortest, longest), "length": length, "flat_up_to": int(written["flat_up_to"])}
            if not 1 <= shortest <= longest <= _MAX_NGRAM or not 0 <= length <= 1:
                raise ValueError("settings out of range")
            if not all(isinstance(gram, str) for gram in grams):
                raise ValueError("n-grams that are no texts")
            vectoriser = _vectoriser((shortest, longest), grams)
            texts = Texts.of_tensors(arrays)
            shape = (len(texts.keys), len(grams))
            data, indices, indptr = (arrays[name] for name in ("data", "indices", "indptr"))
            require_starts(indptr, len(indices))
            require_places(indices, len(grams))
            require_numbers(data, len(indices))
            require_numbers(arrays["idf"], len(grams))
            vectoriser.idf_ = arrays["idf"]
            documents = csr_matrix((data, indices, indptr), shape)
            return cls(texts, vectoriser, documents, settings)


class _Engine:
    """Finds the k largest products of sparse query rows with the rows of one matrix [t, f]."""

    def __init__(self, documents: csr_matrix, flat_up_to: int) -> None:
        self.transposed = documents.T.tocsr()
        exact = documents.shape[0] <= flat_up_to
        self.postings = None if exact else Postings(documents, self.transposed, POSTINGS, CANDIDATES)

    def top(self, queries: csr_matrix, k: int) -> tuple[Ids, Floats]:
        """Positions and scores [q, k], unsorted; -1 if a query has fewer."""
        if self.postings is None or k > CANDIDATES:
            return _padded(_products(queries, self.transposed, k), k)
        positions, scores = self.postings.top(queries, k)
        if (few := np.flatnonzero((positions < 0).any(axis=1))).size:  # too few share a rare n-gram: search exactly
            positions[few], scores[few] = _padded(_products(queries[few], self.transposed, k), k)
        return positions, scores


def _vectoriser(ngrams: tuple[int, int], grams: list[str] | None = None) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=ngrams,
        vocabulary=grams,
        lowercase=False,
        norm=None,
        sublinear_tf=True,
        dtype=np.float32,
    )


def _spellings(texts: Sequence[str]) -> "tqdm[str]":
    both = (f"{text} {without_vowels(text)}" for text in texts)
    return tqdm(both, total=len(texts), desc="n-grams", unit="text", leave=None, disable=None)


def _scaled(rows: csr_matrix, power: float) -> csr_matrix:
    """Each row divided by its Euclidean length to the given power. Rows of zeros stay as they are."""
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64)).ravel()
    return csr_matrix(diags((np.where(lengths > 0, lengths, 1.0) ** -power).astype(np.float32)) @ rows)


def _products(rows: csr_matrix, columns: csr_matrix, k: int) -> csr_matrix:
    return sp_matmul_topn(rows, columns, top_n=k, n_threads=os.cpu_count())


def _padded(products: csr_matrix, k: int) -> tuple[Ids, Floats]:
    """Columns and values [q, k] of each row's k largest entries, sorted by value, then column; filled with -1 and 0."""
    found = np.diff(products.indptr)
    query: NDArray[np.int64] = np.repeat(np.arange(len(found)), found)
    order = np.lexsort((products.indices, -products.data, query))
    rank = np.arange(len(query)) - np.repeat(np.cumsum(found) - found, found)
    kept = rank < k
    positions = np.full((len(found), k), -1, dtype=np.int64)
    scores = np.zeros((len(found), k), dtype=np.float32)
    positions[query[kept], rank[kept]] = products.indices[order][kept]
    scores[query[kept], rank[kept]] = products.data[order][kept]
    return positions, scores
