"""Nearest known labels and label paths of a text, by similarity of characters and of meaning."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sparse_dot_topn import sp_matmul_topn
from tqdm import tqdm

from tillmap.core.taxonomy import LabelPath, LabelTree, Levels, trim
from tillmap.core.text import normalise

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.intp]
Embed = Callable[[Sequence[str]], Floats]  # from texts to unit vectors (texts, d)

CANDIDATES = 20  # labels compared in full with each text; the right one is among them for 99% of damaged brands
CHUNK = 256  # texts scored at a time against every label or path; limits memory
BLOCK = 16 * CHUNK  # readings compared together; equal texts in a block are compared once
# "beverages, bath & hand wash, green tea, tetley": module and brand are right, and must outweigh a wrong parent.
_PARENT, _DEEPEST = 0.4, 1.0  # weights of the levels; the brand weighs as much as the deepest level

# A text that is the first words of a label scores at least this: "leaf & dust" for "leaf & dust tea".
_MIN_PREFIX_SCORE = 0.9
# A text with a lower score for every label is also compared by meaning: "nappies" with "diapers". It finds half as many
# paraphrases again and costs no damaged label. Cosines below the second value are noise.
_MIN_ALIKE = 0.65
_MIN_RELATED = 0.3
# A brand with a lower score is compared with all brands of the chain: "ulx" shares no n-gram with "lux".
_MIN_SURE_BRAND = 0.8
_EPS = 1e-6  # scores closer than this are equal


def fold(label: str) -> str:
    """The normalised label, with its accents, or the label itself if it has only punctuation.

    Labels that differ in an accent stay different. A text without accents is still similar to its label.
    """
    return normalise(label, keep_accents=True) or label


def level_weights(levels: Levels) -> tuple[float, ...]:
    """The weight of each level.

    >>> level_weights(Levels(("supergroup", "group", "module", "brand"), "brand"))
    (0.4, 0.4, 1.0, 1.0)
    """
    return (*[_PARENT] * (levels.depth - 1), _DEEPEST, *[_DEEPEST] * (len(levels) - levels.depth))


class LabelMatcher:
    """Finds the nearest label of one level, by characters, and by meaning if characters find nothing similar."""

    def __init__(self, labels: Sequence[str], embed: Embed | None = None) -> None:
        """Index distinct labels, which may be none. Of equally similar labels the first one is the nearest.

        With `embed`, texts that are similar to no label by characters are also compared by their vectors.
        """
        self.labels = tuple(labels)
        self._folded = [fold(label) for label in self.labels]
        self._embed = embed
        self._vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), lowercase=False, dtype=np.float32)
        if self.labels:
            self._grams = self._vectoriser.fit_transform(self._folded).T.tocsr()
        # Most labels of an impossible path are known labels. The similarities of known labels are computed here, once.
        self._rows = {label: row for row, label in enumerate(dict.fromkeys(self._folded))}
        self._similar = self._compare(list(self._rows))

    def nearest(self, texts: Sequence[str]) -> tuple[list[str], Floats]:
        """The nearest label of each text, and its similarity, 0 (nothing in common with any label) to 1 (texts,)."""
        similar = self.similar(texts)
        labels: list[str] = []
        scores = np.zeros(len(texts), np.float32)
        for chunk in _slices(len(texts), CHUNK):
            dense = similar[chunk].toarray()
            labels += [self.labels[place] for place in dense.argmax(axis=1)]
            scores[chunk] = dense.max(axis=1)
        return labels, scores

    def similar(self, texts: Sequence[str], by_meaning: bool = True) -> csr_matrix:
        """Similarities (texts, labels), 0 to 1, sparse: only near labels have one. 1: equal when normalised."""
        folded = [fold(text) for text in texts]
        new = [text for text in dict.fromkeys(folded) if text not in self._rows]
        rows = self._rows | {text: len(self._rows) + place for place, text in enumerate(new)}
        similar = self._compare(new)
        if self._embed and by_meaning and new and self.labels:
            similar = self._compare_meaning(self._embed, new, similar)
        return vstack([self._similar, similar], format="csr")[[rows[text] for text in folded]]

    def similar_among(self, texts: Sequence[str], among: csr_matrix) -> csr_matrix:
        """Like `similar`, but compares each text also with the labels marked in its row of `among` (texts, labels)."""
        return self._compare([fold(text) for text in texts], among)

    def _compare(self, folded: list[str], among: csr_matrix | None = None) -> csr_matrix:
        """The similarities of each text to its 20 candidates by TF-IDF, and to the labels in `among`."""
        if not folded or not self.labels:
            return csr_matrix((len(folded), len(self.labels)), dtype=np.float32)
        pairs = sp_matmul_topn(self._vectoriser.transform(folded), self._grams, top_n=CANDIDATES, sort=True)
        if among is not None:
            pairs = pairs + among * np.float32(_EPS)  # only to add the entries to the sparse matrix
        rows = np.repeat(np.arange(len(folded)), np.diff(pairs.indptr))
        pairs.data = self._by_characters(folded, rows, pairs.indices, pairs.data)
        return pairs

    def _by_characters(self, folded: list[str], rows: Places, columns: Places, cosines: Floats) -> Floats:
        """The similarity of each pair of text and label, in the better of two ways.

        Reworded ("soaps & bathing bars"): the mean of the TF-IDF cosine, the ratio and the ratio with sorted words.
        Mistyped ("detol"): the mean of the ratio and the edit similarity, in which two swapped letters are one edit.
        """
        texts = [folded[row] for row in rows]
        labels = [self._folded[column] for column in columns]
        ratio = process.cpdist(texts, labels, scorer=fuzz.ratio, dtype=np.float32) / 100
        sorted_ratio = process.cpdist(texts, labels, scorer=fuzz.token_sort_ratio, dtype=np.float32) / 100
        typed = process.cpdist(texts, labels, scorer=OSA.normalized_similarity, dtype=np.float32)
        score: Floats = np.maximum((cosines + ratio + sorted_ratio) / 3, (ratio + typed) / 2)
        begins = np.fromiter((b.startswith(a + " ") for a, b in zip(texts, labels, strict=True)), bool, len(texts))
        score[begins] = np.maximum(score, _MIN_PREFIX_SCORE + (1 - _MIN_PREFIX_SCORE) * ratio)[begins]
        return np.minimum(score, 1, out=score)

    def _compare_meaning(self, embed: Embed, folded: list[str], near: csr_matrix) -> csr_matrix:
        """In the rows of `near` without a similar label, take the cosines of the vectors if they are higher."""
        unlike = (near.max(axis=1).toarray().ravel() < _MIN_ALIKE) & np.array([text != "" for text in folded])
        rows = np.flatnonzero(unlike)
        if not rows.size:
            return near
        cosines = np.minimum(embed([folded[row] for row in rows]) @ self._label_vectors.T, 1)
        cosines[cosines < _MIN_RELATED] = 0
        into_place = csr_matrix(
            (np.ones(rows.size, np.float32), (rows, np.arange(rows.size))), (len(folded), rows.size)
        )
        return near.maximum(into_place @ csr_matrix(cosines))

    @cached_property
    def _label_vectors(self) -> Floats:
        assert self._embed is not None
        return self._embed(self._folded)


class NearestPath(NamedTuple):
    """The path nearest to some labels, its score, 0 to 1, and its share of the rows of all paths with that score."""

    path: LabelPath
    score: float
    share: float


class PathMatcher:
    """Finds the path whose labels, all together, are nearest to those of a text."""

    def __init__(self, tree: LabelTree, embed: Embed | None = None, *, from_end: bool = False) -> None:
        """Index the paths of a tree. `embed` is used for all levels but the brand: a name has no meaning to compare.

        With `from_end` the levels count from the end of a path's chain: the deepest one is that of its last label,
        wherever the chain ends. This differs only for a tree whose paths end at different levels.
        """
        levels = tree.levels
        self._levels, self._weights = levels, np.array(level_weights(levels))
        self._paths = tree.ranked  # of equal scores the first wins: the path with the most rows
        self._rows = np.array([tree.rows_of(path) for path in self._paths], np.float32)
        of_paths = [levels.chain_of(path) for path in self._paths]
        chains = {chain: place for place, chain in enumerate(dict.fromkeys(of_paths))}
        self._path_chain = np.array([chains[chain] for chain in of_paths])
        aligned = [_to_end(chain) for chain in chains] if from_end else list(chains)
        columns = [_Column(column, embed) for column in zip(*aligned, strict=True)]
        self._chain_columns = columns
        self._brand = None if levels.brand is None else _Column([path[-1] for path in self._paths])
        if self._brand:
            known = np.flatnonzero(self._brand.places < len(self._brand.matcher.labels))
            self._brands_of_chain = csr_matrix(
                (np.ones(len(known), np.float32), (self._path_chain[known], self._brand.places[known])),
                (len(chains), len(self._brand.matcher.labels)),
            )

    def nearest(self, readings: Sequence[Mapping[str, str]], by_meaning: bool = True) -> list[NearestPath]:
        """The nearest path of each reading, a mapping from levels to labels. Of equal ones, that with the most rows.

        The score is the weighted root mean square of the similarities of the given levels. With it one right label
        counts more than two that are half right: similarities of 1 and 0 give 0.71, two of 0.5 give 0.5.
        """
        blocks = tqdm(_slices(len(readings), BLOCK), desc="nearest paths", delay=2, disable=None)
        return [found for block in blocks for found in self._nearest(readings[block], by_meaning)]

    def _nearest(self, readings: Sequence[Mapping[str, str]], by_meaning: bool) -> list[NearestPath]:
        given = np.array([[level in reading for level in self._levels] for reading in readings])
        weights = (given * self._weights).astype(np.float32)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), _EPS)
        texts = [[reading.get(level, "") for reading in readings] for level in self._levels]
        columns = zip([*self._chain_columns, *([self._brand] if self._brand else [])], texts, strict=True)
        similar = [column.matcher.similar(given, by_meaning).power(2) for column, given in columns]
        best = self._best(similar, weights)
        if self._brand:
            # A short brand with a wrong letter may share no n-gram with the right one, which is no candidate then.
            # Compare it with all brands of the best path's chain and of the best chain.
            unsure = np.flatnonzero(best.brand < _MIN_SURE_BRAND**2 * weights[:, -1])
            of_chain = self._brands_of_chain
            among = of_chain[self._path_chain[best.place[unsure]]] + of_chain[best.chain[unsure]]
            brands = self._brand.matcher.similar_among([texts[-1][row] for row in unsure], among).power(2)
            again = self._best([*(level[unsure] for level in similar[:-1]), brands], weights[unsure])
            for all_rows, looked_up in zip(best, again, strict=True):
                all_rows[unsure] = looked_up
        return [
            NearestPath(self._paths[place], score, share)
            for place, score, share in zip(best.place, np.sqrt(best.score).tolist(), best.share.tolist(), strict=True)
        ]

    def _best(self, similar: Sequence[csr_matrix], weights: Floats) -> "_Best":
        """The best path of each row, from the squared similarities of the levels and `weights` (rows, levels)."""
        rows = len(weights)
        score, share, brand = np.zeros((3, rows), np.float32)
        best = _Best(np.zeros(rows, np.intp), score, share, brand, np.zeros(rows, np.intp))
        for chunk in _slices(rows, CHUNK):
            weighted = [level[chunk].toarray() * weights[chunk, depth, None] for depth, level in enumerate(similar)]
            # Without a brand level, zip leaves nothing out: there are as many chain columns as levels.
            parts = [column.take(level) for level, column in zip(weighted, self._chain_columns, strict=False)]
            chains: Floats = reduce(np.add, parts)
            paths = chains.take(self._path_chain, axis=1)
            if self._brand:
                brands = self._brand.take(weighted[-1])
                paths += brands
            best.score[chunk] = paths.max(axis=1)
            tied = paths >= best.score[chunk, None] - _EPS
            best.place[chunk] = place = tied.argmax(axis=1)
            row, rival = tied.nonzero()
            total, count = np.bincount(row, weights=self._rows[rival]), np.bincount(row)
            best.share[chunk] = np.divide(self._rows[place], total, out=1 / count, where=total > 0)
            if self._brand:
                best.brand[chunk] = brands[np.arange(len(place)), place]
            best.chain[chunk] = chains.argmax(axis=1)
        return best


class _Column:
    """The labels of one level of some paths or chains, "" where there is none."""

    def __init__(self, column: Sequence[str], embed: Embed | None = None) -> None:
        labels = tuple(dict.fromkeys(label for label in column if label))
        places = {label: place for place, label in enumerate(labels)} | {"": len(labels)}
        self.matcher = LabelMatcher(labels, embed)
        self.places: Places = np.array([places[label] for label in column])
        self._gaps = "" in column

    def take(self, similar: Floats) -> Floats:
        """The similarity of each path's label (texts, paths), from those of all labels (texts, labels); 0 for none."""
        if self._gaps:
            similar = np.pad(similar, ((0, 0), (0, 1)))
        return similar.take(self.places, axis=1)


def _to_end(chain: Sequence[str]) -> tuple[str, ...]:
    """A chain with its gap in front: ("", "food", "bread") of ("food", "bread", "")."""
    labels = trim(chain)
    return (*[""] * (len(chain) - len(labels)), *labels)


class _Best(NamedTuple):
    """The best path of each row.

    Attributes:
        place: the path's position in the ranked paths.
        score: its weighted mean of squared similarities.
        share: its share of the rows of all paths with an equal score.
        brand: the part of the score that comes from the brand.
        chain: the position of the best chain, whatever the brand.
    """

    place: Places
    score: Floats
    share: Floats
    brand: Floats
    chain: Places


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]
