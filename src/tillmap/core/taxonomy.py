"""Levels, label paths, the tree of known paths, and which labels of an answer are right."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.errors import InputError

LEVELS = ("supergroup", "group", "module", "brand")
KEY = ["split", "id"]  # of a row: the train and the test split both number their rows from 0
Key = tuple[str, int]  # the values of KEY


class LabelPath(NamedTuple):
    """The four labels of an item, from the most general level down to the brand."""

    supergroup: str
    group: str
    module: str
    brand: str


RankedPaths = Sequence[tuple[LabelPath, float]]  # best first, each with its share or weight


class Chain(NamedTuple):
    """A label path without its brand."""

    supergroup: str
    group: str
    module: str


@dataclass(frozen=True, repr=False)
class LabelTree:
    """The known label paths, sorted, and the number of rows of each.

    The paths need not form a strict tree: a module may have two groups, or a group two supergroups. `is_strict` is
    False then, and everything else works the same.

    Raises InputError if there is no path, a label is blank, the paths are not sorted and distinct, or `rows` has
    another length than `paths`.
    """

    paths: tuple[LabelPath, ...]
    rows: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("label tree: there is no labelled row; expected at least one with all four labels")
        if len(self.paths) != len(self.rows):
            raise InputError("label tree: paths and rows differ in length; build it with from_rows")
        for path in self.paths:
            if not all(label.strip() for label in path):
                raise InputError(f"label tree: {tuple(path)} has a blank label; expected four labels, or none at all")
        for before, path in zip(self.paths, self.paths[1:], strict=False):
            if before >= path:
                raise InputError(f"label tree: {tuple(path)} comes twice or out of order; create the table again")

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> Self:
        """The tree of a table of rows with the four levels. Rows without any label are ignored.

        Raises InputError if a column is missing, a row has only some of its labels, or no row is labelled.
        """
        levels = list(LEVELS)
        _require_columns(rows, levels)
        known = rows[levels].notna()
        partly = known.any(axis=1) & ~known.all(axis=1)
        if partly.any():
            raise InputError(
                f"label tree: {int(partly.sum())} rows have only some of their labels, the first at index "
                f"{partly.idxmax()}; give each row all four or none"
            )
        counts = rows[known.all(axis=1)].groupby(levels, sort=False).size()
        counted = sorted(zip(counts.index, counts, strict=True))
        return cls(
            paths=tuple(LabelPath(*path) for path, _ in counted),
            rows=tuple(int(count) for _, count in counted),
        )

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Self:
        """The tree of a table that `to_table` made. Raises InputError if the table was changed since."""
        _require_columns(table, [*LEVELS, "rows"])
        return cls(
            paths=tuple(LabelPath(*path) for path in table[list(LEVELS)].itertuples(index=False, name=None)),
            rows=tuple(int(count) for count in table["rows"]),
        )

    def to_table(self) -> pd.DataFrame:
        """One row per path, sorted: the four levels and `rows` (int64)."""
        table = pd.DataFrame(self.paths, columns=list(LEVELS))
        table["rows"] = pd.Series(self.rows, dtype="int64")
        return table

    def __repr__(self) -> str:
        return f"LabelTree({len(self)} paths, {sum(self.rows)} rows)"

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[LabelPath]:
        return iter(self.paths)

    def __contains__(self, path: object) -> bool:
        return path in self._places

    def rows_of(self, path: LabelPath) -> int:
        """The number of rows with this path; 0 if the path is not in the tree."""
        place = self._places.get(path)
        return 0 if place is None else self.rows[place]

    def labels(self, level: str) -> tuple[str, ...]:
        """The distinct labels of a level, sorted."""
        return self._labels[level]

    def ending(self, *labels: str) -> tuple[LabelPath, ...]:
        """The paths that end in these one to four labels, sorted: `ending(brand)`, `ending(module, brand)`."""
        return self._ending.get(labels, ())

    def starting(self, *labels: str) -> tuple[LabelPath, ...]:
        """The paths that start with these one to four labels, sorted: `starting(supergroup, group)`."""
        return self._starting.get(labels, ())

    def chains_ending(self, *labels: str) -> tuple[Chain, ...]:
        """The chains that end in these one to three labels, sorted: a module's parents are `chains_ending(module)`."""
        return self._chains_ending.get(labels, ())

    @property
    def is_strict(self) -> bool:
        """Whether every module has one group and every group one supergroup."""
        groups = {(chain.supergroup, chain.group) for chain in self.chains}
        return len(groups) == len(self.labels("group")) and len(self.chains) == len(self.labels("module"))

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The distinct supergroup, group and module triples, sorted."""
        return tuple(dict.fromkeys(Chain(*path[:3]) for path in self.paths))

    @cached_property
    def ranked(self) -> tuple[LabelPath, ...]:
        """The paths by falling number of rows; paths with equal numbers in sorted order."""
        return tuple(sorted(self.paths, key=lambda path: (-self.rows_of(path), path)))

    @cached_property
    def _places(self) -> Mapping[object, int]:
        return {path: place for place, path in enumerate(self.paths)}

    @cached_property
    def _labels(self) -> Mapping[str, tuple[str, ...]]:
        columns = zip(*self.paths, strict=True)
        return {level: tuple(sorted(set(column))) for level, column in zip(LEVELS, columns, strict=True)}

    @cached_property
    def _ending(self) -> Mapping[tuple[str, ...], tuple[LabelPath, ...]]:
        return _by_suffix(self.paths)

    @cached_property
    def _starting(self) -> Mapping[tuple[str, ...], tuple[LabelPath, ...]]:
        found: dict[tuple[str, ...], list[LabelPath]] = {}
        for path in self.paths:
            for end in range(1, len(path) + 1):
                found.setdefault(path[:end], []).append(path)
        return {start: tuple(paths) for start, paths in found.items()}

    @cached_property
    def _chains_ending(self) -> Mapping[tuple[str, ...], tuple[Chain, ...]]:
        return _by_suffix(self.chains)


def right_labels(answers: pd.DataFrame, truth: pd.DataFrame) -> NDArray[np.bool_]:
    """Which labels are right (rows, levels). Row i of `answers` is compared with row i of `truth`.

    Both tables have the four levels. A missing label in `answers` is wrong.
    """
    given, true = answers[list(LEVELS)], truth[list(LEVELS)]
    return np.asarray(given.notna().to_numpy() & (given.to_numpy(object) == true.to_numpy(object)))


_Entry = TypeVar("_Entry", bound=tuple[str, ...])


def _by_suffix(sequences: Sequence[_Entry]) -> Mapping[tuple[str, ...], tuple[_Entry, ...]]:
    """The sequences by each of their ends: (a, b, c) under (a, b, c), (b, c) and (c)."""
    found: dict[tuple[str, ...], list[_Entry]] = {}
    for labels in sequences:
        for start in range(len(labels)):
            found.setdefault(labels[start:], []).append(labels)
    return {suffix: tuple(matches) for suffix, matches in found.items()}


def _require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"label tree: the table lacks {', '.join(missing)}; expected the columns {', '.join(columns)}")
