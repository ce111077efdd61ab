"""LightGBM's trees as data: their text format is read and checked here, and compiled code scores with them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.core.errors import ModelError, first_line
from tillmap.rerank.lines import Floats, Ints

_VERSION, _END = "v4", "end of trees\n"  # of the text format
_MAX_CHARACTERS = 2**26
_MAX_LEAVES = 32  # of a tree: a leaf is a bit of a number
_MAX_VALUE = 1e6  # of a leaf, far above what training gives: the sum of any file's trees stays a float32 number
_BLOCK = 64  # rows that are scored together
_NUMERIC = (0, 2)  # decision types: a number without a rule for missing values; bit 1 only says where these would go
_LARGEST = float(np.finfo(np.float32).max)
_ALL = np.uint32(2**32 - 1)
_BITS = 0x077CB531  # times a power of two, its upper five bits are another number for each (a de Bruijn sequence)


@dataclass(frozen=True)
class Trees:
    """The sum of regression trees.

    A split asks whether a feature is at most its threshold, and goes to its left side if so, else to its right one.

    Attributes:
        text: the model in LightGBM's text format.
        features: the names of the features.
        starts: (trees + 1,), where the splits of each tree start.
        feature, threshold: (splits,).
        right: (splits,), the leaves that are left if a row goes right, as bits. The leaves of a tree count from the
            left, from the lowest bit on.
        values: (trees, 32), those of the leaves, at the places that `slot` gives.
    """

    text: str
    features: tuple[str, ...]
    starts: Ints
    feature: NDArray[np.int32]
    threshold: Floats
    right: NDArray[np.uint32]
    values: NDArray[np.float64]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a model that LightGBM wrote.

        Raises ModelError if the text is anything else, is cut or has a tree of another length than it says, or is a
        model with categories, linear leaves, missing values, several classes or children that are no tree.
        """
        try:
            return cls._parse(text)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            raise ModelError(f"not a LightGBM model of this version ({first_line(error)}); train it again") from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"{len(text):,} characters, at most {_MAX_CHARACTERS:,} are read")
        head, *blocks = _blocks(text)
        about = _fields(head)
        if about["version"] != _VERSION:
            raise ValueError(f"its version is {about['version']}, not {_VERSION}")
        if about["num_class"] != "1" or about["num_tree_per_iteration"] != "1":
            raise ValueError("several classes")
        features = tuple(about["feature_names"].split())
        if about["max_feature_idx"] != str(len(features) - 1):
            raise ValueError(f"{len(features)} features, but max_feature_idx is {about['max_feature_idx']}")
        trees = [_tree(_fields(block), len(features)) for block in blocks]
        if not trees:
            raise ValueError("no trees")
        if about["tree_sizes"].split() != [str(len(block.encode())) for block in blocks]:
            raise ValueError("trees are missing or cut: tree_sizes says others")
        starts = np.cumsum([0, *(len(tree.feature) for tree in trees)], dtype=np.int64)
        feature, threshold, right = (np.concatenate(part) for part in list(zip(*trees, strict=True))[:3])
        return cls(text, features, starts, feature, threshold, right, np.stack([tree.values for tree in trees]))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file with such a text. Raises ModelError if it is missing or is no such model."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{path}: not readable ({first_line(error)}); run `dvc repro` to train the model"
            ) from None
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return len(self.values)

    def first(self, count: int) -> "Trees":
        """The first trees alone."""
        head, *blocks = _blocks(self.text)
        sizes = " ".join(str(len(block.encode())) for block in blocks[:count])
        head = re.sub(r"^tree_sizes=.*$", f"tree_sizes={sizes}", head, flags=re.MULTILINE)
        return Trees.parse("".join([head, *blocks[:count], _END]))

    def score(self, rows: Floats) -> Floats:
        """The sum of the trees' values for each row of features (rows, features), float32."""
        out = np.zeros(len(rows), dtype=np.float64)
        _score(rows, self.starts, self.feature, self.threshold, self.right, self.values, out)
        return out.astype(np.float32)


class _Tree(NamedTuple):
    """The arrays of one tree, see `Trees`."""

    feature: NDArray[np.int32]
    threshold: Floats
    right: NDArray[np.uint32]
    values: NDArray[np.float64]


def _blocks(text: str) -> list[str]:
    """What is before the trees, and the text of each."""
    return re.split(r"^(?=Tree=\d+$)", text.partition(_END)[0], flags=re.MULTILINE)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], features: int) -> _Tree:
    """Read one tree. Raises ValueError if it is none."""
    count = int(fields["num_leaves"])
    if not 1 <= count <= _MAX_LEAVES or fields["num_cat"] != "0" or fields.get("is_linear", "0") != "0":
        raise ValueError(f"a tree of {count} leaves, with categories or with linear leaves")
    values = _numbers(fields["leaf_value"], count, np.float64)
    if np.abs(values).max() > _MAX_VALUE:
        raise ValueError(f"a leaf of {np.abs(values).max():g}, at most {_MAX_VALUE:g} is read")
    splits = count - 1
    if not splits:
        return _Tree(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.uint32), _in_slots(values))
    feature = _numbers(fields["split_feature"], splits, np.int32)
    threshold = _at_most(_numbers(fields["threshold"], splits, np.float64))
    sides = np.stack([_numbers(fields[side], splits, np.int32) for side in ("left_child", "right_child")], axis=1)
    if not np.isin(_numbers(fields["decision_type"], splits, np.int32), _NUMERIC).all():
        raise ValueError("a split with categories or missing values")
    if ((feature < 0) | (feature >= features)).any():
        raise ValueError("a split on a feature that does not exist")
    children = np.where(sides >= 0, sides, splits + ~sides)  # LightGBM's leaf k is ~k
    # Each node but the root is the child of one node, which comes before it: so there is no cycle.
    if sorted(children.ravel().tolist()) != [*range(1, splits + count)]:
        raise ValueError("children that are no tree")
    if (children <= np.arange(splits)[:, None]).any():
        raise ValueError("a node before its parent")
    leaves = np.array([0] * splits + [1] * count)  # below each node
    for node in range(splits - 1, -1, -1):
        leaves[node] = leaves[children[node]].sum()
    first = np.zeros(splits + count, dtype=np.int64)  # leaf below each node, counted from the left
    right = np.zeros(splits, dtype=np.uint32)
    for node in range(splits):
        left, other = children[node]
        first[left], first[other] = first[node], first[node] + leaves[left]
        right[node] = 2**32 - 1 - ((2 ** int(leaves[left]) - 1) << int(first[left]))
    return _Tree(feature, threshold, right, _in_slots(values[np.argsort(first[splits:])]))


def _in_slots(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of leaves, from the left, at the places of their bits."""
    placed = np.zeros(_MAX_LEAVES)
    placed[[slot(np.uint32(2**leaf)) for leaf in range(len(values))]] = values
    return placed


def _numbers(text: str, count: int, kind: type) -> NDArray[Any]:
    """Read numbers of a kind. Raises ValueError or OverflowError if they are no such ones, or not as many."""
    read = float if kind is np.float64 else int
    found: NDArray[Any] = np.array([read(part) for part in text.split()], dtype=kind)
    if len(found) != count:
        raise ValueError(f"{len(found)} numbers; expected {count}")
    if not np.isfinite(found).all():
        raise ValueError("a number that is not finite")
    return found


def _at_most(thresholds: NDArray[np.float64]) -> Floats:
    """The largest float32 numbers that are not above the thresholds, so that float32 features fall on the same side."""
    rounded = np.clip(thresholds, -_LARGEST, _LARGEST).astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


@compiled
def slot(bits: Any) -> Any:
    """A place from 0 to 31 for the lowest bit that is set."""
    lowest = np.int64(bits) & -np.int64(bits)
    return ((lowest * _BITS) & 0xFFFFFFFF) >> 27


@compiled
def _score(rows: Any, starts: Any, feature: Any, threshold: Any, right: Any, values: Any, out: Any) -> None:
    """Add the value of each tree to `out`.

    No row walks down a tree. All splits are asked about a block of rows, which a processor does for many rows at once,
    and each drops the leaves that a row cannot reach. The lowest one that is left is the row's (QuickScorer, Lucchese
    et al. 2015).
    """
    columns = np.zeros((rows.shape[1], _BLOCK), np.float32)
    left = np.empty(_BLOCK, np.uint32)
    for begin in range(0, len(rows), _BLOCK):
        size = min(_BLOCK, len(rows) - begin)
        for row in range(size):
            for place in range(rows.shape[1]):
                columns[place, row] = rows[begin + row, place]
        for tree in range(len(values)):
            left[:] = _ALL
            for split in range(starts[tree], starts[tree + 1]):
                asked, limit, kept = columns[feature[split]], threshold[split], right[split]
                for row in range(_BLOCK):
                    left[row] &= kept if asked[row] > limit else _ALL
            for row in range(size):
                out[begin + row] += values[tree, slot(left[row])]
