"""Reorders neighbours with a cross-encoder, a model that reads two texts together. Slow without a GPU."""

import logging
import sys
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tillmap.core.errors import ModelError, model_errors
from tillmap.core.files import require_no_adapter
from tillmap.core.machine import use_threads
from tillmap.core.text import normalise
from tillmap.retrieval.base import Floats
from tillmap.retrieval.embedding import find_model

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

log = logging.getLogger(__name__)


class CrossScorer:
    """Scores how similar two descriptions are, from 0 to 1. Each distinct pair is read once."""

    def __init__(
        self, model: str | Path, revision: str | None = None, batch_size: int = 64, device: str | None = None
    ) -> None:
        """Find the model. See `find_model` for the arguments and errors; `device` None takes a GPU if there is one."""
        self.folder = find_model(model, revision)
        require_no_adapter(self.folder)
        self._batch_size, self._device = batch_size, device

    @cached_property
    def model(self) -> "CrossEncoder":
        """The model, loaded on first use. Raises ModelError if its files are damaged or it gives several scores."""
        from sentence_transformers import CrossEncoder

        use_threads()
        with self._told():
            model = CrossEncoder(
                str(self.folder),
                device=self._device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
            labels = int(model.config.num_labels)
        if labels != 1:
            raise ModelError(
                f"{self.folder}: gives {labels} scores for a pair, expected 1; give another cross-encoder in "
                "`retrieval.cross_encoder`"
            )
        return model

    def _told(self) -> AbstractContextManager[None]:
        return model_errors(
            f"{self.folder}: not a cross-encoder with safetensors weights",
            "download it again, or give another one in `retrieval.cross_encoder`",
        )

    def reorder(self, neighbours: pd.DataFrame, rows: pd.DataFrame, queries: pd.DataFrame) -> pd.DataFrame:
        """The same neighbours of each query, by falling score of the model. Equal scores keep their order.

        Args:
            neighbours: a neighbours table.
            rows: id and description of the indexed rows.
            queries: split, id and description.

        Raises ModelError if the model is damaged.
        """
        if neighbours.empty:
            return neighbours
        keys = ["split", "id"]
        asked = pd.MultiIndex.from_frame(queries[keys]).get_indexer(pd.MultiIndex.from_frame(neighbours[keys]))
        near = pd.Index(rows["id"]).get_indexer(pd.Index(neighbours["neighbour"]))
        mine = [normalise(text) for text in queries["description"].to_numpy()[asked]]
        theirs = [normalise(text) for text in rows["description"].to_numpy()[near]]
        pairs = list(zip(mine, theirs, strict=True))
        distinct = list(dict.fromkeys(pairs))
        log.info("reading %d pairs of texts with the cross-encoder", len(distinct))
        given = self._scores(distinct)
        score_of = dict(zip(distinct, given, strict=True))
        table = neighbours.assign(score=np.array([score_of[pair] for pair in pairs], dtype=np.float32), _query=asked)
        # Queries keep their order; within one the sort is stable.
        table["_place"] = table.groupby("_query", sort=False).ngroup()
        table = table.sort_values(["_place", "score"], ascending=[True, False], kind="stable", ignore_index=True)
        table["rank"] = table.groupby("_place").cumcount()
        return table[list(neighbours.columns)]

    def _scores(self, pairs: list[tuple[str, str]]) -> Floats:
        """The scores [p] of pairs. Rounded, because the last bits depend on how pairs are batched."""
        from torch.nn import Sigmoid

        with self._told():
            scores = self.model.predict(
                pairs, batch_size=self._batch_size, activation_fn=Sigmoid(), show_progress_bar=sys.stderr.isatty()
            )
            if not np.isfinite(scores).all():  # their order would be none
                raise ValueError("it gives scores that are no numbers")
        return np.round(np.asarray(scores, dtype=np.float64), 5).astype(np.float32)
