"""The known label, and the known label path, that is nearest to what a text says."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sparse_dot_topn import sp_matmul_topn
from tqdm import tqdm

from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.core.text import normalise

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.intp]
Embed = Callable[[Sequence[str]], Floats]  # texts to vectors of length 1, a row a text

CANDIDATES = 20  # labels compared in full for each text: the true one is among them for 99% of damaged brands
CHUNK = 256  # texts scored at a time against every label or path
BLOCK = 16 * CHUNK  # readings looked at together: no text twice, and memory stays bounded
LEVEL_WEIGHTS = (0.4, 0.4, 1.0, 1.0)  # a module and a brand outweigh two parents that are not theirs

# A label whose first words are the whole text scores at least this much, and more the less was lost.
_PREFIX_SCORE = 0.9
# A text less like every label than this is compared by meaning, too: it finds half as many paraphrases again, and
# loses no damaged label. Cosines under the second say nothing.
_ALIKE = 0.65
_RELATED = 0.3
# A brand less like its text than this is looked for among all brands of its chain.
_SURE_BRAND = 0.8
_TIED = 1e-6


def fold(label: str) -> str:
    """The normalised label, or the label itself where nothing but punctuation is in it."""
    return normalise(label) or label


class LabelMatcher:
    """Finds the nearest of one level's labels by characters, and by meaning where characters tell little."""

    def __init__(self, labels: Sequence[str], embed: Embed | None = None) -> None:
        """Index distinct labels, the preferred first: of equally similar labels the earlier one is nearest.

        Where `embed` is given, texts that are like no label by characters are compared by their vectors, too.
        """
        self.labels = tuple(labels)
        self._folded = [fold(label) for label in self.labels]
        self._embed = embed
        self._vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), lowercase=False, dtype=np.float32)
        self._grams = self._vectoriser.fit_transform(self._folded).T.tocsr()
        # Most labels of an impossible path are right as they stand: those are compared with the others here, once.
        self._rows = {label: row for row, label in enumerate(dict.fromkeys(self._folded))}
        self._similar = self._compare(list(self._rows))

    def nearest(self, texts: Sequence[str]) -> tuple[list[str], Floats]:
        """The nearest label of each text, and its similarity, 0 to 1 (0: nothing in common with any)."""
        similar = self.similar(texts)
        labels: list[str] = []
        scores = np.zeros(len(texts), np.float32)
        for chunk in _slices(len(texts), CHUNK):
            dense = similar[chunk].toarray()
            labels += [self.labels[place] for place in dense.argmax(axis=1)]
            scores[chunk] = dense.max(axis=1)
        return labels, scores

    def similar(self, texts: Sequence[str], by_meaning: bool = True) -> csr_matrix:
        """Similarities, 0 to 1, of texts (rows) to the labels (columns) that come near; 1: equal when normalised."""
        folded = [fold(text) for text in texts]
        new = [text for text in dict.fromkeys(folded) if text not in self._rows]
        rows = self._rows | {text: len(self._rows) + place for place, text in enumerate(new)}
        similar = self._compare(new)
        if self._embed and by_meaning and new:
            similar = self._compare_meaning(self._embed, new, similar)
        return vstack([self._similar, similar], format="csr")[[rows[text] for text in folded]]

    def similar_among(self, texts: Sequence[str], among: csr_matrix) -> csr_matrix:
        """As `similar`, but compare each text also with the labels marked in its row of `among`, near or not."""
        return self._compare([fold(text) for text in texts], among)

    def _compare(self, folded: list[str], among: csr_matrix | None = None) -> csr_matrix:
        if not folded:
            return csr_matrix((0, len(self.labels)), dtype=np.float32)
        pairs = sp_matmul_topn(self._vectoriser.transform(folded), self._grams, top_n=CANDIDATES, sort=True)
        if among is not None:
            pairs = pairs + among * np.float32(_TIED)
        rows = np.repeat(np.arange(len(folded)), np.diff(pairs.indptr))
        pairs.data = self._by_characters(folded, rows, pairs.indices, pairs.data)
        return pairs

    def _by_characters(self, folded: list[str], rows: Places, columns: Places, cosines: Floats) -> Floats:
        """The similarity of each pair of text and label: as mistyped or as reworded, whichever is more."""
        texts = [folded[row] for row in rows]
        labels = [self._folded[column] for column in columns]
        ratio = process.cpdist(texts, labels, scorer=fuzz.ratio, dtype=np.float32) / 100
        sorted_ratio = process.cpdist(texts, labels, scorer=fuzz.token_sort_ratio, dtype=np.float32) / 100
        typed = process.cpdist(texts, labels, scorer=OSA.normalized_similarity, dtype=np.float32)
        score: Floats = np.maximum((cosines + ratio + sorted_ratio) / 3, (ratio + typed) / 2)
        begins = np.fromiter((b.startswith(a + " ") for a, b in zip(texts, labels, strict=True)), bool, len(texts))
        score[begins] = np.maximum(score, _PREFIX_SCORE + (1 - _PREFIX_SCORE) * ratio)[begins]
        return np.minimum(score, 1, out=score)

    def _compare_meaning(self, embed: Embed, folded: list[str], near: csr_matrix) -> csr_matrix:
        """Raise the rows of `near` that hold nothing similar to the cosines of vectors, where those are more."""
        unlike = (near.max(axis=1).toarray().ravel() < _ALIKE) & np.array([text != "" for text in folded])
        rows = np.flatnonzero(unlike)
        if not rows.size:
            return near
        cosines = np.minimum(embed([folded[row] for row in rows]) @ self._label_vectors.T, 1)
        cosines[cosines < _RELATED] = 0
        into_place = csr_matrix(
            (np.ones(rows.size, np.float32), (rows, np.arange(rows.size))), (len(folded), rows.size)
        )
        return near.maximum(into_place @ csr_matrix(cosines))

    @cached_property
    def _label_vectors(self) -> Floats:
        assert self._embed is not None
        return self._embed(self._folded)


class NearestPath(NamedTuple):
    """The path nearest to some labels: its score, 0 to 1, and its share of the rows of all that score the same."""

    path: LabelPath
    score: float
    share: float


class PathMatcher:
    """Finds the path whose four labels are, taken together, nearest to those that a text gives."""

    def __init__(self, tree: LabelTree, embed: Embed | None = None) -> None:
        """Index a tree's paths. `embed` serves all levels but the brand, which is a name and has no meaning."""
        self._paths = tree.ranked  # so that the first of equals is the one with the most rows
        self._rows = np.array([tree.rows_of(path) for path in self._paths], np.float32)
        labels = [tuple(dict.fromkeys(column)) for column in zip(*self._paths, strict=True)]
        self._matchers = [LabelMatcher(known, embed) for known in labels[:-1]] + [LabelMatcher(labels[-1])]
        places = [{label: place for place, label in enumerate(known)} for known in labels]
        chains = {chain: place for place, chain in enumerate(dict.fromkeys(path[:3] for path in self._paths))}
        columns = zip(*chains, strict=True)
        self._chain_labels = [
            np.array([places[depth][label] for label in column]) for depth, column in enumerate(columns)
        ]
        self._path_chain = np.array([chains[path[:3]] for path in self._paths])
        self._path_brand = np.array([places[-1][path.brand] for path in self._paths])
        ones = np.ones(len(self._paths), np.float32)
        self._brands_of_chain = csr_matrix((ones, (self._path_chain, self._path_brand)))

    def nearest(self, readings: Sequence[Mapping[str, str]], by_meaning: bool = True) -> list[NearestPath]:
        """The nearest path of each mapping from levels to labels; the one with the most rows, where several are.

        The score is the weighted root mean square of the similarities over the levels that are given, so that one
        label that is right counts for more than two that are half right.
        """
        blocks = tqdm(_slices(len(readings), BLOCK), desc="nearest paths", delay=2, disable=None)
        return [found for block in blocks for found in self._nearest(readings[block], by_meaning)]

    def _nearest(self, readings: Sequence[Mapping[str, str]], by_meaning: bool) -> list[NearestPath]:
        given = np.array([[level in reading for level in LEVELS] for reading in readings])
        weights = (given * np.array(LEVEL_WEIGHTS)).astype(np.float32)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), _TIED)
        texts = [[reading.get(level, "") for reading in readings] for level in LEVELS]
        columns = zip(self._matchers, texts, strict=True)
        similar = [matcher.similar(column, by_meaning).power(2) for matcher, column in columns]
        best = self._best(similar, weights)

        # A short brand with a wrong letter has few n-grams in common with itself: the chain tells where to look for it.
        unsure = np.flatnonzero(best.brand < _SURE_BRAND**2 * weights[:, -1])
        among = self._brands_of_chain[self._path_chain[best.place[unsure]]] + self._brands_of_chain[best.chain[unsure]]
        brands = self._matchers[-1].similar_among([texts[-1][row] for row in unsure], among).power(2)
        again = self._best([*(level[unsure] for level in similar[:-1]), brands], weights[unsure])
        for all_rows, looked_up in zip(best, again, strict=True):
            all_rows[unsure] = looked_up
        return [
            NearestPath(self._paths[place], score, share)
            for place, score, share in zip(best.place, np.sqrt(best.score).tolist(), best.share.tolist(), strict=True)
        ]

    def _best(self, similar: Sequence[csr_matrix], weights: Floats) -> "_Best":
        """The best path of each row of four levels' squared similarities, weighted."""
        rows = len(weights)
        score, share, brand = np.zeros((3, rows), np.float32)
        best = _Best(np.zeros(rows, np.intp), score, share, brand, np.zeros(rows, np.intp))
        for chunk in _slices(rows, CHUNK):
            *upper, brands = (
                level[chunk].toarray() * weights[chunk, depth, None] for depth, level in enumerate(similar)
            )
            chains = sum(level.take(labels, axis=1) for level, labels in zip(upper, self._chain_labels, strict=True))
            paths = chains.take(self._path_chain, axis=1)
            paths += brands.take(self._path_brand, axis=1)
            best.score[chunk] = paths.max(axis=1)
            tied = paths >= best.score[chunk, None] - _TIED
            best.place[chunk] = place = tied.argmax(axis=1)
            row, rival = tied.nonzero()
            best.share[chunk] = self._rows[place] / np.bincount(row, weights=self._rows[rival])
            best.brand[chunk] = brands[np.arange(len(place)), self._path_brand[place]]
            best.chain[chunk] = chains.argmax(axis=1)
        return best


class _Best(NamedTuple):
    """Row by row: the best path's place, its score, its share of the rows of all that tie with it, how much of the
    score is its brand's, and the place of the best chain, whatever the brand."""

    place: Places
    score: Floats
    share: Floats
    brand: Floats
    chain: Places


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]
