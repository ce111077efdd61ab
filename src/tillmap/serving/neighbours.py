"""Finds the neighbours of new rows as the pipeline does, from its index and training rows."""

from collections.abc import Mapping
from functools import cached_property

import pandas as pd

from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import read_table
from tillmap.core.stored import read_rows
from tillmap.core.taxonomy import KEY, Key, LabelTree, Levels, RankedPaths
from tillmap.retrieval.base import Retriever
from tillmap.retrieval.cross_encoder import CrossScorer
from tillmap.retrieval.filters import Filters
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table
from tillmap.retrieval.paths import PathRows, candidate_paths
from tillmap.retrieval.vote import vote, votes_by_key

_TRAINING_COLUMNS = [*KEY, "subset", "description", "retailer", "price"]  # and the levels


class NeighbourFinder:
    """Finds the neighbours of new rows among the training rows. An index is loaded when it is first needed."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._found: tuple[pd.DataFrame, str, int, pd.DataFrame] | None = None

    def __call__(self, rows: pd.DataFrame, retriever: str, k: int | None = None) -> pd.DataFrame:
        """A neighbours table for some rows, the same as the `retrieve` stage would make.

        `retriever` is lexical, dense or hybrid. `k` is how many are needed of the `retrieval.k`; there may be
        more. The default is all. Raises InputError if the index or the training rows are missing.
        """
        chosen = self._params.retrieval
        k = min(k or chosen.k, chosen.k)
        # An explanation asks for some of the neighbours that the arm has just asked for.
        if self._found and self._found[0] is rows and self._found[1] == retriever and self._found[2] >= k:
            return self._found[3]
        filters = Filters(chosen.same_retailer, chosen.price_ratio, chosen.min_kept)
        names = ("dense", "lexical") if retriever == "hybrid" else (retriever,)
        tables = [neighbours_table(self._retriever(name), self.training, rows, k, filters=filters) for name in names]
        table = fuse(tables, chosen.hybrid_weights, k) if len(tables) > 1 else tables[0]
        if len(tables) > 1 and chosen.cross_encoder:
            table = self._cross_scorer.reorder(table, self.training, rows)
        self._found = rows, retriever, k, table
        return table

    @cached_property
    def labelled(self) -> pd.DataFrame:
        """The rows of the training subset, with the ids of the user's files (`given_id`) if they are others."""
        rows = read_rows(paths.ROWS)
        return rows[rows["subset"] == "train"]

    def votes(self, rows: pd.DataFrame) -> Mapping[Key, RankedPaths]:
        """The label paths of each row's neighbours, best first. They replace answers that name no path."""
        voting, levels = self._params.neighbours_vote, self._levels
        found = self(rows, voting.retriever)
        return votes_by_key(vote(found, self.training, rows[KEY], levels, voting.k, voting.power), levels)

    def candidates(self, rows: pd.DataFrame, ranked: Mapping[Key, RankedPaths]) -> pd.DataFrame:
        """The candidate paths of some rows, as the `candidates` stage lists them."""
        near = self(rows, "lexical")
        return candidate_paths(ranked, near, rows, training=self.training, levels=self._levels, rows=self._path_rows)

    @cached_property
    def _path_rows(self) -> PathRows:
        return PathRows(self.training, self._levels, self._lexical)

    @cached_property
    def training(self) -> pd.DataFrame:
        """The rows of the training subset."""
        rows = read_rows(paths.ROWS, [*_TRAINING_COLUMNS, *self._levels])
        return rows[rows["subset"] == "train"]

    @cached_property
    def _levels(self) -> Levels:
        return LabelTree.from_table(read_table(paths.TREE)).levels

    def _retriever(self, name: str) -> Retriever:
        return self._dense if name == "dense" else self._lexical

    @cached_property
    def _lexical(self) -> Retriever:
        return LexicalRetriever.load(paths.INDEX)

    @cached_property
    def _cross_scorer(self) -> CrossScorer:
        chosen = self._params.retrieval
        assert chosen.cross_encoder is not None
        return CrossScorer(chosen.cross_encoder, chosen.cross_encoder_revision, self._params.embedding.batch_size)

    @cached_property
    def _dense(self) -> Retriever:
        from tillmap.retrieval.dense import DenseRetriever
        from tillmap.retrieval.embedding import Embedder

        meaning = self._params.embedding
        return DenseRetriever.load(paths.INDEX, Embedder(meaning.model, meaning.revision, meaning.batch_size))
