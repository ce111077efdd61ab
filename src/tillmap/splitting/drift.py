"""Drift: how many new rows have a retailer or a word that the training rows lack."""

import re
from dataclasses import dataclass
from typing import Self

import pandas as pd

from tillmap.core.text import normalise

# Scripts without spaces, where a whole line would be one word: Thai, Lao, Burmese, Khmer, kana, and Chinese characters.
_UNSPACED = re.compile(
    r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


@dataclass(frozen=True)
class Seen:
    """The retailers and the normalised words of the training rows. In a script without spaces, letters are words."""

    retailers: frozenset[str]
    words: frozenset[str]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        """Collect them from a table with the columns description and retailer."""
        words = {word for text in rows["description"].unique() for word in words_of(text)}
        return cls(frozenset(rows["retailer"].dropna().unique()), frozenset(words))

    def as_json(self) -> dict[str, list[str]]:
        return {"retailers": sorted(self.retailers), "words": sorted(self.words)}


def words_of(text: str) -> list[str]:
    """The normalised words of a text; in a script without spaces, its letters.

    >>> words_of("Tea 绿茶")
    ['tea', '绿', '茶']
    """
    return _UNSPACED.sub(r" \1 ", normalise(text)).split()


@dataclass
class Drift:
    """Counts the rows with a retailer or a word that is not in `seen`. Call `add` for each batch."""

    seen: Seen
    rows: int = 0
    new_retailers: int = 0
    new_words: int = 0

    def add(self, rows: pd.DataFrame) -> None:
        """Count the rows of a table with description and retailer. A missing retailer (null or "") is not a new one."""
        words, retailers = self.seen.words, rows["retailer"].fillna("")
        self.rows += len(rows)
        self.new_retailers += int((~retailers.isin(self.seen.retailers) & retailers.ne("")).sum())
        self.new_words += sum(not words.issuperset(words_of(text)) for text in rows["description"])

    def __str__(self) -> str:
        retailers, words = self.new_retailers / self.rows, self.new_words / self.rows
        return f"{retailers:.1%} of the rows are from retailers and {words:.1%} have words that training never showed"
