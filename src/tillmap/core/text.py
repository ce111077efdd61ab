"""Normalisation of descriptions and labels, the same for indexes, queries and label repair; and numbers in a text."""

import re
import unicodedata

_NOT_WORD = re.compile(r"[^\w%]+|_+")
_VOWELS = re.compile(r"(?<=\w)[aeiou]+")
_CUT = " ..."  # where a text was cut
_WHOLE = re.compile(r"[0-9]{1,18}")
_FLAG = re.compile("(?<=\U0001f3f4)[\U000e0020-\U000e007f]+")  # which flag a black one stands for: England's, say
_FIRST_PICTURE = 0x2600  # from here on, symbols are pictures such as emoji; before, they are signs such as the degree's
# Letters that tills print without their strokes, and that Unicode does not take apart; and the kaf and ya of Arabic
# keyboards, for those of Persian and Urdu ones.
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"})  # noqa: RUF001  # Turkish
_PLAIN |= str.maketrans({"ك": "ک", "ي": "ی"})


def normalise(text: str, *, keep_accents: bool = False) -> str:
    """Fold case, compatibility forms (NFKC), accents, punctuation and runs of spaces. Keep digits, `%` and emoji.

    Accents are folded on Latin and Greek letters, since tills print "CREME" and "ΚΑΦΕΣ". In other scripts a mark is a
    letter of its own and stays: without its marks, Hindi "दाल" would be "दल". Invisible format characters vanish.
    With the accents go other ways to write the same word: the digits of a script, the Arabic kaf and ya of a Persian
    word, and the strokes that stretch an Arabic one.

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
    plain = _FLAG.sub(_letters_of_tags, text).translate(_PREPARED)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
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
        kind = unicodedata.category(character)
        if character in _UNSEEN or (kind == "Mn" and folds):
            continue
        if kind != "Mn":
            folds = unicodedata.name(character, "").startswith(("LATIN", "GREEK"))
        kept.append(str(unicodedata.decimal(character)) if kind == "Nd" else character)
    return unicodedata.normalize("NFC", "".join(kept)).translate(_PLAIN)


def _letters_of_tags(tags: re.Match[str]) -> str:
    return "".join(chr(ord(tag) - 0xE0000) for tag in tags[0][:-1]) + " "


class _Prepared(dict[int, str]):
    """For `str.translate`: what each character becomes before NFKC. It fills itself, because Unicode is large."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind, spelled = unicodedata.category(character), unicodedata.normalize("NFKC", character)
        if kind == "Cf" or 0xFE00 <= code <= 0xFE0F:  # the range selects how an emoji looks
            self[code] = ""
        # A mark by itself, such as the acute that tills print for an apostrophe.
        elif kind[0] != "L" and spelled.startswith(" "):
            self[code] = " "
        else:  # "1½" would become 11/2
            self[code] = f" {spelled}" if unicodedata.decomposition(character).startswith("<fraction>") else character
        return self[code]


class _ToWords(dict[int, str]):
    """For `str.translate`: what each character becomes in the end. It fills itself, too."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        wide = unicodedata.east_asian_width(character) == "W"  # clocks and the like, which are among the signs
        picture = kind in ("So", "Sk") and (code >= _FIRST_PICTURE or wide)
        self[code] = character if kind[0] in "LMN" or character == "%" or picture else " "
        return self[code]


_PREPARED = _Prepared({0x309B: "\u3099", 0x309C: "\u309a"})  # voicing marks that stand beside their kana
_TO_WORDS = _ToWords()
# Marks that change nothing that is seen, and the Arabic tatweel.
_UNSEEN = frozenset({"\u034f", "\u0640", *map(chr, range(0x180B, 0x1810)), *map(chr, range(0xE0100, 0xE01F0))})


def without_vowels(text: str) -> str:
    """Drop the vowels inside words, as tills do. Keep the first letter of each word.

    >>> without_vowels("golden meadow butter")
    'gldn mdw bttr'
    """
    return _VOWELS.sub("", text)


def whole_number(text: str) -> int | None:
    """The number that at most 18 digits of ASCII write, None for any other text.

    `str.isdigit` is true of "²" as well, which `int` refuses, and of numbers that no library takes.

    >>> whole_number("20"), whole_number("²"), whole_number("9" * 25)
    (20, None, None)
    """
    return int(text) if _WHOLE.fullmatch(text) else None


def cut(line: str, most: int) -> str:
    """At most so many characters of a line: it ends after a word, or within one where words are long or have no spaces.

    >>> cut("small breads of wheat", 18), cut("小麦で作った小さなパンです", 10)
    ('small breads ...', '小麦で作った ...')
    """
    if len(line) <= most:
        return line
    kept = line[: most - len(_CUT)]
    words = line[: len(kept) + 1].rpartition(" ")[0].rstrip()
    return (words if 2 * len(words) > len(kept) else kept.rstrip()) + _CUT
