"""Neighbours by meaning: sentence embeddings in a FAISS index under explicit ids."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import faiss
import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from tillmap.core.errors import InputError, ModelError
from tillmap.retrieval.base import HOW_TO_GET, MAX_PAIRS, Descriptions, Floats, Ids, Retriever, Texts, read_tensors
from tillmap.retrieval.embedding import Embedder

log = logging.getLogger(__name__)

K_FACTOR = 40  # candidates of the compressed codes that are scored again, as a multiple of k
CHUNK = 1024  # queries a call: bounds the memory of a search and moves the progress bar


class DenseRetriever(Retriever):
    """Cosine similarity of embeddings. A text's id in FAISS is the lowest id of the training rows that print it."""

    def __init__(self, texts: Texts, index: faiss.Index, embedder: Embedder) -> None:
        super().__init__(texts)
        self.index = index
        self.embedder = embedder

    @classmethod
    def build(
        cls, ids: Sequence[int] | Ids, descriptions: Descriptions, embedder: Embedder, flat_up_to: int = 100_000
    ) -> Self:
        """Index rows under their ids.

        Up to `flat_up_to` distinct texts the search is exact. Beyond, 4-bit product quantisation with d/4 parts
        proposes 40 k candidates that are scored again with the full vectors: 0.997 of the exact first five.
        Memory: 4d bytes a distinct text, a tenth more when quantised. Raises InputError as `Texts.group`.
        """
        texts, distinct = Texts.group(ids, descriptions)
        vectors = embedder.encode(distinct)
        dimension = vectors.shape[1]
        exact = len(distinct) <= flat_up_to or dimension % 4
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
        """As `Retriever.nearest`; a restricted search is always exact."""
        vectors = self.embedder.encode(queries)
        keys = self.texts.keys
        # FAISS cannot restrict its quantised index, nor refine a great share of it: those vectors are all compared.
        among = np.arange(len(keys)) if among is None and k * K_FACTOR > len(keys) else among
        subset = None if among is None else self.index.reconstruct_batch(keys[among])
        found, scores = [], []
        chunk = max(1, min(CHUNK, MAX_PAIRS // k))
        for start in tqdm(range(0, len(vectors), chunk), desc="dense search", unit="chunk", leave=None, disable=None):
            part = vectors[start : start + chunk]
            if among is None:
                similar, ids = self.index.search(part, k)
                positions = np.where(ids >= 0, np.searchsorted(keys, ids), -1)
            else:
                similar, order = faiss.knn(part, subset, k, metric=faiss.METRIC_INNER_PRODUCT)
                positions = np.where(order >= 0, among[order], -1)
            found.append(positions)
            scores.append(similar)
        return np.concatenate(found).astype(np.int64), np.concatenate(scores)

    def save(self, folder: Path) -> None:
        """Write `dense.faiss` and `dense.safetensors` (the rows of each text)."""
        folder.mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.index, str(folder / "dense.faiss"))
        save_file(self.texts.tensors(), folder / "dense.safetensors")

    @classmethod
    def load(cls, folder: Path, embedder: Embedder) -> Self:
        """Read what `save` wrote.

        Raises InputError when it is not there, ModelError when the model's vectors are of another length.
        """
        texts = Texts(**read_tensors(folder / "dense.safetensors"))
        path = folder / "dense.faiss"
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"{path}: not a FAISS index, or not there; delete it and {HOW_TO_GET}") from error
        if index.d != embedder.dimension:
            raise ModelError(
                f"{path} holds vectors of length {index.d}, the embedding model gives {embedder.dimension}; "
                "build the index again with this model"
            )
        return cls(texts, index, embedder)
