"""Lenient parsing of a model's free text into labels: damaged JSON, `key: value` lines, separators, or plain text."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import zip_longest
from typing import NamedTuple

from tillmap.core.taxonomy import Levels
from tillmap.core.text import normalise
from tillmap.llm.interface.answer_formats import unescape

# Special tokens: `care__soap<|im_end|>`, `care__soap</s>`.
_STOP_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?s>")
_THOUGHT_END = "</think>"  # ends a reasoning model's thought: `<think>A soap?</think>care__soap`
_STRAIGHT = str.maketrans("“”„", '"""')  # typographic quotes: `{“brand”: “dr. x”}`
# The end of an unquoted value: the line's end, a brace, a bar, or a key that is no level (`, retailer: ivymart`).
_VALUE_END = re.compile(r"""[\n}|]|[,;]\s?["']?\w{1,30}["']?\s?[:=]""")
# A closing quote: the last one of `'men's grooming',`, not the apostrophe. The end, a comma, a brace or `and` follows.
_CLOSING = {quote: re.compile(rf"(?<!\\){quote}\s?(?:[,.}}\];|\n]|and\b|$)") for quote in "\"'"}
_NEVER = re.compile(r"(?!)")
_NO_VALUE = ("null", "none", "")  # `"brand": null`
_EDGES = " \t\r\n,;:{}[]()\"'`*_|"
# Separators of labels without keys, the most specific first.
_SEPARATORS = {
    "joined": re.compile(r"_{2,}"),  # care__soap__lux
    "piped": re.compile(r"\|+"),  # care | soap || lux
    "arrows": re.compile(r"[-=]?>+|→"),  # care > soap -> lux → x
    "slashes": re.compile(r"\s/+\s|\t+"),  # care / soap / lux, or tabs; not "and/or"
}
SEPARATED = frozenset(_SEPARATORS)  # the styles with one of them
_WEAK_SEPARATOR = re.compile(r"[,;]\s")  # `green tea, tata`; labels contain it, too: `bath, shower & talc`
_PREAMBLE = re.compile(r"^.*(?:: |->)", re.DOTALL)  # `The answer is: care__soap`, `soap 5 s ->care__soap`
# The question, if a model repeats it: `soap 5 s | ivymart | 2.99 -> care | soap`. Its bars separate no labels.
_QUESTION = re.compile(r"^.*\s->\s", re.DOTALL)
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+", re.MULTILINE)  # `- care`, `2. soap`
# Where an answer may begin or end among other words: `Answer: care__soap | x`. `runs` joins the pieces again, for a
# label that contains one of these.
_BORDER = re.compile(r"[\n|]|_{2,}|: |->|<[^<>\n]{1,20}>")
_MAX_RUN = 8  # pieces


KEYS = "keys"


class Reading(NamedTuple):
    """One way to understand a text: its labels by level, of which some may be missing, and the style it is written in.

    The style is one of `keys`, `joined`, `piped`, `arrows`, `slashes`, `lines`, `commas`, `plain` or `empty`. Only with
    `keys` the text itself says which level a label is of. In all other styles labels of the last levels are the last
    ones of a path, wherever that ends.
    """

    labels: dict[str, str]
    style: str


def readings(text: str, levels: Levels) -> list[Reading]:
    """Find every plausible reading of a text, the most likely first; at least one. Never raises.

    Labels without keys are taken for the last levels, because a short answer names those. If there are fewer than
    levels, they may also be any other run of levels: the end or the start may be cut off. A piped answer that missed
    its stop may also end before its last pieces.

    >>> levels = Levels(("group", "module", "brand"), "brand")
    >>> readings("Answer: {'module': 'tea', 'brand': 'tata q", levels)
    [Reading(labels={'module': 'tea', 'brand': 'tata q'}, style='keys')]
    >>> readings("hot__tea", levels)[1]
    Reading(labels={'group': 'hot', 'module': 'tea'}, style='joined')
    """
    text = next((part for part in _STOP_TOKEN.split(_bare(text, levels)) if part.strip()), "")
    if keyed := _read_keys(text, levels):
        return [Reading(keyed, KEYS)]
    found = [
        Reading(labels, style)
        for style, pieces in _read_pieces(text, len(levels))
        for labels in _placed(style, pieces, levels.names)
    ]
    return found or [Reading({}, "empty")]


def runs(text: str, levels: Levels, least: int = 1) -> Iterator[str]:
    """Yield the stretches of a text that may be an answer among other words, normalised; the longest first.

    A stretch is `least` or more consecutive pieces, so a label that contains a separator is found, too.
    """
    pieces = [normalise(unescape(piece), keep_accents=True) for piece in _BORDER.split(_bare(text, levels))]
    words = [piece for piece in pieces if piece]
    for length in range(min(len(words), _MAX_RUN), least - 1, -1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


@cache
def _key_of(levels: Levels) -> tuple[re.Pattern[str], Sequence[str]]:
    """A level as a key: `"brand":`, `'brand':`, `**Brand:** `, `Super-group =`, `the brand is`.

    Also returns the level of each group of the expression.
    """
    names = sorted(levels, key=len, reverse=True)  # the longest first: "group" is the start of "group 2"
    key = "|".join(f"({_spelt(name)})" for name in names)
    return re.compile(
        rf"""(?<![^\W\d_])["'`*]{{0,3}}(?:{key})["'`*]{{0,3}}(?:\s?[:=]|\sis\b:?)\s?\*{{0,2}}""", re.IGNORECASE
    ), names


@cache
def _header_of(levels: Levels) -> re.Pattern[str]:
    """The names of the levels before the labels: `Supergroup | Group | Module | Brand: care | soap | lux | x`."""
    if len(levels) == 1:
        return _NEVER
    first, *_, last = levels
    upper, lower = ("|".join(_spelt(name) for name in levels if name != other) for other in (last, first))
    return re.compile(rf"^\W*(?:{upper})(?:[\s|_,>/-]+(?:{lower}))+\s*[:\n]", re.IGNORECASE)


def _spelt(name: str) -> str:
    """An expression for the name of a level, with or without spaces, dashes and underscores inside."""
    letters = re.sub(r"[\s_-]", "", name) or name
    return r"[\s_-]?".join(map(re.escape, letters))


def _bare(text: str, levels: Levels) -> str:
    """Remove a thought, list marks and a repeated header; make quotes straight."""
    text = text.rpartition(_THOUGHT_END)[2].translate(_STRAIGHT)
    return _header_of(levels).sub("", _LIST_MARK.sub("", text))


def _read_keys(text: str, levels: Levels) -> dict[str, str]:
    """Read the values after the levels' names. A repeated level starts another answer, which is left out."""
    labels: dict[str, str] = {}
    expression, names = _key_of(levels)
    keys = list(expression.finditer(text))
    for key, following in zip_longest(keys, keys[1:]):
        level = names[(key.lastindex or 1) - 1]
        if level in labels:
            break
        value = _read_value(text[key.end() : following.start() if following else len(text)])
        if value.lower() not in _NO_VALUE:
            labels[level] = value
    return labels


def _read_value(raw: str) -> str:
    raw = raw.strip()
    if raw[:1] not in _CLOSING:
        return _clean(_VALUE_END.split(raw, maxsplit=1)[0])
    closing = _CLOSING[raw[0]].search(raw, 1)
    body = raw[1 : closing.start()] if closing else raw[1:].split("\n", maxsplit=1)[0].rstrip(_EDGES)
    if raw[0] == "'":
        return body.replace("\\'", "'").strip()
    if "\\" not in body:
        return body.strip()
    try:
        return str(json.loads(f'"{body}"')).encode(errors="replace").decode().strip()
    except ValueError:
        return body.strip()


def _read_pieces(text: str, most: int) -> Iterator[tuple[str, list[str]]]:
    """Yield styles with up to `most` pieces each, the most likely first.

    The separator and the line that give the most pieces win. Without a separator, a few lines may be the pieces, or the
    parts between commas.
    """
    lines = [line for line in text.splitlines() if _clean(line)]
    style, line, count = "plain", "", 0
    for name, separator in _SEPARATORS.items():
        # A bar is the stop sequence of joined answers; the model ran on after it: `care__soap__lux__x | tea__tata`.
        parts = [part for whole in lines for part in whole.split("|")] if name == "joined" else lines
        for part in parts:
            found = min(len(separator.findall(part)), most - 1)
            if found > count:
                style, line, count = name, part, found
    if count:
        yield style, _cut(_SEPARATORS[style], _QUESTION.sub("", line) if style == "piped" else line, most)
    elif lines:
        if 1 < len(lines) <= most:
            yield "lines", [_clean(line) for line in lines]
        if _WEAK_SEPARATOR.search(lines[0]):
            yield "commas", _cut(_WEAK_SEPARATOR, lines[0], most)
        yield "plain", [_clean(_PREAMBLE.sub("", lines[0]))]


def _cut(separator: re.Pattern[str], line: str, most: int) -> list[str]:
    first, *rest = separator.split(line)
    pieces = [_clean(piece) for piece in (_PREAMBLE.sub("", first), *rest)]
    return [piece for piece in pieces if piece][:most]


def _clean(piece: str) -> str:
    return unescape(piece.strip(_EDGES)).encode(errors="replace").decode().removesuffix(".")


def _placed(style: str, pieces: list[str], names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Assign the pieces to runs of levels, from the last backwards; a piped answer may also have run on."""
    if not all(pieces):
        return
    for start in range(len(names) - len(pieces), -1, -1):
        yield dict(zip(names[start:], pieces, strict=False))
    if style == "piped":
        for length in range(len(pieces) - 1, 1, -1):
            yield dict(zip(names[-length:], pieces, strict=False))
