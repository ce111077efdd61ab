"""Counts of n-grams and words in texts, the same as scikit-learn's, in compiled code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from tillmap.core.compiled import compiled

_SPACE, _NEWLINE = 32, 10


@dataclass(frozen=True)
class TermCounter:
    """Counts known terms in normalised texts.

    Terms are found by a hash of 64 bits, of which two of some 100,000 practically never share one.

    Attributes:
        keys: (slots,), the hash of the term in each slot, 0 if there is none; the number of slots is a power of two.
        places: (slots,), the position of that term.
        size: the number of terms.
        ngrams: shortest and longest n-gram within words, spaces around a word included; None: words and pairs of words.
    """

    keys: NDArray[np.uint64]
    places: NDArray[np.int32]
    size: int
    ngrams: tuple[int, int] | None

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], ngrams: tuple[int, int] | None) -> Self:
        """Count the terms of a vectoriser with the analyser `char_wb` (`ngrams`) or with words and pairs (None)."""
        hashes = _hash_lines(_code_points([*vocabulary]), len(vocabulary))
        slots = 1 << (2 * len(vocabulary)).bit_length()
        keys, places = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
        _fill(hashes, np.array([*vocabulary.values()], dtype=np.int32), keys, places)
        return cls(keys, places, len(vocabulary), ngrams)

    def count(self, texts: list[str]) -> csr_matrix:
        """How often each term is in each text (texts, terms), float32. Texts are words with one space between them."""
        shortest, longest = self.ngrams or (0, 0)
        starts, found = _find(_code_points(texts), len(texts), self.keys, self.places, shortest, longest)
        counts = csr_matrix((np.ones(len(found), np.float32), found, starts), (len(texts), self.size))
        counts.sum_duplicates()
        return counts


def _code_points(lines: list[str]) -> NDArray[np.uint32]:
    """The code points of all lines, with a newline after each."""
    return np.frombuffer("\n".join([*lines, ""]).encode("utf-32-le"), dtype=np.uint32)


@compiled
def _hash(text: Any, begin: int, end: int) -> Any:
    """A hash of text[begin:end] as if it had a newline on either side, never 0 (FNV-1a)."""
    code = np.uint64(14695981039346656037)
    for place in range(begin, end):
        letter = np.uint64(_SPACE) if text[place] == _NEWLINE else np.uint64(text[place])
        code = (code ^ letter) * np.uint64(1099511628211)
    return code ^ (code >> np.uint64(29)) | np.uint64(1)


@compiled
def _hash_lines(text: Any, size: int) -> Any:
    """The hash of each line."""
    hashes = np.empty(size, np.uint64)
    begin = line = 0
    for place in range(len(text)):
        if text[place] == _NEWLINE:
            hashes[line] = _hash(text, begin, place)
            begin, line = place + 1, line + 1
    return hashes


@compiled
def _slot(keys: Any, key: Any) -> int:
    """Where a key is, or the free slot that it would have."""
    most = np.uint64(len(keys) - 1)
    slot = (key >> np.uint64(1)) & most
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & most
    return int(slot)


@compiled
def _fill(hashes: Any, terms: Any, keys: Any, places: Any) -> None:
    for number in range(len(hashes)):
        slot = _slot(keys, hashes[number])
        keys[slot], places[slot] = hashes[number], terms[number]


@compiled
def _add(  # noqa: PLR0917 - for the compiler
    text: Any, begin: int, end: int, keys: Any, places: Any, found: Any, count: int
) -> int:
    """Note the term text[begin:end] if it is known. Gives the new number of terms."""
    key = _hash(text, begin, end)
    slot = _slot(keys, key)
    if keys[slot] != key:
        return count
    found[count] = places[slot]
    return count + 1


@compiled
def _find(  # noqa: PLR0917 - for the compiler
    text: Any, size: int, keys: Any, places: Any, shortest: int, longest: int
) -> Any:
    """The known terms of each line (line starts, terms); n-grams if `longest` is not 0, else words and pairs."""
    found = np.empty(max(2, longest - shortest + 1) * (2 * len(text) + 2), np.int32)
    starts = np.zeros(size + 1, np.int64)
    padded = np.full(len(text) + 1, _NEWLINE, np.uint32)  # so that the first word has a space before it, too
    padded[1:] = text
    count = line = 0
    begin, before = 1, -1  # of the word, and of the one before it in the line
    for place in range(1, len(padded)):
        if padded[place] not in (_SPACE, _NEWLINE):
            continue
        if place > begin:
            if longest == 0:
                count = _add(padded, begin, place, keys, places, found, count)
                if before >= 0:
                    count = _add(padded, before, place, keys, places, found, count)
            else:
                first, last = begin - 1, place + 1  # the spaces around it
                for letters in range(shortest, longest + 1):
                    for start in range(first, max(first + 1, last - letters + 1)):
                        count = _add(padded, start, min(last, start + letters), keys, places, found, count)
                    if last - first <= letters:  # a short word counts once
                        break
            before = begin
        begin = place + 1
        if padded[place] == _NEWLINE:
            line, before = line + 1, -1
            starts[line] = count
    return starts, found[:count].copy()
