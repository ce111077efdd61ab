"""Normalisation of descriptions and labels, the same for indexes, queries and label repair."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w%]+|_+")
_VOWELS = re.compile(r"(?<=\w)[aeiou]+")


def normalise(text: str) -> str:
    """Fold case, compatibility forms (NFKC), punctuation and runs of spaces. Keep digits, `%` and accents.

    >>> normalise("  CAD  5-pk Crème_Egg, 197g ")
    'cad 5 pk crème egg 197g'
    """
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def without_vowels(text: str) -> str:
    """Drop the vowels inside words, as tills do. Keep the first letter of each word.

    >>> without_vowels("golden meadow butter")
    'gldn mdw bttr'
    """
    return _VOWELS.sub("", text)
