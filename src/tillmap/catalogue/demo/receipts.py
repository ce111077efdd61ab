"""Prints a product as a till does: words cut short, vowels dropped, brands shortened or left out, letters wrong.

For example `("cadbury", ["creme", "egg"], "5 pk")` may come out as `cad creme egg 5 pk` or as `cdbry 5 pk crm egg`.
"""

import random
import string

from tillmap.core.text import without_vowels

_MIN_LINE = 4  # characters
# Probabilities.
_MISPRINTED = 0.02  # of a character
_SHORTENED = 0.3  # of a word of five letters or more
_SQUEEZED = 0.07  # of a line, in which every word becomes three letters: "mur jcy bmb"
_LOST = 0.04  # of a word
_SIZE_SHOWN = 0.75
_SIZE_BEFORE_GOODS = 0.15
_BRAND_SHOWN = 0.97
_OWN_BRAND_SHOWN = 0.75  # lower: a shop need not print its own name


def print_line(
    brand: str, goods: list[str], size: str, width: int, rng: random.Random, *, is_own_brand: bool = False
) -> str:
    """One receipt line of at most `width` characters, and of at least 4 if `goods` have as many.

    Args:
        brand: the brand; "" for none.
        goods: the words that say what the product is.
        size: printed at the end, after the brand, or not at all.
        width: how many characters fit on the till's line. A line that is too long loses words of the goods from its
            end, then letters, and only then the size.
        rng: the source of all randomness; the same state gives the same line.
        is_own_brand: whether the brand is the shop's own.
    """
    shown = rng.random() < (_OWN_BRAND_SHOWN if is_own_brand else _BRAND_SHOWN)
    front = _shorten_brand(brand, rng) if brand and shown else []
    named = [word for word in goods if rng.random() >= _LOST] or goods[:1]
    words = front + [_shorten(word, rng) for word in named]
    if rng.random() < _SQUEEZED:
        words = [without_vowels(word)[:3] for word in words]
    sizes = size.split() if rng.random() < _SIZE_SHOWN else []
    words = [_misprint(word, rng) for word in _fit(words, width - len(" ".join(["", *sizes])))]
    place = len(front) if rng.random() < _SIZE_BEFORE_GOODS else len(words)
    line = " ".join(word for word in [*words[:place], *sizes, *words[place:]] if word)[:width].rstrip()
    return line if len(line) >= _MIN_LINE else " ".join(goods)[:width].rstrip()


def _fit(words: list[str], room: int) -> list[str]:
    while len(words) > 2 and len(" ".join(words)) > room:
        words = words[:-1]
    return " ".join(words)[:room].split()


def _shorten_brand(brand: str, rng: random.Random) -> list[str]:
    words = [word for word in brand.split() if word != "&"]
    how = rng.random()
    if how < 0.2:  # "captain pelkmere" -> "capt pel"
        return [words[0][: rng.randint(3, 5)], *(word[:3] for word in words[1:])]
    if how < 0.35:  # "cptn plkmr"
        return [without_vowels(word) for word in words]
    if how < 0.4:  # "captainpe"
        return ["".join(words)[: rng.randint(4, 9)]]
    return words


def _shorten(word: str, rng: random.Random) -> str:
    if len(word) < 5 or rng.random() >= _SHORTENED:
        return word
    return word[: rng.randint(3, 5)] if rng.random() < 0.5 else without_vowels(word)


def _misprint(word: str, rng: random.Random) -> str:
    printed = []
    for letter in word:
        if rng.random() >= _MISPRINTED:
            printed.append(letter)
        else:
            other = rng.choice(string.ascii_lowercase)
            printed.append(rng.choice((other, "", letter + other)))  # replaced, lost, or followed by another letter
    return "".join(printed)
