"""Normalisation of descriptions and labels, the same for indexes, queries and label repair."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w%]+|_+")
_VOWELS = re.compile(r"(?<=\w)[aeiou]+")
_FIRST_PICTURE = 0x2600  # from here on, symbols are pictures such as emoji; before, they are signs such as the degree's
# Letters that tills print without their strokes, and that Unicode does not take apart.
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})  # noqa: RUF001  # Turkish


def normalise(text: str, *, keep_accents: bool = False) -> str:
    """Fold case, compatibility forms (NFKC), accents, punctuation and runs of spaces. Keep digits, `%` and emoji.

    Accents are folded on Latin and Greek letters, since tills print "CREME" and "ΚΑΦΕΣ". In other scripts a mark is a
    letter of its own and stays: without its marks, Hindi "दाल" would be "दल". Invisible format characters vanish.

    Args:
        text: any text.
        keep_accents: also keep them on Latin and Greek letters. For labels, because two of them may differ in one.

    >>> normalise("  CAD  5-pk Crème_Egg, 197g ")
    'cad 5 pk creme egg 197g'
    >>> normalise("Crème Egg", keep_accents=True)
    'crème egg'
    """
    if text.isascii():
        return _NOT_WORD.sub(" ", text.casefold()).strip()
    # Twice, because folding may undo NFKC: U+0345 becomes a letter.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if not keep_accents:
        folded = _without_accents(folded)
    return " ".join(folded.translate(_TO_WORDS).split())


def line_key(text: str) -> str:
    """What equal lines share: lines that differ only in what `normalise` folds.

    A text of nothing but signs that `normalise` drops, such as those of a currency, is its own key.

    >>> line_key("CREME FRAICHE") == line_key("Crème fraîche"), line_key("€ §")
    (True, '€ §')
    """
    return normalise(text) or text


def _without_accents(text: str) -> str:
    kept: list[str] = []
    folds = False  # whether the last letter is one whose marks are dropped
    for character in unicodedata.normalize("NFD", text):
        if unicodedata.category(character) != "Mn":
            folds = unicodedata.name(character, "").startswith(("LATIN", "GREEK"))
        elif folds:
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept)).translate(_PLAIN)


class _ToWords(dict[int, str]):
    """For `str.translate`: what each character becomes. It fills itself, because Unicode is large."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        wide = unicodedata.east_asian_width(character) == "W"  # clocks and the like, which are among the signs
        picture = kind in ("So", "Sk") and (code >= _FIRST_PICTURE or wide)
        if kind == "Cf" or 0xFE00 <= code <= 0xFE0F:  # the range selects how an emoji looks
            self[code] = ""
        else:
            self[code] = character if kind[0] in "LMN" or character == "%" or picture else " "
        return self[code]


_TO_WORDS = _ToWords()


def without_vowels(text: str) -> str:
    """Drop the vowels inside words, as tills do. Keep the first letter of each word.

    >>> without_vowels("golden meadow butter")
    'gldn mdw bttr'
    """
    return _VOWELS.sub("", text)
