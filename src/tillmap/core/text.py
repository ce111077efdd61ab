"""The one normaliser of descriptions and labels: what indexes, queries and label repair compare."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w%]+|_+", re.UNICODE)
_VOWELS = re.compile(r"(?<=\w)[aeiou]+")


def normalise(text: str) -> str:
    """Fold case, compatibility forms, punctuation and runs of space; digits, `%` and accents stay.

    >>> normalise("  CAD  5-pk Crème_Egg, 197g ")
    'cad 5 pk crème egg 197g'
    """
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def without_vowels(text: str) -> str:
    """Drop the vowels inside words, as tills do; the first letter of a word stays.

    >>> without_vowels("golden meadow butter")
    'gldn mdw bttr'
    """
    return _VOWELS.sub("", text)
