"""Lines as arrays of letters, for compiled code: words, words without vowels, n-grams and stems."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tillmap.core.compiled import compiled
from tillmap.core.text import normalise

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Letters = NDArray[np.int32]  # code points

_SPACE, _NEWLINE = 32, 10


@dataclass(frozen=True)
class Lines:
    """The words of some texts, normalised, with and without their vowels.

    Attributes:
        starts: (texts + 1,). Text t has the words starts[t] to starts[t + 1] - 1.
        letters: the code points of all words, one after the other.
        ends: (words + 1,). Word w has the letters ends[w] to ends[w + 1] - 1.
        consonants, consonant_ends: the same without the vowels inside words, as `without_vowels` drops them.
    """

    starts: Ints
    letters: Letters
    ends: Ints
    consonants: Letters
    consonant_ends: Ints

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Lines":
        """Read texts as they are printed; they are normalised here."""
        return cls.read([normalise(text) for text in texts])

    @classmethod
    def read(cls, texts: list[str]) -> "Lines":
        """Read normalised texts: words with one space between them."""
        text = "\n".join([*texts, ""])
        return cls(*_split(np.frombuffer(text.encode("utf-32-le"), dtype=np.int32), len(texts)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def arrays(self) -> tuple[Ints, Letters, Ints, Letters, Ints]:
        """The attributes in their order, for compiled code."""
        return self.starts, self.letters, self.ends, self.consonants, self.consonant_ends


@compiled
def is_vowel(letter: int) -> bool:
    return letter in (97, 101, 105, 111, 117)


@compiled
def has_digit(letters: Any, begin: int, end: int) -> bool:
    """Whether a word has one of the digits 0 to 9."""
    for place in range(begin, end):  # noqa: SIM110 - a loop is what numba compiles
        if 48 <= letters[place] <= 57:
            return True
    return False


@compiled
def _split(text: Any, size: int) -> Any:
    """The arrays of `Lines` from the code points of texts that each end with a newline."""
    starts = np.zeros(size + 1, np.int64)
    letters, consonants = np.empty((2, len(text)), np.int32)
    ends, consonant_ends = np.zeros((2, len(text) + 1), np.int64)
    line = words = count = kept = 0
    inside = False
    for letter in text:
        if letter in (_SPACE, _NEWLINE):
            if inside:
                words += 1
                ends[words], consonant_ends[words] = count, kept
            inside = False
            if letter == _NEWLINE:
                line += 1
                starts[line] = words
            continue
        letters[count] = letter
        count += 1
        if not (inside and is_vowel(letter)):
            consonants[kept] = letter
            kept += 1
        inside = True
    return (
        starts,
        letters[:count].copy(),
        ends[: words + 1].copy(),
        consonants[:kept].copy(),
        consonant_ends[: words + 1].copy(),
    )
