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

_MAX_CHARACTERS = 2**26
_MAX_LEAVES = 2**15
_BLOCK = 64  # rows that are scored together: they and a tree fit into the cache
_NUMERIC = (0, 2)  # decision types: a number without a rule for missing values; bit 1 only says where these would go


@dataclass(frozen=True)
class Trees:
    """The sum of regression trees.

    A node asks whether a feature is at most its threshold, and goes to its first child if so, else to its second. A
    leaf is a node whose children are itself. The nodes of a tree are stored one after the other, the root first.

    Attributes:
        text: the model in LightGBM's text format.
        features: the names of the features.
        starts: (trees + 1,), where the nodes of each tree start.
        depths: (trees,), the steps from the root to the lowest leaf.
        feature, threshold: (nodes,).
        children: (2 * nodes,), the two children of each node.
        values: (nodes,), those of the leaves.
    """

    text: str
    features: tuple[str, ...]
    starts: Ints
    depths: Ints
    feature: NDArray[np.int32]
    threshold: Floats
    children: NDArray[np.int32]
    values: NDArray[np.float64]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a model that LightGBM wrote.

        Raises ModelError if the text is anything else, or a model with categories, linear leaves, missing values,
        several classes or children that are no tree.
        """
        try:
            return cls._parse(text)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            raise ModelError(f"not a LightGBM model of this version ({first_line(error)}); train it again") from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"{len(text):,} characters, at most {_MAX_CHARACTERS:,} are read")
        head, *blocks = re.split(r"^Tree=\d+$", text.partition("\nend of trees")[0], flags=re.MULTILINE)
        about = _fields(head)
        if about["num_class"] != "1" or about["num_tree_per_iteration"] != "1":
            raise ValueError("several classes")
        features = tuple(about["feature_names"].split())
        trees = [_tree(_fields(block), len(features)) for block in blocks]
        if not trees:
            raise ValueError("no trees")
        starts = np.cumsum([0, *(len(tree.feature) for tree in trees)], dtype=np.int64)
        depths = np.array([tree.depth for tree in trees], dtype=np.int64)
        feature, threshold, children, values = (np.concatenate(part) for part in list(zip(*trees, strict=True))[1:])
        children += np.repeat(starts[:-1], 2 * np.diff(starts)).astype(np.int32)
        return cls(text, features, starts, depths, feature, threshold, children, values)

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
        return len(self.depths)

    def first(self, count: int) -> "Trees":
        """The first trees alone."""
        head, *blocks = re.split(r"^(?=Tree=\d+$)", self.text.partition("\nend of trees")[0], flags=re.MULTILINE)
        return Trees.parse("".join([head, *blocks[:count]]) + "\nend of trees\n")

    def score(self, rows: Floats) -> Floats:
        """The sum of the trees' values for each row of features (rows, features), float32."""
        out = np.zeros(len(rows), dtype=np.float64)
        _score(rows, self.starts, self.depths, self.feature, self.threshold, self.children, self.values, out)
        return out.astype(np.float32)


class _Tree(NamedTuple):
    """The arrays of one tree, see `Trees`. Children count from the tree's first node."""

    depth: int
    feature: NDArray[np.int32]
    threshold: Floats
    children: NDArray[np.int32]
    values: NDArray[np.float64]


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], features: int) -> _Tree:
    """Read one tree. Raises ValueError if it is none."""
    count = int(fields["num_leaves"])
    if not 1 <= count <= _MAX_LEAVES or fields["num_cat"] != "0" or fields.get("is_linear", "0") != "0":
        raise ValueError(f"a tree of {count} leaves, with categories or with linear leaves")
    values = _numbers(fields["leaf_value"], count, np.float64)
    splits = count - 1
    if not splits:
        return _Tree(0, np.zeros(1, np.int32), np.zeros(1, np.float32), np.zeros(2, np.int32), values)
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
    depth = np.zeros(splits + count, dtype=np.int64)
    for node in range(splits):
        depth[children[node]] = depth[node] + 1
    return _Tree(
        int(depth.max()),
        np.concatenate([feature, np.zeros(count, np.int32)]),
        np.concatenate([threshold, np.zeros(count, np.float32)]),
        np.concatenate([children.ravel(), np.repeat(np.arange(splits, splits + count), 2)]).astype(np.int32),
        np.concatenate([np.zeros(splits), values]),
    )


def _numbers(text: str, count: int, kind: type) -> NDArray[Any]:
    found = [float(part) for part in text.split()]
    if len(found) != count or not np.isfinite(found).all():
        raise ValueError(f"{len(found)} numbers or infinite ones; expected {count}")
    return np.array(found).astype(kind)


def _at_most(thresholds: NDArray[np.float64]) -> Floats:
    """The largest float32 numbers that are not above the thresholds, so that float32 features fall on the same side."""
    rounded = thresholds.astype(np.float32)
    above = rounded.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


@compiled
def _score(
    rows: Any, starts: Any, depths: Any, feature: Any, threshold: Any, children: Any, values: Any, out: Any
) -> None:
    """Add the value of each tree to `out`.

    All rows of a block go one step at a time. A processor takes several such steps at once, for they don't wait for
    each other, and looks the child up by the outcome of the comparison instead of guessing a branch.
    """
    node = np.empty(_BLOCK, np.int32)
    for begin in range(0, len(rows), _BLOCK):
        size = min(_BLOCK, len(rows) - begin)
        for tree in range(len(depths)):
            node[:] = starts[tree]
            for _ in range(depths[tree]):
                for row in range(size):
                    at = node[row]
                    right = rows[begin + row, feature[at]] > threshold[at]
                    node[row] = children[2 * at + right]
            for row in range(size):
                out[begin + row] += values[node[row]]
