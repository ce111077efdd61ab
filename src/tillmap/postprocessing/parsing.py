"""Lenient reading of a model's free text into labels, whatever state the text is in."""

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from tillmap.core.taxonomy import LEVELS
from tillmap.core.text import normalise
from tillmap.llm.answer_formats import unescape

_STOP_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?s>")
_THOUGHT_END = "</think>"
_STRAIGHT = str.maketrans("“”„", '"""')
_KEY = re.compile(
    r"""(?<![a-z])["'`*]{0,3}(super[\s_-]?group|group|module|brand)["'`*]{0,3}(?:\s?[:=]|\sis\b:?)\s?\*{0,2}""",
    re.IGNORECASE,
)
# What ends an unquoted value: the line, a brace, a bar, or a key that is no level (`, retailer: ivymart`).
_VALUE_END = re.compile(r"""[\n}|]|[,;]\s?["']?\w{1,30}["']?\s?[:=]""")
# An apostrophe inside a label is no closing quote: that one has the end, a comma or a brace behind it.
_CLOSING = {quote: re.compile(rf"(?<!\\){quote}\s?(?:[,.}}\];|\n]|and\b|$)") for quote in "\"'"}
_NO_VALUE = ("null", "none", "")
_EDGES = " \t\r\n,;:{}[]()\"'`*_|"
_SEPARATORS = {
    "joined": re.compile(r"_{2,}"),
    "piped": re.compile(r"\|+"),
    "arrows": re.compile(r"[-=]?>+|→"),
    "slashes": re.compile(r"\s/+\s|\t+"),
}
_WEAK_SEPARATOR = re.compile(r"[,;]\s")  # occurs in labels, too
_PREAMBLE = re.compile(r"^.*(?:: |->)", re.DOTALL)
_QUESTION = re.compile(r"^.*\s->\s", re.DOTALL)  # GradientGurus', with bars of its own, when it is echoed
_LIST_MARK = re.compile(r"^[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t]+", re.MULTILINE)
_HEADER = re.compile(
    r"^\W*(?:super[\s_-]?)?(?:group|module)(?:[\s|_,>/-]+(?:group|module|brand))+\s*[:\n]", re.IGNORECASE
)
# Where an answer may begin or end among other words. A label that holds one of these is put together again by `runs`.
_BORDER = re.compile(r"[\n|]|_{2,}|: |->|<[^<>\n]{1,20}>")
_LONGEST_RUN = 8


class Reading(NamedTuple):
    """One way to understand a text: its labels by level, some perhaps missing, and the style it seems written in.

    The style is `keys`, `joined`, `piped`, `arrows`, `slashes`, `lines`, `commas`, `plain` or `empty`.
    """

    labels: dict[str, str]
    style: str


def parse(text: str) -> Reading:
    """The likeliest reading of a text. Never raises.

    >>> parse("Answer: {'module': 'tea', 'brand': 'tata q")
    Reading(labels={'module': 'tea', 'brand': 'tata q'}, style='keys')
    """
    return readings(text)[0]


def readings(text: str) -> list[Reading]:
    """Every plausible reading of a text, the likeliest first; at least one. Never raises.

    Labels that carry no key are taken for the last levels, which a short answer names; where there are fewer than
    four, they may be any other run of levels, the end or the start being cut off. A piped answer that missed its stop
    may also end before its last pieces.
    """
    text = next((part for part in _STOP_TOKEN.split(_bare(text)) if part.strip()), "")
    if keyed := _read_keys(text):
        return [Reading(keyed, "keys")]
    found = [Reading(labels, style) for style, pieces in _read_pieces(text) for labels in _placed(style, pieces)]
    return found or [Reading({}, "empty")]


def runs(text: str, least: int = 1) -> Iterator[str]:
    """The stretches of a text that an answer among other words may fill, normalised; the longest first.

    A stretch is `least` pieces in a row or more, so that it does not matter which labels hold a separator.
    """
    pieces = [normalise(unescape(piece)) for piece in _BORDER.split(_bare(text))]
    words = [piece for piece in pieces if piece]
    for length in range(min(len(words), _LONGEST_RUN), least - 1, -1):
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _bare(text: str) -> str:
    """The text without a thought before it, typographic quotes, list marks and an echo of the answer's form."""
    text = text.rpartition(_THOUGHT_END)[2].translate(_STRAIGHT)
    return _HEADER.sub("", _LIST_MARK.sub("", text))


def _read_keys(text: str) -> dict[str, str]:
    """The values behind level names; a level named a second time begins another answer, which is left out."""
    labels: dict[str, str] = {}
    keys = list(_KEY.finditer(text))
    for key, following in zip_longest(keys, keys[1:]):
        level = re.sub(r"[\s_-]", "", key[1]).lower()
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


def _read_pieces(text: str) -> Iterator[tuple[str, list[str]]]:
    """Styles with at most four pieces each, the likeliest first: of the separator and line that make most pieces.

    Without a separator, a few lines may be the pieces, or what stands between commas.
    """
    lines = [line for line in text.splitlines() if _clean(line)]
    style, line, count = "plain", "", 0
    for name, separator in _SEPARATORS.items():
        # Behind a bar, GradientGurus' stop sequence, a joined answer has run on.
        parts = [part for whole in lines for part in whole.split("|")] if name == "joined" else lines
        for part in parts:
            found = min(len(separator.findall(part)), len(LEVELS) - 1)
            if found > count:
                style, line, count = name, part, found
    if count:
        yield style, _cut(_SEPARATORS[style], _QUESTION.sub("", line) if style == "piped" else line)
    elif lines:
        if 1 < len(lines) <= len(LEVELS):
            yield "lines", [_clean(line) for line in lines]
        if _WEAK_SEPARATOR.search(lines[0]):
            yield "commas", _cut(_WEAK_SEPARATOR, lines[0])
        yield "plain", [_clean(_PREAMBLE.sub("", lines[0]))]


def _cut(separator: re.Pattern[str], line: str) -> list[str]:
    first, *rest = separator.split(line)
    pieces = [_clean(piece) for piece in (_PREAMBLE.sub("", first), *rest)]
    return [piece for piece in pieces if piece][: len(LEVELS)]


def _clean(piece: str) -> str:
    return unescape(piece.strip(_EDGES)).encode(errors="replace").decode().removesuffix(".")


def _placed(style: str, pieces: list[str]) -> Iterator[dict[str, str]]:
    """The pieces under each run of levels of their number, from the brand's end, then shorter starts of them."""
    if not all(pieces):
        return
    for start in range(len(LEVELS) - len(pieces), -1, -1):
        yield dict(zip(LEVELS[start:], pieces, strict=False))
    if style == "piped":
        for length in range(len(pieces) - 1, 1, -1):
            yield dict(zip(LEVELS[-length:], pieces, strict=False))
