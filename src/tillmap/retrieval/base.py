"""What all retrievers share: rows grouped by text, and the search that turns similar texts into row ids."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tillmap.core.arrays import require_starts
from tillmap.core.errors import InputError, first_line
from tillmap.core.files import require_readable
from tillmap.core.quantities import without_quantities
from tillmap.core.text import normalise

Ids = NDArray[np.int64]
Descriptions = Sequence[str] | NDArray[np.object_]
Floats = NDArray[np.float32]

# Texts fetched beyond k. Of texts with equal scores an engine returns any; with more of them `search` can sort them by
# id, so that the k-th neighbour is always the same.
OVERFETCH = 8
# Neighbours in memory at a time (queries x k).
MAX_PAIRS = 4_000_000
HOW_TO_GET = "run `dvc repro index` to create it, or `dvc pull` to fetch it"


@dataclass(frozen=True)
class Texts:
    """Row ids grouped by what is read of their texts. It is indexed once, whatever the number of rows that have it.

    `rows` [n] holds the row ids. Those of text t are `rows[starts[t]:starts[t + 1]]`, ascending. A text's key is its
    lowest row id, and texts are sorted by key, so that ties are broken by id. With `sizes`, the weights, volumes,
    counts and prices in a text are read, too.
    """

    rows: Ids
    starts: Ids
    sizes: bool = True

    @classmethod
    def group(
        cls, ids: Sequence[int] | Ids, descriptions: Descriptions, *, sizes: bool = True
    ) -> tuple["Texts", list[str]]:
        """Group rows by what is read of their descriptions. Returns the groups and their texts [t].

        Raises InputError if there is no row, the lengths differ or an id occurs twice.
        """
        keys = np.asarray(ids, dtype=np.int64)
        if not len(keys) or len(keys) != len(descriptions):
            raise InputError(
                f"an index needs rows, with a description each; got {len(keys)} ids and {len(descriptions)} texts"
            )
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if (twice := np.flatnonzero(keys[1:] == keys[:-1])).size:
            raise InputError(f"id {keys[twice[0]]} occurs twice among the rows to index; ids must be unique")
        number: dict[str, int] = {}
        printed = list(descriptions)
        text_of_row = np.array([number.setdefault(read_text(printed[i], sizes), len(number)) for i in order])
        rows = keys[np.argsort(text_of_row, kind="stable")]
        starts = np.concatenate([[0], np.cumsum(np.bincount(text_of_row))]).astype(np.int64)
        return cls(rows, starts, sizes), list(number)

    @property
    def keys(self) -> Ids:
        """The lowest row id of each text [t], ascending."""
        return self.rows[self.starts[:-1]]

    def positions_of(self, ids: Ids) -> Ids:
        """The positions of the texts of some rows; -1 for a row that is not indexed."""
        order = np.argsort(self.rows, kind="stable")
        place = np.minimum(np.searchsorted(self.rows[order], ids), len(order) - 1)
        text_of_row = np.repeat(np.arange(len(self.keys)), np.diff(self.starts))
        return np.where(self.rows[order][place] == ids, text_of_row[order][place], -1).astype(np.int64)

    def allowed(self, among: Sequence[int] | Ids) -> NDArray[np.bool_]:
        """Which entries of `rows` [n] are in `among`. Ids that are not indexed are ignored."""
        return np.isin(self.rows, np.asarray(among, dtype=np.int64))

    def having(self, allowed: NDArray[np.bool_]) -> Ids:
        """Positions of the texts with at least one allowed row."""
        return np.flatnonzero(np.add.reduceat(allowed, self.starts[:-1], dtype=np.int64)).astype(np.int64)

    def expand(
        self, positions: Ids, scores: Floats, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[Ids, Floats]:
        """The ids and scores [q, k] of the first k allowed rows of texts [q, m], which come best first, -1 for none.

        If text 3 has the rows 10 and 12 and text 5 the row 11, the texts [3, 5] give [10, 12, 11, -1] for k = 4.
        """
        rows, starts = self.rows, self.starts
        if allowed is not None:
            rows, starts = rows[allowed], np.concatenate([[0], np.cumsum(allowed)])[starts]
        found = positions >= 0
        # A text contributes at most k rows, and none once the texts before it have k.
        sizes = np.where(found, np.minimum(np.diff(starts)[positions], k), 0)
        before = np.cumsum(sizes, axis=1) - sizes
        sizes = np.clip(k - before, 0, sizes)
        query = np.repeat(np.arange(len(positions)), sizes.sum(axis=1))
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes.ravel(), sizes.ravel())
        column = np.repeat(before.ravel(), sizes.ravel()) + within
        out_ids = np.full((len(positions), k), -1, dtype=np.int64)
        out_scores = np.zeros((len(positions), k), dtype=np.float32)
        out_ids[query, column] = rows[np.repeat(starts[positions.ravel()], sizes.ravel()) + within]
        out_scores[query, column] = np.repeat(scores.ravel(), sizes.ravel())
        return out_ids, out_scores

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The groups as named arrays, to save with an index."""
        return {"rows": self.rows, "starts": self.starts, "sizes": np.array([self.sizes])}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Texts":
        """The groups among the named arrays of an index. Raises InputError if they are of another version."""
        if missing := {"rows", "starts", "sizes"} - set(tensors):
            raise InputError(f"the index has no {min(missing)}: it is of another version of tillmap; {HOW_TO_GET}")
        rows, starts, sizes = tensors["rows"], tensors["starts"], tensors["sizes"]
        try:
            require_starts(starts, len(rows))
            if not len(rows) or rows.dtype != np.int64 or (np.diff(starts) < 1).any() or sizes.shape != (1,):
                raise ValueError
            if (np.diff(rows[starts[:-1]]) <= 0).any():
                raise ValueError
        except (ValueError, TypeError):
            raise InputError(f"the rows of an index are damaged; delete data/index and {HOW_TO_GET}") from None
        return cls(rows, starts.astype(np.int64), bool(sizes[0]))


def read_text(description: str, sizes: bool) -> str:
    """What is compared of a description: its normalised text, with or without the weights, counts and so on in it."""
    return normalise(description if sizes else without_quantities(description))


class Retriever(ABC):
    """Finds the rows whose descriptions are most similar to a query. The same call gives the same result."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    @abstractmethod
    def nearest(self, queries: list[str], k: int, among: Ids | None) -> tuple[Ids, Floats]:
        """Positions and scores [q, at most k] of the texts most similar to normalised queries, unsorted; -1 for none.

        `among` restricts the search to these text positions, which are ascending.
        """

    @abstractmethod
    def similarity(self, queries: list[str], which: Ids, positions: Ids) -> Floats:
        """The scores [p] of pairs: of normalised query `which[i]` and the text at `positions[i]`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the index to a folder, which is created if it does not exist."""

    def search(self, queries: Descriptions, k: int, among: Sequence[int] | Ids | None = None) -> tuple[Ids, Floats]:
        """The k rows most similar to each query, best first. Equal scores are sorted by text key, then by id.

        Args:
            queries: descriptions [q], not normalised.
            k: number of rows per query.
            among: ids of the rows to search; None for all.

        Returns: ids [q, k] and scores [q, k]; -1 and 0 if there are fewer than k rows.
        """
        normal = [read_text(query, self.texts.sizes) for query in queries]
        number = {text: i for i, text in enumerate(dict.fromkeys(normal))}
        allowed = None if among is None else self.texts.allowed(among)
        subset = None if allowed is None else self.texts.having(allowed)
        size = len(self.texts.keys) if subset is None else len(subset)
        if not size or not number:
            return np.full((len(normal), k), -1, dtype=np.int64), np.zeros((len(normal), k), dtype=np.float32)
        positions, scores = self.nearest(list(number), min(k + OVERFETCH, size), subset)
        # The last bits depend on how queries are batched. Rounding keeps them from reordering texts with equal scores.
        scores = np.where(positions >= 0, np.round(scores, 6), -np.inf).astype(np.float32)
        order = np.lexsort((positions, -scores))
        positions, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(scores, order, 1)
        ids, ranked = self.texts.expand(positions[:, :k], scores[:, :k], k, allowed)
        back = np.array([number[text] for text in normal])
        return ids[back], ranked[back]


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a safetensors file. Raises InputError if it is missing, private or damaged."""
    require_readable(path)
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise InputError(f"{path}: index file not found; {HOW_TO_GET}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a valid index file ({first_line(error)}); delete it and {HOW_TO_GET}") from None
