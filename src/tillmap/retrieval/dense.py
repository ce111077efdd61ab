"""Neighbours by meaning: sentence embeddings in a FAISS index."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from tillmap.core.arrays import require_numbers
from tillmap.core.errors import InputError, ModelError
from tillmap.retrieval.base import HOW_TO_GET, MAX_PAIRS, Descriptions, Floats, Ids, Retriever, Texts, read_tensors
from tillmap.retrieval.embedding import Embedder

log = logging.getLogger(__name__)

K_FACTOR = 40  # candidates found by compressed vectors and scored again with the full ones, as a multiple of k
_PART = 4  # dimensions of a vector that one code stands for
_CODES = 16  # as many as 4 bits can tell apart; to learn them takes as many texts
PAIRS = 50_000  # of a query and a text that are compared at a time
CHUNK = 1024  # queries per FAISS call: limits memory and updates the progress bar


class DenseRetriever(Retriever):
    """Cosine similarity of embeddings. A text's number in FAISS is its position."""

    def __init__(self, texts: Texts, index: faiss.Index, embedder: Embedder) -> None:
        super().__init__(texts)
        self.index = index
        self.embedder = embedder

    @classmethod
    def build(
        cls,
        ids: Sequence[int] | Ids,
        descriptions: Descriptions,
        embedder: Embedder,
        flat_up_to: int = 100_000,
        *,
        sizes: bool = True,
    ) -> Self:
        """Build an index of rows.

        Up to `flat_up_to` distinct texts the search is exact. Above, 4-bit product quantisation with d/4 parts finds
        40 k candidates, which are scored again with the full vectors: 0.997 of the exact first five neighbours, 7
        times as fast. Memory: 4d bytes per distinct text, a tenth more if quantised.

        Without `sizes`, the weights, volumes, counts and prices in texts are left out.

        Raises InputError as `Texts.group` does.
        """
        texts, distinct = Texts.group(ids, descriptions, sizes=sizes)
        vectors = embedder.encode(distinct)
        dimension = vectors.shape[1]
        exact = len(distinct) <= max(flat_up_to, _CODES) or dimension % _PART
        log.info(
            "indexing %d texts of %d rows, %s", len(distinct), len(texts.rows), "exactly" if exact else "in 4-bit codes"
        )
        return cls(texts, _exact(vectors) if exact else _quantised(vectors), embedder)

    def nearest(self, queries: list[str], k: int, among: Ids | None) -> tuple[Ids, Floats]:
        """See `Retriever.nearest`. A restricted search is always exact."""
        vectors, size = self.embedder.encode(queries), len(self.texts.keys)
        # FAISS cannot search part of a quantised index, nor rescore more candidates than it has vectors. Such searches
        # compare the full vectors.
        among = np.arange(size) if among is None and k * K_FACTOR > size else among
        subset = None if among is None else self.index.reconstruct_batch(among)
        found, scores = [], []
        chunk = max(1, min(CHUNK, MAX_PAIRS // k))
        for start in tqdm(range(0, len(vectors), chunk), desc="dense search", unit="chunk", leave=None, disable=None):
            batch = vectors[start : start + chunk]
            if among is None:
                similar, positions = self.index.search(batch, k)
            else:
                similar, order = faiss.knn(batch, subset, k, metric=faiss.METRIC_INNER_PRODUCT)
                positions = np.where(order >= 0, among[order], -1)
            found.append(positions)
            scores.append(similar)
        return np.concatenate(found).astype(np.int64), np.concatenate(scores)

    def similarity(self, queries: list[str], which: Ids, positions: Ids) -> Floats:
        """See `Retriever.similarity`."""
        vectors = self.embedder.encode(queries)
        scores = np.zeros(len(which), dtype=np.float32)
        for start in range(0, len(which), PAIRS):
            here = slice(start, start + PAIRS)
            texts = self.index.reconstruct_batch(positions[here])
            scores[here] = np.einsum("pd,pd->p", vectors[which[here]], texts)
        return scores

    def save(self, folder: Path) -> None:
        """Write `dense.safetensors`: the rows of each text, the vectors, and what a quantised index has learned.

        FAISS's own file format is not used: the C++ code that reads it trusts every number in a file.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.texts.tensors() | {"vectors": self.index.reconstruct_batch(np.arange(self.index.ntotal))}
        if isinstance(self.index, faiss.IndexRefineFlat):
            tensors["centroids"] = faiss.vector_to_array(_codes(self.index).pq.centroids)
        save_file(tensors, folder / "dense.safetensors")

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> Self:
        """Read what `save` wrote.

        Raises InputError if the file is missing or damaged, ModelError if the model's vectors have another length.
        """
        path = folder / "dense.safetensors"
        tensors = read_tensors(path)
        texts = Texts.of_tensors(tensors)
        try:
            vectors, centroids = _checked(tensors, len(texts.keys))
        except (KeyError, ValueError) as error:
            raise InputError(f"{path}: damaged, or of another version ({error}); delete it and {HOW_TO_GET}") from None
        dimension = vectors.shape[1]
        if dimension != embedder.dimension:
            raise ModelError(
                f"{path} holds vectors of length {dimension}, but the embedding model gives {embedder.dimension}; "
                "run `dvc repro index` to build it with this model"
            )
        return cls(texts, _exact(vectors) if centroids is None else _quantised(vectors, centroids), embedder)


def _checked(tensors: Mapping[str, NDArray[Any]], size: int) -> tuple[Floats, Floats | None]:
    """The vectors [size, d], and the centroids [16 d] if they are quantised.

    Raises KeyError or ValueError if they are not there, or would lead FAISS astray.
    """
    vectors, centroids = tensors["vectors"], tensors.get("centroids")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.shape[1]:
        raise ValueError("expected vectors of 32-bit floats")
    dimension = vectors.shape[1]
    require_numbers(vectors.ravel(), size * dimension)
    if centroids is not None:
        require_numbers(centroids, _CODES * dimension)
        if dimension % _PART or size < _CODES:
            raise ValueError(f"{size} vectors of length {dimension} have no 4-bit codes")
    return vectors, centroids


def _exact(vectors: Floats) -> faiss.Index:
    """An index that compares a query with all vectors [t, d]."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _quantised(vectors: Floats, centroids: Floats | None = None) -> faiss.Index:
    """An index of 4-bit codes of vectors [t, d]; the vectors score again what the codes find.

    Without the centroids [16 d] of an index that was saved, it learns them from the vectors.
    """
    index = faiss.index_factory(
        vectors.shape[1], f"PQ{vectors.shape[1] // _PART}x4fs,RFlat", faiss.METRIC_INNER_PRODUCT
    )
    faiss.ParameterSpace().set_index_parameter(index, "k_factor_rf", K_FACTOR)
    if centroids is None:
        index.train(vectors)
    else:
        codes = _codes(index)
        faiss.copy_array_to_vector(centroids.astype(np.float32), codes.pq.centroids)
        codes.is_trained = index.is_trained = True
    index.add(vectors)
    return index


def _codes(index: Any) -> Any:
    """The part of a quantised index that has the codes."""
    return faiss.downcast_index(index.base_index)
