"""What a linear model and its training rows say about lines: candidates and their features."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.prices import cents, log_prices
from tillmap.core.taxonomy import LabelPath
from tillmap.core.text import normalise
from tillmap.linear.model import LinearModel
from tillmap.rerank import candidates, facts, features
from tillmap.rerank.candidates import Candidates, NearLines, Scale
from tillmap.rerank.facts import READ, Facts, Names, Spellings
from tillmap.rerank.lines import Floats, Ints, Lines
from tillmap.rerank.similar import SimilarLines

_NEIGHBOURS = 100  # lines that vote, and fewer for the line without its first word
_NEIGHBOURS_OF_REST = 60
_SAME_PRICE = 20  # lines with exactly the same price that vote, too
_CHUNK = 1024  # rows at a time: limits memory


@dataclass(frozen=True)
class Evidence:
    """What a linear model and the rows that it was trained on say about lines.

    Attributes:
        model: the linear model.
        names: its chains and brands.
        facts, spellings, index: of its training rows.
        scale: where its scores are.
    """

    model: LinearModel
    names: Names
    facts: Facts
    spellings: Spellings
    index: SimilarLines
    scale: Scale

    @classmethod
    def of(cls, model: LinearModel, rows: pd.DataFrame) -> Self:
        """Read the training rows of a model: description, price and the levels. Each path must be in its tree."""
        layout, tree = model.layout, model.tree
        levels, depth = tree.levels, tree.levels.depth
        chains: dict[int, tuple[str, ...]] = {}
        for path, chain in zip(tree, layout.chain_of.tolist(), strict=True):
            chains[chain] = levels.chain_of(path)
        brands, columns, brand_of = ("",), np.array([-1]), np.zeros(len(tree), dtype=np.int64)
        if levels.brand:
            columns, first, brand_of = np.unique(layout.paths[depth], return_index=True, return_inverse=True)
            brands = tuple(tree.paths[path][-1] for path in first)
        names = Names([chains[chain] for chain in range(len(chains))], brands)
        columns = np.concatenate([columns, np.full(names.size - len(brands), -1)])
        place = {path: at for at, path in enumerate(tree)}
        path_of = np.array([place[path] for path in levels.paths(rows)], dtype=np.int64)
        lines = Lines.of(rows["description"])
        heads = depth + (levels.brand is not None)
        scale = Scale(
            layout.columns,
            layout.ends[: heads + 1],
            layout.chains,
            columns.astype(np.int64),
            np.array(model.recipe.head_weights[:heads], dtype=np.float32),
        )
        known = facts.gather(lines, rows["price"].to_numpy(np.float32), path_of, layout.chain_of, brand_of, names)
        return cls(model, names, known, facts.spell(names), SimilarLines.of(lines), scale)

    @property
    def features(self) -> list[str]:
        """The names of the features."""
        return features.names(self.model.tree.levels)

    def path(self, chain: int, brand: int, line: str) -> LabelPath:
        """The label path of a chain with a brand, for a line, off which the brand may be read."""
        if brand < len(self.names.brands):
            return self._known_path(chain, brand)
        return LabelPath(*self.names.chains[chain], self._read(line)[brand - len(self.names.brands)])

    @cached_property
    def _known_path(self) -> Callable[[int, int], LabelPath]:
        end = int(self.model.tree.levels.brand is not None)
        return cache(lambda chain, brand: LabelPath(*self.names.chains[chain], *self.names.brands[brand : brand + end]))

    def _read(self, line: str) -> list[str]:
        """The brands that a line's first words say, written as most known brands are."""
        words = normalise(line).split()
        return [self._write(" ".join(words[: count + 1])) for count in range(READ)]

    @cached_property
    def _write(self) -> Callable[[str], str]:
        return max(
            (str.lower, str.upper, str.title),
            key=lambda write: sum(write(brand) == brand for brand in self.names.brands),
        )

    def chunks(self, items: pd.DataFrame, limit: int, *, read: bool) -> Iterator[tuple[Candidates, Floats]]:
        """The candidates of items (description, retailer and price), and their features (candidates, features).

        Gives some rows at a time, in order, with at most `limit` candidates a row; with `read` also those whose brand
        is read off the line.
        """
        for begin in range(0, len(items), _CHUNK):
            yield self._describe(items.iloc[begin : begin + _CHUNK], limit, read)

    def _describe(self, items: pd.DataFrame, limit: int, read: bool) -> tuple[Candidates, Floats]:
        scores = self.model.score(items)
        lines = Lines.of(items["description"])
        prices = items["price"].to_numpy(np.float32)
        near = self.near(lines, cents(prices))
        logs = np.nan_to_num(log_prices(prices)).astype(np.float32)
        shared = scores, self.scale, self.facts, self.spellings, lines.arrays(), near
        found = Candidates(*candidates.propose(*shared, limit, read))
        return found, features.describe(*shared, cents(prices), logs, found, len(self.features))

    def near(self, lines: Lines, prices: Ints) -> NearLines:
        """The training rows near to lines with these prices in cents (lines,)."""
        line, same_price = self.index.nearest_and_in_group(
            lines, _NEIGHBOURS, self.facts.prices.places(prices), self.facts.same_price, _SAME_PRICE
        )
        return NearLines(line, self.index.nearest(lines, _NEIGHBOURS_OF_REST, skip=1), same_price)

    def right(self, found: Candidates, paths: Sequence[LabelPath], lines: Sequence[str]) -> NDArray[np.bool_]:
        """Which candidates are the true paths of their rows (candidates,), whose descriptions are `lines`."""
        levels = self.model.tree.levels
        chain = {name: place for place, name in enumerate(self.names.chains)}
        brand = {name: place for place, name in enumerate(self.names.brands)}
        true_chain = np.array([chain.get(levels.chain_of(path), -1) for path in paths])
        true_brand = np.array(
            [
                0 if not levels.brand else brand[path[-1]] if path[-1] in brand else self._place_read(path[-1], line)
                for path, line in zip(paths, lines, strict=True)
            ]
        )
        sizes = np.diff(found.starts)
        return np.asarray((found.chain == np.repeat(true_chain, sizes)) & (found.brand == np.repeat(true_brand, sizes)))

    def _place_read(self, brand: str, line: str) -> int:
        """The number of a new brand that the line's first words say; -1 if they don't."""
        read = self._read(line)
        return len(self.names.brands) + read.index(brand) if brand in read else -1
