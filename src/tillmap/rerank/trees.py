"""LightGBM's trees as data: their text format is read and checked here, and compiled code scores with them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.core.errors import ModelError, first_line
from tillmap.rerank.lines import Floats, Ints

_MAX_CHARACTERS = 2**26
_MAX_LEAVES = 2**15
_NUMERIC = (0, 2)  # decision types: a number without a rule for missing values; bit 1 only says where these would go


@dataclass(frozen=True)
class Trees:
    """The sum of regression trees.

    A tree's nodes are stored one after the other, each before its children. A node asks whether a feature is at most
    its threshold, and goes to the left child if so, else to the right one. A child c >= 0 is a node of the same tree,
    ~c is a leaf.

    Attributes:
        text: the model in LightGBM's text format.
        features: the names of the features.
        node_starts, leaf_starts: (trees + 1,), where the nodes and leaves of each tree start.
        feature, threshold: (nodes,).
        children: (2 * nodes,), the left and the right child of each node.
        leaves: the value of each leaf.
    """

    text: str
    features: tuple[str, ...]
    node_starts: Ints
    leaf_starts: Ints
    feature: NDArray[np.int32]
    threshold: Floats
    children: NDArray[np.int32]
    leaves: NDArray[np.float64]

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
        nodes, leaves = ([len(tree[part]) for tree in trees] for part in (0, 3))
        columns: list[Any] = [np.concatenate(part) if trees else np.empty(0) for part in zip(*trees, strict=True)]
        if not trees:
            raise ValueError("no trees")
        return cls(
            text,
            features,
            np.concatenate([[0], np.cumsum(nodes)]).astype(np.int64),
            np.concatenate([[0], np.cumsum(leaves)]).astype(np.int64),
            *columns,
        )

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
        return len(self.node_starts) - 1

    def first(self, count: int) -> "Trees":
        """The first trees alone."""
        head, *blocks = re.split(r"^(?=Tree=\d+$)", self.text.partition("\nend of trees")[0], flags=re.MULTILINE)
        return Trees.parse("".join([head, *blocks[:count]]) + "\nend of trees\n")

    def score(self, rows: Floats) -> Floats:
        """The sum of the trees' values for each row of features (rows, features), float32."""
        out = np.zeros(len(rows), dtype=np.float64)
        _score(
            rows, self.node_starts, self.leaf_starts, self.feature, self.threshold, self.children, self.leaves, out
        )  # fmt: skip
        return out.astype(np.float32)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], features: int) -> tuple[NDArray[Any], ...]:
    """The arrays of one tree: feature, threshold, children, leaves. Raises ValueError if they are no tree."""
    count = int(fields["num_leaves"])
    if not 1 <= count <= _MAX_LEAVES or fields["num_cat"] != "0" or fields.get("is_linear", "0") != "0":
        raise ValueError(f"a tree of {count} leaves, with categories or with linear leaves")
    leaves = _numbers(fields["leaf_value"], count, np.float64)
    if count == 1:
        empty = np.empty(0, dtype=np.int32)
        return empty, empty.astype(np.float32), empty, leaves
    feature = _numbers(fields["split_feature"], count - 1, np.int32)
    threshold = _at_most(_numbers(fields["threshold"], count - 1, np.float64))
    left, right = (_numbers(fields[side], count - 1, np.int32) for side in ("left_child", "right_child"))
    if not np.isin(_numbers(fields["decision_type"], count - 1, np.int32), _NUMERIC).all():
        raise ValueError("a split with categories or missing values")
    if ((feature < 0) | (feature >= features)).any():
        raise ValueError("a split on a feature that does not exist")
    children = np.concatenate([left, right])
    # Each node but the first, and each leaf, is the child of one node, which comes before it: so there is no cycle.
    if sorted(children.tolist()) != [*range(-count, 0), *range(1, count - 1)]:
        raise ValueError("children that are no tree")
    if any((side >= 0)[at] and side[at] <= at for side in (left, right) for at in range(count - 1)):
        raise ValueError("a node before its parent")
    return feature, threshold, np.stack([left, right], axis=1).ravel(), leaves


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
    rows: Any, node_starts: Any, leaf_starts: Any, feature: Any, threshold: Any, children: Any, leaves: Any, out: Any
) -> None:
    """Add the value of each tree to `out`, a block of rows at a time so that both stay in the cache.

    The child is looked up by the outcome of the comparison: a processor guesses branches, and is wrong at every other.
    """
    for begin in range(0, len(rows), 64):
        for tree in range(len(node_starts) - 1):
            first, leaf = node_starts[tree], leaf_starts[tree]
            for row in range(begin, min(begin + 64, len(rows))):
                node = np.int64(0) if node_starts[tree + 1] > first else np.int64(-1)
                while node >= 0:
                    at = first + node
                    node = np.int64(children[2 * at + (rows[row, feature[at]] > threshold[at])])
                out[row] += leaves[leaf + ~node]
