"""Sparse weights of trained heads, and the ranking of whole label paths by the scores of their labels."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from tillmap.core.arrays import require_numbers, require_places, require_starts
from tillmap.core.compiled import compiled
from tillmap.core.errors import ModelError, first_line
from tillmap.core.files import require_readable
from tillmap.linear.training import Floats, Ints

_BYTES = 4  # per stored weight: column and value, two bytes each
_MAX_COLUMNS = 2**16
_MIN_WEIGHT = 0.02  # smaller weights are dropped; on real receipts even 0.04 hardly changes an answer
_MIN_FULL_SHARE = 0.2  # a line with more non-zero weights than this is faster added as a dense row


class Ranking(NamedTuple):
    """The best paths of each row, and the scores of its heads.

    Attributes:
        paths: (rows, k), positions in the layout's paths, best first; -1 if there are fewer than k.
        scores: (rows, k), the scores of these paths.
        best, second: (rows, heads), the two highest scores of each head.
        winner: (rows, heads), the scores of the best path's labels.
        free: (rows, 2), the positions of the best chain and of the best brand, known together or not; the brand's is 0
            if there is no brand level.
        free_score: (rows,), the score of that chain with that brand.
    """

    paths: Ints
    scores: Floats
    best: Floats
    second: Floats
    winner: Floats
    free: Ints
    free_score: Floats


@dataclass(frozen=True)
class Layout:
    """What the columns of the heads stand for. The first heads are the levels.

    Attributes:
        columns: the columns of all heads, head after head, each ascending.
        ends: (heads + 1,). Head h has columns[ends[h]] to columns[ends[h + 1] - 1].
        paths: (heads, paths), the columns of each path's labels.
        chains: (chain levels, chains), the columns of each chain's labels.
        chain_of: (paths,), the position of each path's chain.
        brand: whether the head after those of the chain levels is that of the brand.
    """

    columns: Ints
    ends: Ints
    paths: Ints
    chains: Ints
    chain_of: Ints
    brand: bool


@dataclass(frozen=True)
class SparseHeads:
    """The weights of `train_heads`, one line of non-zero weights per term, and the biases."""

    starts: Ints
    columns: NDArray[np.uint16]
    values: Floats
    biases: Floats

    @classmethod
    def prune(cls, weights: Floats, biases: Floats, max_mib: float) -> Self:
        """Keep the largest weights, as many as fit into `max_mib` (a few more if some are equal).

        Raises ModelError if there are more than 65,536 labels, because a column is stored in two bytes.
        """
        if len(biases) > _MAX_COLUMNS:
            raise ModelError(
                f"linear model: {len(biases):,} labels in the catalogue; expected at most {_MAX_COLUMNS:,}"
            )
        kept = [np.flatnonzero(np.abs(line) >= _MIN_WEIGHT) for line in weights]
        values = np.concatenate([line[places] for line, places in zip(weights, kept, strict=True)])
        columns = np.concatenate(kept).astype(np.uint16)
        starts = np.cumsum([0, *map(len, kept)], dtype=np.int64)
        most = max(1, int(max_mib * 2**20 / _BYTES))
        if len(values) > most:
            least = np.partition(np.abs(values), -most)[-most]
            large = np.abs(values) >= least
            starts = np.concatenate([[0], np.cumsum(large)])[starts]
            values, columns = values[large], columns[large]
        # Rounded like the stored values, so that a loaded model answers exactly as this one does.
        return cls(starts, columns, values.astype(np.float16).astype(np.float32), biases)

    def rank(self, features: csr_matrix, layout: Layout, head_weights: Floats, k: int) -> Ranking:
        """Rank the paths of each row of `features` (rows, terms) by the sum of the heads' scores times `head_weights`.

        Of paths with equal scores the first in the layout is ranked first.
        """
        rows, heads = features.shape[0], len(layout.ends) - 1
        best, second, winner = np.full((3, rows, heads), -np.inf, dtype=np.float32)
        ranking = Ranking(
            np.full((rows, k), -1, dtype=np.int64),
            np.full((rows, k), -np.inf, dtype=np.float32),
            best,
            second,
            winner,
            np.zeros((rows, 2), dtype=np.int64),
            np.full(rows, -np.inf, dtype=np.float32),
        )
        _compiled_rank(
            features.indptr, features.indices, features.data, self.starts, self.columns, self.values, self.biases,
            *self._full_lines, layout.columns, layout.ends, layout.paths, layout.chains, layout.chain_of, layout.brand,
            head_weights.astype(np.float32), *ranking,
        )  # fmt: skip
        return ranking

    def score(self, features: csr_matrix) -> Floats:
        """The score of every label (rows, labels) for rows of `features` (rows, terms)."""
        scores = np.empty((features.shape[0], len(self.biases)), dtype=np.float32)
        _score_rows(
            features.indptr, features.indices, features.data, self.starts, self.columns, self.values, self.biases,
            *self._full_lines, scores,
        )  # fmt: skip
        return scores

    @cached_property
    def _full_lines(self) -> tuple[NDArray[np.int32], Floats]:
        """The long lines as a dense matrix, after the position of each line in it (terms,), -1 for short lines."""
        lengths = np.diff(self.starts)
        full = np.flatnonzero(lengths > _MIN_FULL_SHARE * len(self.biases))
        rows = np.full(len(lengths), -1, dtype=np.int32)
        rows[full] = np.arange(len(full))
        lines = np.zeros((len(full), len(self.biases)), dtype=np.float32)
        for row, line in enumerate(full):
            entries = slice(self.starts[line], self.starts[line + 1])
            lines[row, self.columns[entries]] = self.values[entries]
        return rows, lines

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        tensors: dict[str, NDArray[Any]] = {
            "starts": self.starts,
            "columns": self.columns,
            "values": self.values.astype(np.float16),
            "biases": self.biases,
        }
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises ModelError if the file is missing or damaged, InputError if it is private."""
        require_readable(path)
        try:
            tensors = load_file(path)
            starts, columns, biases = tensors["starts"], tensors["columns"], tensors["biases"]
            values = tensors["values"].astype(np.float32)
            require_starts(starts, len(columns))
            require_places(columns, len(biases))
            require_numbers(values, len(columns))
            require_numbers(biases, len(biases))
            return cls(starts.astype(np.int64), columns.astype(np.uint16), values, biases.astype(np.float32))
        except FileNotFoundError:
            raise ModelError(
                f"{path}: file not found; run `dvc repro` to train the model, or `dvc pull` to fetch it"
            ) from None
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise ModelError(
                f"{path}: not a linear model ({first_line(error)}); delete it and run `dvc repro`"
            ) from None


@compiled
def _score_row(  # noqa: PLR0917 - for the compiler
    terms: Any, values: Any, line_starts: Any, line_columns: Any, line_values: Any, biases: Any, full_rows: Any,
    full_lines: Any, score: Any,
) -> None:  # fmt: skip
    """Fill `score` with the score of every label for one row: bias plus features times weights."""
    score[:] = biases
    for place in range(len(terms)):
        line, value = terms[place], values[place]
        if full_rows[line] >= 0:
            full = full_lines[full_rows[line]]
            for column in range(len(score)):
                score[column] += value * full[column]
        else:
            for entry in range(line_starts[line], line_starts[line + 1]):
                score[line_columns[entry]] += value * line_values[entry]


@compiled
def _score_rows(  # noqa: PLR0917 - one loop for the compiler
    starts: Any, terms: Any, values: Any, line_starts: Any, line_columns: Any, line_values: Any, biases: Any,
    full_rows: Any, full_lines: Any, scores: Any,
) -> None:  # fmt: skip
    for row in range(len(scores)):
        _score_row(
            terms[starts[row] : starts[row + 1]], values[starts[row] : starts[row + 1]],
            line_starts, line_columns, line_values, biases, full_rows, full_lines, scores[row],
        )  # fmt: skip


def _rank(  # noqa: PLR0912, PLR0917 - one loop for the compiler
    starts: Any, terms: Any, values: Any, line_starts: Any, line_columns: Any, line_values: Any, biases: Any,
    full_rows: Any, full_lines: Any, columns: Any, ends: Any, path_columns: Any, chain_columns: Any, chain_of: Any,
    branded: Any, head_weights: Any,
    paths: Any, scores: Any, best: Any, second: Any, winner: Any, free: Any, free_score: Any,
) -> None:  # fmt: skip
    """Fill the arrays of a `Ranking`, row by row.

    The score of a path is its chain's score plus its brand's, and its own if there is a head of siblings. Many paths
    share a chain, so the chains' scores are added up first.
    """
    heads, known = path_columns.shape
    depth = chain_columns.shape[0]  # and the position of the brand's head
    last = paths.shape[1] - 1
    score = np.empty(biases.shape[0], np.float32)
    total = np.empty(known, np.float32)
    of_chain = np.empty(chain_columns.shape[1], np.float32)
    for row in range(starts.shape[0] - 1):
        # 1. The score of every label.
        _score_row(
            terms[starts[row] : starts[row + 1]], values[starts[row] : starts[row + 1]],
            line_starts, line_columns, line_values, biases, full_rows, full_lines, score,
        )  # fmt: skip
        # 2. The two highest scores of each head, and the best brand.
        for head in range(heads):
            for at in range(ends[head], ends[head + 1]):
                column = columns[at]
                if score[column] > best[row, head]:
                    second[row, head] = best[row, head]
                    best[row, head] = score[column]
                    if branded and head == depth:
                        free[row, 1] = at - ends[head]
                elif score[column] > second[row, head]:
                    second[row, head] = score[column]
        # 3. The score of each chain, and the best chain.
        for chain in range(len(of_chain)):
            of_chain[chain] = 0
            for head in range(depth):
                of_chain[chain] += head_weights[head] * score[chain_columns[head, chain]]
            if of_chain[chain] > free_score[row]:
                free_score[row] = of_chain[chain]
                free[row, 0] = chain
        if branded:
            free_score[row] += head_weights[depth] * best[row, depth]
        # 4. The score of each path, sorted into the k best by insertion.
        for path in range(known):
            total[path] = of_chain[chain_of[path]]
        for head in range(depth, heads):
            for path in range(known):
                total[path] += head_weights[head] * score[path_columns[head, path]]
        for path in range(known):
            if total[path] > scores[row, last]:
                at = last
                while at > 0 and total[path] > scores[row, at - 1]:
                    scores[row, at], paths[row, at] = scores[row, at - 1], paths[row, at - 1]
                    at -= 1
                scores[row, at], paths[row, at] = total[path], path
        for head in range(heads):
            winner[row, head] = score[path_columns[head, paths[row, 0]]]


_compiled_rank = compiled(_rank)
