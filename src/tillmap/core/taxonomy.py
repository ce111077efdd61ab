"""Levels, label paths, the tree of known paths, and which labels of an answer are right."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.errors import InputError

KEY = ["split", "id"]  # of a row: the train and the test split both number their rows from 0
Key = tuple[str, int]  # the values of KEY
MAX_LEVELS = 8
# Columns of tillmap's own tables. A level of the same name would overwrite one of them.
RESERVED = frozenset(
    {*KEY, "key", "given_id", "subset", "product", "description", "retailer", "price", "rows", "code", "definition",
     "confidence", "repair", "in_tree", "source", "status", "arm", "right", "rank", "score", "share", "margin",
     "evidence", "candidates", "neighbours", "words", "answered", "similar", "teaches", "neighbour", "path", "low",
     "high", "path_depth", "path_frequency", "refund", "brand_shown", "catch_all", "corrected",
     "needs_review", "level", "suspicion", "model_own", "model_guess", "votes_own", "votes_guess"}
)  # fmt: skip


class LabelPath(tuple[str, ...]):
    """The labels of an item, one for each level, from the general to the special.

    A path may end early. Its labels are "" from there on: with the levels division, group and class, the path of an
    item that is only known to be bread is LabelPath("food", "bread", ""). The brand, if there is one, is the last
    label. It is not below the others, so it may follow a chain that ends early, and it is "" if it is not known.
    """

    __slots__ = ()

    def __new__(cls, *labels: str) -> Self:
        return super().__new__(cls, labels)

    def __getnewargs__(self) -> tuple[str, ...]:  # pickle would pass the labels as one tuple
        return tuple(self)


Chain = tuple[str, ...]  # a label path without its brand
RankedPaths = Sequence[tuple[LabelPath, float]]  # best first, each with its share or weight


def labels_of(chain: Chain) -> Chain:
    """The labels that a chain has: it may end early."""
    return tuple(label for label in chain if label)


@dataclass(frozen=True)
class Levels:
    """The names of a taxonomy's levels.

    Attributes:
        names: 1 to 8 names, from the general level to the special one, the brand last if there is one.
        brand: the name of the level that is not below the others, such as a brand; None if there is none.

    Raises InputError if a name is blank, reserved or there twice, if there are too many, or if the brand is not last.
    """

    names: tuple[str, ...]
    brand: str | None = None

    def __post_init__(self) -> None:
        shown = ", ".join(self.names) or "none"
        if not 1 <= len(self.names) <= MAX_LEVELS:
            raise InputError(f"levels: there are {len(self.names)} ({shown}); expected 1 to {MAX_LEVELS}")
        if len(set(self.names)) < len(self.names) or not all(name.strip() for name in self.names):
            raise InputError(f"levels: {shown}; expected names that are not blank, each once")
        if reserved := RESERVED.intersection(self.names):
            raise InputError(
                f"levels: {min(reserved)} is the name of one of tillmap's own columns; give the level another name in "
                "`taxonomy.levels`, and map it to your column with `data.columns.levels`"
            )
        if self.brand is not None and (self.brand != self.names[-1] or len(self.names) == 1):
            raise InputError(
                f"levels: the brand level {self.brand} is not the last of {shown}; list it last, after at least one "
                "other level, or set `taxonomy.brand: null`"
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def chain(self) -> tuple[str, ...]:
        """The names without the brand."""
        return self.names if self.brand is None else self.names[:-1]

    @property
    def depth(self) -> int:
        """The number of levels in a chain, at least 1."""
        return len(self.chain)

    def path(self, labels: Iterable[object]) -> LabelPath:
        """The path of one label a level; None and NaN become ""."""
        return LabelPath(*(label if isinstance(label, str) else "" for label in labels))

    def paths(self, table: pd.DataFrame) -> list[LabelPath]:
        """The path of each row of a table with the levels as columns. A row without any label has one of all ""."""
        _require_columns(table, self.names)
        columns = (table[name].fillna("").tolist() for name in self.names)
        return [LabelPath(*labels) for labels in zip(*columns, strict=True)]

    def columns(self, paths: Iterable[Sequence[str]]) -> pd.DataFrame:
        """The table of some paths: a column for each level (str), null where a path has no label.

        Raises InputError if a path has more labels than there are levels, or fewer: it is of a changed file.
        """
        found = [tuple(path) for path in paths]
        if other := {len(path) for path in found} - {len(self.names)}:
            raise InputError(
                f"labels: a path has {min(other)} labels, expected {len(self.names)} ({', '.join(self.names)}); run "
                "`dvc repro` again"
            )
        table = pd.DataFrame(found, columns=pd.Index(self.names), dtype="str")
        return table.mask(table == "")

    def labelled(self, table: pd.DataFrame) -> "pd.Series[bool]":
        """Which rows of a table have a path: all that have a label of the first level."""
        _require_columns(table, self.names)
        return table[self.names[0]].notna()

    def of(self, path: Sequence[str]) -> dict[str, str]:
        """The labels of a path by level, without the levels that it does not have."""
        return {name: label for name, label in zip(self.names, path, strict=True) if label}

    def chain_of(self, path: Sequence[str]) -> Chain:
        """A path without its brand, as long as there are levels above the brand."""
        return tuple(path[: self.depth])

    def stem(self, path: Sequence[str]) -> tuple[str, ...]:
        """What a path has in common with its siblings: all but its last label, or all but its brand.

        >>> Levels(("group", "module", "brand"), "brand").stem(LabelPath("food", "tea", "tata"))
        ('food', 'tea')
        >>> Levels(("group", "module")).stem(LabelPath("food", "tea"))
        ('food',)
        """
        return self.chain_of(path) if self.brand else trim(path)[:-1]


CONTEST = Levels(("supergroup", "group", "module", "brand"), brand="brand")  # of the IndoML 2024 Datathon


def trim(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels up to the last that is not "".

    >>> trim(("food", "bread", ""))
    ('food', 'bread')
    """
    end = len(labels)
    while end and not labels[end - 1]:
        end -= 1
    return tuple(labels[:end])


@dataclass(frozen=True, repr=False)
class LabelTree:
    """The known label paths, sorted, and the number of rows of each.

    The paths need not form a strict tree: a module may have two groups, or a group two supergroups. `is_strict` is
    False then, and everything else works the same.

    Attributes:
        levels: the names of the levels.
        paths: the known paths, sorted and distinct.
        rows: the number of rows with each path; 0 for a path that only a taxonomy file has.
        codes: the code of each path in the user's own files, "" where it has none; empty if no path has one.
        definitions: what belongs to each path, in words, "" where nothing is known; empty if no path has one.

    Raises InputError if there is no path, a label is blank or has a gap above it, the paths are not sorted and
    distinct, or the other attributes have another length than `paths`.
    """

    levels: Levels
    paths: tuple[LabelPath, ...]
    rows: tuple[int, ...]
    codes: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("label tree: there is no labelled row; expected at least one with a label path")
        lengths = {len(self.paths), len(self.rows), *(len(each) for each in (self.codes, self.definitions) if each)}
        if len(lengths) > 1:
            raise InputError("label tree: paths and rows differ in length; build it with from_rows")
        for path in self.paths:
            if len(path) != len(self.levels):
                raise InputError(f"label tree: {tuple(path)} has {len(path)} labels; expected {len(self.levels)}")
            if fault := fault_of(path, self.levels):
                raise InputError(f"label tree: {tuple(path)} {fault}")
        for before, path in pairwise(self.paths):
            if before >= path:
                raise InputError(f"label tree: {tuple(path)} comes twice or out of order; create the table again")

    @classmethod
    def from_rows(cls, rows: pd.DataFrame, levels: Levels, declared: "LabelTree | None" = None) -> Self:
        """The tree of a table of rows with the levels as columns. Rows without any label are ignored.

        Args:
            rows: the rows.
            levels: the names of the levels.
            declared: a tree whose paths are known even if no row has them, with codes and definitions: that of a
                taxonomy file. Its numbers of rows are not used.

        Raises InputError if a column is missing, a path has a gap, or there is neither a labelled row nor a declared
        path.
        """
        _require_columns(rows, list(levels))
        counts = Counter(levels.paths(rows[levels.labelled(rows)]))
        if declared is None:
            paths = tuple(sorted(counts))
            return cls(levels, paths, tuple(counts[path] for path in paths))
        paths = tuple(sorted({*counts, *declared.paths}))
        return cls(
            levels,
            paths,
            tuple(counts[path] for path in paths),
            tuple(map(declared.code_of, paths)) if declared.codes else (),
            tuple(map(declared.definition_of, paths)) if declared.definitions else (),
        )

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Self:
        """The tree of a table that `to_table` made. Raises InputError if the table was changed since."""
        names = tuple(name for name in table.columns if name not in _BESIDE)
        if "brand" not in table.attrs:
            raise InputError("label tree: the table is not one of this version of tillmap; run `dvc repro` again")
        levels = Levels(names, table.attrs["brand"])
        _require_columns(table, [*levels, "rows"])
        texts = table.drop(columns="rows").to_numpy(object).ravel()
        if table["rows"].dtype.kind not in "iu" or not all(isinstance(text, str) or pd.isna(text) for text in texts):
            raise InputError("label tree: the table has values of other types than labels; run `dvc repro` again")
        if (table["rows"] < 0).any():
            raise InputError("label tree: the table has a path with fewer than 0 rows; run `dvc repro` again")
        return cls(
            levels,
            tuple(levels.paths(table)),
            tuple(int(count) for count in table["rows"]),
            *(tuple(table[name].fillna("")) if name in table.columns else () for name in ("code", "definition")),
        )

    def to_table(self) -> pd.DataFrame:
        """One row per path, sorted: the levels, `rows` (int64) and, where known, `code` and `definition`.

        The name of the brand level is in the table's `attrs`.
        """
        table = self.levels.columns(self.paths)
        table["rows"] = pd.Series(self.rows, dtype="int64")
        for name, values in (("code", self.codes), ("definition", self.definitions)):
            if values:
                table[name] = pd.Series(values, dtype="str")
        table.attrs["brand"] = self.levels.brand
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

    def code_of(self, path: Sequence[str]) -> str:
        """The user's own code of a path, whatever its brand; "" if there is none."""
        return self._codes.get(self.levels.chain_of(path), "")

    def definition_of(self, path: Sequence[str]) -> str:
        """What belongs to a path in words, whatever its brand; "" if nothing is known."""
        return self._definitions.get(self.levels.chain_of(path), "")

    def labels(self, level: str) -> tuple[str, ...]:
        """The distinct labels of a level, sorted."""
        return self._labels[level]

    def ending(self, *labels: str) -> tuple[LabelPath, ...]:
        """The paths that end in these labels, sorted: `ending(brand)`, `ending(module, brand)`.

        "" is no label, except for an unknown brand: of LabelPath("food", "bread", "") the ends are ("bread",) and
        ("food", "bread") if there is no brand level, ("",), ("bread", "") and ("food", "bread", "") if there is one.
        """
        return self._ending.get(labels, ())

    def starting(self, *labels: str) -> tuple[LabelPath, ...]:
        """The paths that start with these labels, sorted: `starting(supergroup, group)`."""
        return self._starting.get(labels, ())

    def chains_ending(self, *labels: str) -> tuple[Chain, ...]:
        """The chains that end in these labels, sorted: a module's parents are in `chains_ending(module)`."""
        return self._chains_ending.get(labels, ())

    def written(self, path: Sequence[str]) -> tuple[str, ...]:
        """The labels that a path has: its chain up to its end, and its brand ("" if unknown) if there is that level."""
        chain = trim(path[: self.levels.depth])
        return chain if self.levels.brand is None else (*chain, path[-1])

    @property
    def is_strict(self) -> bool:
        """Whether every label above the brand has one parent."""
        return all(
            len({chain[: depth + 1] for chain in self.chains if chain[depth]}) == len(self.labels(level))
            for depth, level in enumerate(self.levels.chain)
        )

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The distinct chains, sorted. Without a brand level these are the paths."""
        return tuple(dict.fromkeys(self.levels.chain_of(path) for path in self.paths))

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
        return {name: tuple(sorted({*column} - {""})) for name, column in zip(self.levels, columns, strict=True)}

    @cached_property
    def _codes(self) -> Mapping[Chain, str]:
        return {self.levels.chain_of(path): code for path, code in zip(self.paths, self.codes, strict=False)}

    @cached_property
    def _definitions(self) -> Mapping[Chain, str]:
        return {self.levels.chain_of(path): text for path, text in zip(self.paths, self.definitions, strict=False)}

    @cached_property
    def _ending(self) -> Mapping[tuple[str, ...], tuple[LabelPath, ...]]:
        return _by_suffix((self.written(path), path) for path in self.paths)

    @cached_property
    def _starting(self) -> Mapping[tuple[str, ...], tuple[LabelPath, ...]]:
        found: dict[tuple[str, ...], list[LabelPath]] = {}
        for path in self.paths:
            for end in range(1, len(path) + 1):
                if path[end - 1]:
                    found.setdefault(tuple(path[:end]), []).append(path)
        return {start: tuple(paths) for start, paths in found.items()}

    @cached_property
    def _chains_ending(self) -> Mapping[tuple[str, ...], tuple[Chain, ...]]:
        return _by_suffix((trim(chain), chain) for chain in self.chains)


def right_labels(answers: pd.DataFrame, truth: pd.DataFrame, levels: Levels) -> NDArray[np.bool_]:
    """Which labels are right (rows, levels). Row i of `answers` is compared with row i of `truth`.

    Both tables have the levels as columns. Where the true path has no label, an answer is right that has none either.
    In a row without any answer or any truth all are wrong.

    Raises InputError if a level has no column.
    """
    names = list(levels)
    for table in (answers, truth):
        _require_columns(table, names)
    given, true = (table[names].fillna("").to_numpy(object) for table in (answers, truth))
    some = (given != "").any(axis=1) & (true != "").any(axis=1)
    return np.asarray((given == true) & some[:, None], dtype=np.bool_)


def fault_of(path: Sequence[str], levels: Levels) -> str | None:
    """What is wrong with a path, as the end of a sentence about it; None if nothing is."""
    chain = path[: levels.depth]
    if any(label and not label.strip() for label in path):
        return "has a blank label; expected text, or nothing from where the path ends"
    if not chain[0]:
        return f"has no {levels.names[0]}; expected a label of the first level"
    for depth, label in enumerate(chain):
        if label and not chain[depth - 1] and depth:
            return f"has a {levels.names[depth]} but no {levels.names[depth - 1]}; expected no gap in a path"
    return None


_Entry = TypeVar("_Entry")
_BESIDE = ("rows", "code", "definition")  # columns of a tree's table that are no levels


def _by_suffix(sequences: Iterable[tuple[tuple[str, ...], _Entry]]) -> Mapping[tuple[str, ...], tuple[_Entry, ...]]:
    """The entries by each end of their labels: an entry of (a, b, c) under (a, b, c), (b, c) and (c)."""
    found: dict[tuple[str, ...], list[_Entry]] = {}
    for labels, entry in sequences:
        for start in range(len(labels)):
            found.setdefault(labels[start:], []).append(entry)
    return {suffix: tuple(matches) for suffix, matches in found.items()}


def _require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"labels: the table lacks {', '.join(missing)}; expected the columns {', '.join(columns)}")
