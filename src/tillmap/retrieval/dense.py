"""Neighbours by meaning: sentence embeddings in a FAISS index."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import require_readable
from tillmap.retrieval.base import HOW_TO_GET, MAX_PAIRS, Descriptions, Floats, Ids, Retriever, Texts, read_tensors
from tillmap.retrieval.embedding import Embedder

log = logging.getLogger(__name__)

K_FACTOR = 40  # candidates found by compressed vectors and scored again with the full ones, as a multiple of k
_MIN_QUANTISED = 16  # 4 bits need so many texts to learn from
PAIRS = 50_000  # of a query and a text that are compared at a time
CHUNK = 1024  # queries per FAISS call: limits memory and updates the progress bar


class DenseRetriever(Retriever):
    """Cosine similarity of embeddings. A text's id in FAISS is its key, the lowest id of the rows that have it."""

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
        exact = len(distinct) <= max(flat_up_to, _MIN_QUANTISED) or dimension % 4
        kind = "Flat" if exact else f"PQ{dimension // 4}x4fs,RFlat"
        log.info("indexing %d texts of %d rows as %s", len(distinct), len(texts.rows), kind)
        engine = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        if not exact:
            faiss.ParameterSpace().set_index_parameter(engine, "k_factor_rf", K_FACTOR)
            engine.train(vectors)
        index = faiss.IndexIDMap2(engine)
        index.add_with_ids(vectors, texts.keys)
        return cls(texts, index, embedder)

    def nearest(self, queries: list[str], k: int, among: Ids | None) -> tuple[Ids, Floats]:
        """See `Retriever.nearest`. A restricted search is always exact."""
        vectors = self.embedder.encode(queries)
        keys = self.texts.keys
        # FAISS cannot search part of a quantised index, nor rescore more candidates than it has vectors. Such searches
        # compare the full vectors.
        among = np.arange(len(keys)) if among is None and k * K_FACTOR > len(keys) else among
        subset = None if among is None else self.index.reconstruct_batch(keys[among])
        found, scores = [], []
        chunk = max(1, min(CHUNK, MAX_PAIRS // k))
        for start in tqdm(range(0, len(vectors), chunk), desc="dense search", unit="chunk", leave=None, disable=None):
            batch = vectors[start : start + chunk]
            if among is None:
                similar, ids = self.index.search(batch, k)
                positions = np.where(ids >= 0, np.searchsorted(keys, ids), -1)
            else:
                similar, order = faiss.knn(batch, subset, k, metric=faiss.METRIC_INNER_PRODUCT)
                positions = np.where(order >= 0, among[order], -1)
            found.append(positions)
            scores.append(similar)
        return np.concatenate(found).astype(np.int64), np.concatenate(scores)

    def similarity(self, queries: list[str], which: Ids, positions: Ids) -> Floats:
        """See `Retriever.similarity`."""
        vectors, keys = self.embedder.encode(queries), self.texts.keys
        scores = np.zeros(len(which), dtype=np.float32)
        for start in range(0, len(which), PAIRS):
            here = slice(start, start + PAIRS)
            texts = self.index.reconstruct_batch(keys[positions[here]])
            scores[here] = np.einsum("pd,pd->p", vectors[which[here]], texts)
        return scores

    def save(self, folder: Path) -> None:
        """Write `dense.faiss` and `dense.safetensors` (the rows of each text)."""
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.index, str(folder / "dense.faiss"))
        save_file(self.texts.tensors(), folder / "dense.safetensors")

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> Self:
        """Read what `save` wrote.

        Raises InputError if a file is missing or damaged, ModelError if the model's vectors have another length.
        """
        texts = Texts.of_tensors(read_tensors(folder / "dense.safetensors"))
        path = folder / "dense.faiss"
        require_readable(path)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: missing, or not a FAISS index; delete it and {HOW_TO_GET}") from error
        if index.d != embedder.dimension:
            raise ModelError(
                f"{path} holds vectors of length {index.d}, but the embedding model gives {embedder.dimension}; "
                "run `dvc repro index` to build it with this model"
            )
        return cls(texts, index, embedder)
