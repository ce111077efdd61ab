"""Noisy copies of lines, as other tills might print them: words cut, without vowels or missing, brands spelled out."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from tillmap.core.text import normalise, without_vowels

# What becomes of a brand that begins the line: it stays, is spelled out, is cut, loses its vowels, or goes.
_BRAND_SHARES = (0.25, 0.25, 0.25, 0.15, 0.1)
_BRAND_LETTERS = (3, 6)  # of a brand that is cut
_WITHOUT_VOWELS, _CUT, _GOES, _MISPRINT = 0.2, 0.2, 0.05, 0.08  # shares of words; of lines, the last
_LONG = 4  # words with more letters are shortened
_FEWEST = 3  # letters of a word that is cut, and of a word that is taken for a brand's beginning


def noisy_copies(descriptions: Sequence[str], brands: Sequence[str], seed: int) -> list[str]:
    """One noisy copy of each line. The same arguments give the same copies.

    Args:
        descriptions: the lines.
        brands: the brand of each line, "" if it has none.
        seed: for what is drawn.
    """
    rng = np.random.default_rng(seed)
    return [_copy(normalise(line), normalise(brand), rng) for line, brand in zip(descriptions, brands, strict=True)]


def _copy(line: str, brand: str, rng: Generator) -> str:
    words = line.split()
    if not words:
        return line
    begins, words = ([words[0]], words[1:]) if _begins(words[0], brand.replace(" ", "")) else ([], words)
    if begins:
        begins = _brand(begins[0], brand, rng)
    kept = [*begins, *(_shorten(word, rng) for word in words if rng.random() >= _GOES)] or words
    return _misprint(" ".join(kept), rng) if rng.random() < _MISPRINT else " ".join(kept)


def _begins(word: str, brand: str) -> bool:
    """Whether a word is a brand or its beginning, with or without vowels."""
    return len(word) >= _FEWEST and (brand.startswith(word) or without_vowels(brand).startswith(word))


def _brand(word: str, brand: str, rng: Generator) -> list[str]:
    joined = brand.replace(" ", "")
    cut = joined[: rng.integers(_BRAND_LETTERS[0], _BRAND_LETTERS[1] + 1)]
    return ([word], [brand], [cut], [without_vowels(joined)], [])[rng.choice(len(_BRAND_SHARES), p=_BRAND_SHARES)]


def _shorten(word: str, rng: Generator) -> str:
    drawn = rng.random()
    if len(word) <= _LONG or drawn >= _WITHOUT_VOWELS + _CUT:
        return word
    return without_vowels(word) if drawn < _WITHOUT_VOWELS else word[: rng.integers(_FEWEST, len(word))]


def _misprint(line: str, rng: Generator) -> str:
    """The line with one letter replaced by another of its letters."""
    letters = [place for place, letter in enumerate(line) if letter != " "]
    place, other = rng.choice(letters, 2)
    return line[:place] + line[other] + line[place + 1 :]
