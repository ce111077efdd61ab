"""Few-shot examples: the labelled neighbours of a row, and the label paths that they suggest."""

from collections.abc import Iterable, Iterator
from typing import Literal

import pandas as pd

from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.interface.prompting import Example, Item

ITEM_COLUMNS = ["description", "retailer", "price"]
Widen = Literal["module", "group"] | None


def make_item(description: str, retailer: str, price: float) -> Item:
    """An item from the columns of a rows table, in which an unknown price is NaN."""
    return Item(description, retailer, None if pd.isna(price) else float(price))


def labelled_items(rows: pd.DataFrame) -> Iterator[tuple[int, Example]]:
    """The id of each row of a labelled rows table, and the row as an example, in order."""
    for row_id, *shown, path in zip(
        rows["id"],
        *(rows[name] for name in ITEM_COLUMNS),
        rows[list(LEVELS)].itertuples(index=False, name=None),
        strict=True,
    ):
        yield row_id, Example(make_item(*shown), LabelPath(*path))


class FewShotExamples:
    """Looks up the few-shot examples of a row: its neighbours with their labels."""

    def __init__(self, training: pd.DataFrame, neighbours: pd.DataFrame) -> None:
        """From a table of labelled rows, and a neighbours table whose neighbours are ids of these rows."""
        self._known = dict(labelled_items(training))
        self._nearest: dict[tuple[str, int], list[int]] = {}
        ranked = neighbours.sort_values("rank", kind="stable")[["split", "id", "neighbour"]]
        for split, row_id, neighbour in ranked.itertuples(index=False, name=None):
            self._nearest.setdefault((split, row_id), []).append(neighbour)

    def examples(self, split: str, row_id: int) -> list[Example]:
        """The neighbours of a row, nearest first. Of neighbours with equal description and labels only the first."""
        distinct: dict[tuple[str, LabelPath], Example] = {}
        for neighbour in self._nearest.get((split, row_id), []):
            example = self._known[neighbour]
            distinct.setdefault((example.item.description, example.path), example)
        return list(distinct.values())


def widen_paths(paths: Iterable[LabelPath], tree: LabelTree, level: Widen) -> list[LabelPath]:
    """The distinct paths, in order, then all other paths of the tree in the same modules or groups (`level`)."""
    found = dict.fromkeys(paths)
    if level is not None:
        depth = LEVELS.index(level) + 1
        for start in dict.fromkeys(path[:depth] for path in list(found)):
            found |= dict.fromkeys(tree.starting(*start))
    return list(found)
