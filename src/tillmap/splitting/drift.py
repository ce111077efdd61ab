"""Drift: how many new rows have a retailer or a word that the training rows lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from tillmap.core.text import normalise


@dataclass(frozen=True)
class Seen:
    """The retailers and the normalised words of the training rows."""

    retailers: frozenset[str]
    words: frozenset[str]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        """Collect them from a table with the columns description and retailer."""
        words = {word for text in rows["description"].unique() for word in normalise(text).split()}
        return cls(frozenset(rows["retailer"].unique()), frozenset(words))

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        return cls(frozenset(written["retailers"]), frozenset(written["words"]))

    def as_json(self) -> dict[str, list[str]]:
        return {"retailers": sorted(self.retailers), "words": sorted(self.words)}


@dataclass
class Drift:
    """Counts the rows with a retailer or a word that is not in `seen`. Call `add` for each batch."""

    seen: Seen
    rows: int = 0
    new_retailers: int = 0
    new_words: int = 0

    def add(self, rows: pd.DataFrame) -> None:
        """Count the rows of a table with description and retailer. A missing retailer ("") is not a new one."""
        words = self.seen.words
        self.rows += len(rows)
        self.new_retailers += int((~rows["retailer"].isin(self.seen.retailers) & rows["retailer"].ne("")).sum())
        self.new_words += sum(not words.issuperset(normalise(text).split()) for text in rows["description"])

    def __str__(self) -> str:
        retailers, words = self.new_retailers / self.rows, self.new_words / self.rows
        return f"{retailers:.1%} of the rows are from retailers and {words:.1%} have words that training never showed"
