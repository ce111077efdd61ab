"""Few-shot examples: the labelled neighbours of a row, and the label paths that they suggest."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from statistics import median

import pandas as pd

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, Chain, Key, LabelPath, LabelTree, Levels, trim
from tillmap.core.text import normalise
from tillmap.llm.interface.prompting import Candidate, Example, Item

ITEM_COLUMNS = ["description", "retailer", "price"]


def make_item(description: str, retailer: object, price: float) -> Item:
    """An item from the columns of a rows table: an unknown retailer is null or "" there, an unknown price NaN."""
    return Item(description, retailer if isinstance(retailer, str) else "", None if pd.isna(price) else float(price))


def described(item: Item, about: Mapping[str, str]) -> Item:
    """The item with its description from outside, if `about` has one for its normalised text."""
    return item._replace(about=about.get(normalise(item.description), "")) if about else item


def labelled_items(rows: pd.DataFrame, levels: Levels) -> Iterator[tuple[int, Example]]:
    """The id of each row of a labelled rows table, and the row as an example, in order."""
    columns = (rows[name] for name in ITEM_COLUMNS)
    for row_id, *shown, path in zip(rows["id"], *columns, levels.paths(rows), strict=True):
        yield row_id, Example(make_item(*shown), path)


class FewShotExamples:
    """Looks up the few-shot examples of a row: its neighbours with their labels."""

    def __init__(self, training: pd.DataFrame, neighbours: pd.DataFrame, levels: Levels) -> None:
        """From a table of labelled rows, and a neighbours table whose neighbours are ids of these rows.

        It may be a paths table: then each example has another path, and a path without a row (-1) gives none.
        """
        self._known = dict(labelled_items(training, levels))
        self._nearest: dict[Key, list[int]] = {}
        ranked = neighbours.sort_values("rank", kind="stable")[[*KEY, "neighbour"]]
        for split, row_id, neighbour in ranked.itertuples(index=False, name=None):
            if neighbour >= 0:
                self._nearest.setdefault((split, row_id), []).append(neighbour)

    def examples(self, split: str, row_id: int) -> list[Example]:
        """The neighbours of a row, nearest first. Of neighbours with equal description and labels only the first.

        Raises InputError if a neighbour is not one of the labelled rows.
        """
        distinct: dict[tuple[str, LabelPath], Example] = {}
        for neighbour in self._nearest.get((split, row_id), []):
            if neighbour not in self._known:
                raise InputError(f"neighbour {neighbour} is not a labelled training row; run `dvc repro index` again")
            example = self._known[neighbour]
            distinct.setdefault((example.item.description, example.path), example)
        return list(distinct.values())


class Candidates:
    """Looks up the paths that a row's answer is chosen from."""

    def __init__(self, training: pd.DataFrame, candidates: pd.DataFrame, levels: Levels, usual: bool) -> None:
        """From a table of labelled rows, and a paths table whose neighbours are ids of these rows.

        With `usual`, the median price of the rows with the path's labels above the brand is shown, too.
        """
        known = dict(labelled_items(training, levels))
        prices = defaultdict[Chain, list[float]](list)
        for example in known.values() if usual else ():
            if example.item.price is not None:
                prices[levels.chain_of(example.path)].append(example.item.price)
        usually = {chain: median(each) for chain, each in prices.items()}
        self._of: dict[Key, list[Candidate]] = {}
        table = candidates.sort_values("rank", kind="stable")
        columns = (table["split"], table["id"], levels.paths(table), table["neighbour"], table["score"].tolist())
        for split, row_id, path, row, share in zip(*columns, strict=True):
            item = known[row].item if row in known else None
            found = Candidate(path, item, usually.get(levels.chain_of(path)), share)
            self._of.setdefault((split, row_id), []).append(found)

    def of(self, split: str, row_id: int, count: int, examples: int) -> list[Candidate]:
        """The first `count` candidates of a row, the first `examples` of them with a row that has the path."""
        found = self._of.get((split, row_id), [])[:count]
        return [each if place < examples else each._replace(item=None) for place, each in enumerate(found)]


def widen_paths(paths: Iterable[LabelPath], tree: LabelTree, level: str | None) -> list[LabelPath]:
    """The distinct paths, in order, then all other paths of the tree with the same labels down to `level`.

    A path that ends above that level adds the paths below its end. None adds nothing.
    """
    found = dict.fromkeys(paths)
    if level is not None:
        depth = tree.levels.chain.index(level) + 1
        for start in dict.fromkeys(trim(path[:depth]) for path in list(found)):
            found |= dict.fromkeys(tree.starting(*start))
    return list(found)
