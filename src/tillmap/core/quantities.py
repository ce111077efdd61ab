# ruff: noqa: RUF001 - units are printed in many scripts
"""Quantity, weight, volume and unit price as tills print them in a line: "6X33CL", "0,455KG X 2.99€/KG", "3 za 10"."""

import re
import unicodedata
from dataclasses import dataclass

from tillmap.core.text import normalise

_GRAMS = {
    "g": 1, "gr": 1, "grm": 1, "gm": 1, "gms": 1, "gram": 1, "grams": 1, "kg": 1000, "kgs": 1000, "kilo": 1000,
    "dag": 10, "dkg": 10, "deka": 10, "oz": 28.35, "lb": 453.6, "lbs": 453.6, "г": 1, "гр": 1, "кг": 1000,
    "克": 1, "千克": 1000, "公斤": 1000, "กรัม": 1, "กก": 1000,
}  # fmt: skip
_MILLILITRES = {
    "ml": 1, "mls": 1, "cc": 1, "cl": 10, "dl": 100, "l": 1000, "lt": 1000, "ltr": 1000, "ltrs": 1000, "liter": 1000,
    "litre": 1000, "litres": 1000, "fl oz": 29.57, "мл": 1, "л": 1000, "毫升": 1, "升": 1000, "มล": 1, "ลิตร": 1000,
}  # fmt: skip
_PIECES = (
    "pc", "pcs", "piece", "pieces", "pk", "pack", "packs", "er", "er pack", "szt", "st", "stk", "stck", "stück", "ks",
    "kos", "kom", "db", "ud", "uds", "un", "pz", "ct", "ea", "шт", "個", "个", "ชิ้น",
)  # fmt: skip
_UNITS = (*_GRAMS, *_MILLILITRES, *_PIECES)

_UNIT = f"(?:{'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(?![^\\W\\d_])"
_CURRENCY = r"(?:[€$£¥₹₽₺₴₩₫₪฿]|(?<![^\W\d_])(?:eur|usd|gbp|chf|pln|czk|kr|zł|zl|kč|kc|ft|lei|rs)(?![^\W\d_]))"
_START = r"(?<!\d)(?<!\d[.,/])"  # not within a number
_END = r"(?![.,]?\d)"
_NUMBER = rf"(?:[1-9]/[1-9]|\d{{1,6}}(?:[.,]\d{{1,3}})?){_END}"
_COUNT = rf"\d{{1,4}}{_END}"
_TIMES = r"\s?[x×*]\s?"
# Two decimals make a number a price, and so does a currency.
_PRICE = rf"(?:{_CURRENCY}\s?{_NUMBER}|{_NUMBER}\s?{_CURRENCY}|\d{{1,6}}[.,]\d\d{_END})"
_PER = rf"\s?/\s?(?:{_COUNT})?\s?{_UNIT}"
_QUANTITY = re.compile(
    rf"""
    {_START}(?P<pieces1>{_COUNT}){_TIMES}(?P<size1>{_NUMBER}[\s-]?{_UNIT})            # 6X33CL
    |{_START}(?P<size2>{_NUMBER}[\s-]?{_UNIT}){_TIMES}(?P<price2>{_PRICE}(?:{_PER})?)  # 0,455KG X 2.99€/KG
    |{_START}(?P<pieces3>{_COUNT})(?:{_TIMES}|\s?@\s?)(?P<price3>{_PRICE}(?:{_PER})?)  # 2 X 3.39€
    |{_START}(?P<pieces4>{_COUNT})\s(?:za|for|für|pour|per)\s(?P<total4>{_PRICE}|{_NUMBER})(?!\s?\w)  # 3 za 10
    |{_START}(?P<price5>{_PRICE}{_PER})                                                # 2.99€/KG
    |{_START}(?P<size6>{_NUMBER}[\s-]?{_UNIT})                                         # 1.5L, 2 szt
    |{_START}(?P<price7>{_PRICE})(?<=[^\d])                                            # 3.39€
    |(?P<price8>{_CURRENCY}\s?{_NUMBER})                                               # €3.39
    |(?<![^\W_])(?<!\d\s)[x×](?:\s)?(?P<pieces9>\d{{1,3}})(?![.,]?\d)(?![^\W_])        # X12
    |{_START}(?P<pieces10>\d{{1,3}})\s?[x×](?!\w)(?!\s\d)                              # 12X
    |(?:pack|set|box)\sof\s(?P<pieces11>{_COUNT})
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SIZE_PARTS = re.compile(r"([\d.,/]+)[\s-]?(.+)")
_PER_PARTS = re.compile(r"/\s?(\d*)\s?(.+)$")
_FRACTION = re.compile(r"([1-9])/([1-9])")
_FIRST_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")


@dataclass(frozen=True)
class Quantities:
    """What a line says about amounts; None where it says nothing.

    Attributes:
        text: the line without these parts, or the whole line if nothing else is in it.
        grams, millilitres: the weight and the volume of one piece.
        pieces: how many there are, or how many are in a pack.
        unit_price: the price of one piece, kilogram or litre, in the line's currency.
    """

    text: str
    grams: float | None = None
    millilitres: float | None = None
    pieces: float | None = None
    unit_price: float | None = None


def read_quantities(text: str) -> Quantities:
    """Read the amounts of a line. Of several weights, volumes, counts or prices the first is taken.

    >>> read_quantities("COLA ZERO 6X33CL")
    Quantities(text='COLA ZERO', grams=None, millilitres=330.0, pieces=6.0, unit_price=None)
    >>> read_quantities("BANANAS 0,455KG X 2.99€/KG")
    Quantities(text='BANANAS', grams=455.0, millilitres=None, pieces=None, unit_price=2.99)
    """
    line = text if text.isascii() else "".join(map(_plain, text))
    found: dict[str, float] = {}
    kept, end = [], 0
    for match in _QUANTITY.finditer(line):
        kept.append(text[end : match.start()])
        end = match.end()
        for name, part in match.groupdict().items():
            if part is not None:
                for kind, value in _amounts(name.rstrip("0123456789"), part):
                    found.setdefault(kind, value)
        if match["total4"]:
            found.setdefault("unit_price", _number(match["total4"]) / max(1.0, _number(match["pieces4"])))
    if not kept:
        return Quantities(text)
    rest = " ".join(" ".join([*kept, text[end:]]).split())
    return Quantities(rest if normalise(rest) else text, **found)


def without_quantities(text: str) -> str:
    """The line without quantities, weights, volumes and unit prices; the whole line if nothing else is in it.

    >>> without_quantities("TOMATE 2 X 3.39€ BIO")
    'TOMATE BIO'
    """
    return read_quantities(text).text


def _plain(character: str) -> str:
    """The compatibility form (NFKC) of a character if it is one character, too, so that places in the line stay."""
    form = unicodedata.normalize("NFKC", character)
    return form if len(form) == 1 else character


def _amounts(kind: str, part: str) -> list[tuple[str, float]]:
    """What a matched part says, as pairs of an attribute of `Quantities` and its value."""
    if kind == "pieces":
        return [("pieces", _number(part))]
    if kind == "size":
        parts = _SIZE_PARTS.fullmatch(part)
        assert parts is not None
        return [_in_base_units(_number(parts[1]), parts[2])]
    if kind == "price":
        price = _number(part)
        if per := _PER_PARTS.search(part):
            attribute, amount = _in_base_units(float(per[1] or 1), per[2])
            whole = 1.0 if attribute == "pieces" else 1000.0  # grams in a kilogram, millilitres in a litre
            price = price * whole / amount if amount else price
        return [("unit_price", price)]
    return []


def _in_base_units(number: float, unit: str) -> tuple[str, float]:
    unit = unit.lower()
    for attribute, units in (("grams", _GRAMS), ("millilitres", _MILLILITRES)):
        if unit in units:
            return attribute, round(number * units[unit], 3)
    return "pieces", number


def _number(text: str) -> float:
    if fraction := _FRACTION.match(text):
        return int(fraction[1]) / int(fraction[2])
    match = _FIRST_NUMBER.search(text)
    assert match is not None
    return float(match[0].replace(",", "."))
