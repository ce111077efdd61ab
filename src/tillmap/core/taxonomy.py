"""Label levels, label paths, and the tree of paths that a catalogue is known to hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self, TypeVar

import pandas as pd

from tillmap.core.errors import InputError

LEVELS = ("supergroup", "group", "module", "brand")


class LabelPath(NamedTuple):
    """One item's four labels, from the most general level to the brand."""

    supergroup: str
    group: str
    module: str
    brand: str


class Chain(NamedTuple):
    """A path without its brand."""

    supergroup: str
    group: str
    module: str


@dataclass(frozen=True, repr=False)
class LabelTree:
    """The known label paths, in sorted order, with how many rows each has and which retailers sell it.

    It is a set of paths, and need not be a tree in the strict sense: where a module has two parents, or a group
    has, `is_strict` is false and everything else works the same.

    Raises InputError where the three columns differ in length, there is no path, a label is blank, or the paths are
    not sorted and distinct.
    """

    paths: tuple[LabelPath, ...]
    rows: tuple[int, ...]
    retailers: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("label tree: there is no labelled row; expected at least one with all four labels")
        if not len(self.paths) == len(self.rows) == len(self.retailers):
            raise InputError("label tree: paths, rows and retailers differ in length; build it with from_rows")
        for path in self.paths:
            if not all(label.strip() for label in path):
                raise InputError(f"label tree: {tuple(path)} has a blank label; expected four labels, or none at all")
        for before, path in zip(self.paths, self.paths[1:], strict=False):
            if before >= path:
                raise InputError(f"label tree: {tuple(path)} comes twice or out of order; write the table anew")

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> Self:
        """The tree of a rows table (the four levels and `retailer`); rows with no label at all are passed over.

        Raises InputError where a column is missing, a row has some of its labels only, or no row is labelled.
        """
        levels = list(LEVELS)
        _require_columns(rows, [*levels, "retailer"])
        known = rows[levels].notna()
        partly = known.any(axis=1) & ~known.all(axis=1)
        if partly.any():
            raise InputError(
                f"label tree: {int(partly.sum())} rows have only some of their labels, the first at index "
                f"{partly.idxmax()}; give each row all four or none"
            )
        labelled = rows[known.all(axis=1)]
        counts = labelled.groupby(levels, sort=False).size()
        sellers: dict[tuple[str, ...], list[str]] = {}
        sales = labelled[[*levels, "retailer"]].dropna().drop_duplicates()
        for *path, retailer in sales.itertuples(index=False, name=None):
            sellers.setdefault(tuple(path), []).append(retailer)
        counted = sorted(zip(counts.index, counts, strict=True))
        return cls(
            paths=tuple(LabelPath(*path) for path, _ in counted),
            rows=tuple(int(count) for _, count in counted),
            retailers=tuple(tuple(sorted(sellers.get(path, ()))) for path, _ in counted),
        )

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Self:
        """The tree that `to_table` wrote, also when it has been through a Parquet file. Raises InputError."""
        _require_columns(table, [*LEVELS, "rows", "retailers"])
        return cls(
            paths=tuple(LabelPath(*path) for path in table[list(LEVELS)].itertuples(index=False, name=None)),
            rows=tuple(int(count) for count in table["rows"]),
            retailers=tuple(tuple(str(retailer) for retailer in sold_by) for sold_by in table["retailers"]),
        )

    def to_table(self) -> pd.DataFrame:
        """A row a path, sorted: the four levels, `rows` (int64) and `retailers` (a list of str)."""
        table = pd.DataFrame(self.paths, columns=list(LEVELS))
        table["rows"] = pd.Series(self.rows, dtype="int64")
        table["retailers"] = [list(sold_by) for sold_by in self.retailers]
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
        """How many rows carry this path; 0 for one that is not of the tree."""
        place = self._places.get(path)
        return 0 if place is None else self.rows[place]

    def retailers_of(self, path: LabelPath) -> tuple[str, ...]:
        """Who sells this path, sorted; nobody where it is not of the tree."""
        place = self._places.get(path)
        return () if place is None else self.retailers[place]

    def sold_by(self, retailer: str) -> tuple[LabelPath, ...]:
        """The paths that one retailer sells, sorted."""
        return self._sold_by.get(retailer, ())

    def labels(self, level: str) -> tuple[str, ...]:
        """One level's distinct labels, sorted."""
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
        """Whether every module has one group, and every group one supergroup."""
        groups = {(chain.supergroup, chain.group) for chain in self.chains}
        return len(groups) == len(self.labels("group")) and len(self.chains) == len(self.labels("module"))

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The distinct supergroup, group and module triples, sorted."""
        return tuple(dict.fromkeys(Chain(*path[:3]) for path in self.paths))

    @cached_property
    def ranked(self) -> tuple[LabelPath, ...]:
        """The paths from the most rows to the fewest; equals in sorted order."""
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

    @cached_property
    def _sold_by(self) -> Mapping[str, tuple[LabelPath, ...]]:
        sold: dict[str, list[LabelPath]] = {}
        for path, retailers in zip(self.paths, self.retailers, strict=True):
            for retailer in retailers:
                sold.setdefault(retailer, []).append(path)
        return {retailer: tuple(paths) for retailer, paths in sold.items()}


_Entry = TypeVar("_Entry", bound=tuple[str, ...])


def _by_suffix(sequences: Sequence[_Entry]) -> Mapping[tuple[str, ...], tuple[_Entry, ...]]:
    found: dict[tuple[str, ...], list[_Entry]] = {}
    for labels in sequences:
        for start in range(len(labels)):
            found.setdefault(labels[start:], []).append(labels)
    return {suffix: tuple(matches) for suffix, matches in found.items()}


def _require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"label tree: the table lacks {', '.join(missing)}; expected the columns {', '.join(columns)}")
