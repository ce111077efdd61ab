"""How a till prints a product: words cut short, vowels dropped, brands shortened or left out, letters wrong."""

import random
import string

from tillmap.core.text import without_vowels

_SHORTEST_LINE = 4
_MISPRINTS = 0.02  # a character
_SHORTENED = 0.3  # a word of five letters and more
_SQUEEZED_LINES = 0.07  # every word becomes three consonants: "mur jcy bmb"
_LOST_WORDS = 0.04
_SIZES_SHOWN = 0.75
_SIZES_BEFORE_GOODS = 0.15
_BRANDS_SHOWN = 0.97
_OWN_BRANDS_SHOWN = 0.75  # its own till knows whose it is


def print_line(
    brand: str, goods: list[str], size: str, width: int, rng: random.Random, *, is_own_brand: bool = False
) -> str:
    """One receipt line of at most `width` characters, and of at least 4 where `goods` have as many.

    `goods` are the words that say what it is; `size` comes last, or after the brand, or not at all.
    A line that is too long for the till loses words from its end, then letters; the size stays to the last.
    """
    shown = rng.random() < (_OWN_BRANDS_SHOWN if is_own_brand else _BRANDS_SHOWN)
    front = _shorten_brand(brand, rng) if brand and shown else []
    named = [word for word in goods if rng.random() >= _LOST_WORDS] or goods[:1]
    words = front + [_shorten(word, rng) for word in named]
    if rng.random() < _SQUEEZED_LINES:
        words = [without_vowels(word)[:3] for word in words]
    sizes = size.split() if rng.random() < _SIZES_SHOWN else []
    words = [_misprint(word, rng) for word in _fit(words, width - len(" ".join(["", *sizes])))]
    place = len(front) if rng.random() < _SIZES_BEFORE_GOODS else len(words)
    line = " ".join(word for word in [*words[:place], *sizes, *words[place:]] if word)[:width].rstrip()
    return line if len(line) >= _SHORTEST_LINE else " ".join(goods)[:width].rstrip()


def _fit(words: list[str], room: int) -> list[str]:
    while len(words) > 2 and len(" ".join(words)) > room:
        words = words[:-1]
    return " ".join(words)[:room].split()


def _shorten_brand(brand: str, rng: random.Random) -> list[str]:
    words = [word for word in brand.split() if word != "&"]
    how = rng.random()
    if how < 0.2:
        return [words[0][: rng.randint(3, 5)], *(word[:3] for word in words[1:])]
    if how < 0.35:
        return [without_vowels(word) for word in words]
    if how < 0.4:
        return ["".join(words)[: rng.randint(4, 9)]]
    return words


def _shorten(word: str, rng: random.Random) -> str:
    if len(word) < 5 or rng.random() >= _SHORTENED:
        return word
    return word[: rng.randint(3, 5)] if rng.random() < 0.5 else without_vowels(word)


def _misprint(word: str, rng: random.Random) -> str:
    printed = []
    for letter in word:
        if rng.random() >= _MISPRINTS:
            printed.append(letter)
        else:
            other = rng.choice(string.ascii_lowercase)
            printed.append(rng.choice((other, "", letter + other)))
    return "".join(printed)
