"""Lenient reading of a model's free text into labels, whatever state the text is in."""

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import NamedTuple

from tillmap.labels import LEVELS
from tillmap.targets import unescape

_STOP_TOKEN = re.compile(r"<\|[^|<>]*\|>|</?s>")
_KEY = re.compile(
    r"""(?<![a-z])["'`*]{0,3}(super[\s_-]?group|group|module|brand)["'`*]{0,3}\s?[:=]\s?\*{0,2}""", re.IGNORECASE
)
# What ends an unquoted value: the line, a brace, a bar, or a key that is no level (`, retailer: ivymart`).
_VALUE_END = re.compile(r"""[\n}|]|[,;]\s?["']?\w{1,30}["']?\s?[:=]""")
# An apostrophe inside a label is no closing quote: that one has the end, a comma or a brace behind it.
_CLOSING = {quote: re.compile(rf"(?<!\\){quote}\s?(?:[,}}\];|\n]|$)") for quote in "\"'"}
_NO_VALUE = ("null", "none", "")
_EDGES = " \t\r\n,;:{}[]()\"'`*_|"
_SEPARATORS = {
    "joined": re.compile(r"_{2,}"),
    "piped": re.compile(r"\|+"),
    "arrows": re.compile(r"[-=]?>+|→"),
    "slashes": re.compile(r"\s/+\s|\t+"),
}
_PREAMBLE = re.compile(r"^.*(?:: |->)", re.DOTALL)


class Reading(NamedTuple):
    """One way to understand a text: its labels by level, some perhaps missing, and the style it seems written in.

    The style is `keys`, `joined`, `piped`, `arrows`, `slashes`, `plain` or `empty`.
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
    text = next((part for part in _STOP_TOKEN.split(text) if part.strip()), "")
    if not text.strip():
        return [Reading({}, "empty")]
    if keyed := _read_keys(text):
        return [Reading(keyed, "keys")]
    style, pieces = _read_pieces(text)
    if not pieces:
        return [Reading({}, "empty")]
    return [Reading(labels, style) for labels in _placed(pieces, may_run_on=style == "piped")]


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


def _read_pieces(text: str) -> tuple[str, list[str]]:
    """The style of the first separator that occurs, and at most four pieces of the line that has most of them."""
    lines = text.splitlines()
    for style, separator in _SEPARATORS.items():
        # Behind a bar, the seed's stop sequence, a joined answer has run on.
        parts = [part for line in lines for part in line.split("|")] if style == "joined" else lines
        line = max(parts, key=lambda part: min(len(separator.findall(part)), len(LEVELS) - 1), default="")
        if separator.search(line):
            first, *rest = separator.split(line)
            pieces = [_clean(piece) for piece in (_PREAMBLE.sub("", first), *rest)]
            return style, [piece for piece in pieces if piece][: len(LEVELS)]
    line = next((line for line in lines if _clean(line)), "")
    return "plain", [piece for piece in (_clean(_PREAMBLE.sub("", line)),) if piece]


def _clean(piece: str) -> str:
    return unescape(piece.strip(_EDGES)).encode(errors="replace").decode().removesuffix(".")


def _placed(pieces: list[str], may_run_on: bool) -> Iterator[dict[str, str]]:
    """The pieces under each run of levels of their number, from the brand's end, then shorter starts of them."""
    for start in range(len(LEVELS) - len(pieces), -1, -1):
        yield dict(zip(LEVELS[start:], pieces, strict=False))
    if may_run_on:
        for length in range(len(pieces) - 1, 1, -1):
            yield dict(zip(LEVELS[-length:], pieces, strict=False))
