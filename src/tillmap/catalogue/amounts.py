"""Reads amounts of money as people write them: `1.99`, `1,99`, `1.234,56`, `€ 1,99`, `1 234,50 zł`, `(2.50)`, `2,50-`.

A single point or comma before exactly three digits is ambiguous: `1,234` may be 1.234 or 1234. What the other amounts
of the file show decides then, see `find_mark`. All other amounts mean the same in every file.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

Mark = Literal[".", ","]

_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]{1,2}")
_NUMBER = re.compile(r"\d[\d.,' ]*|[.,]\d+")
_SIGN = re.compile(r"[+-]")
_GROUPS = re.compile(r"\d{1,3}([.,' ])(?:\d{2,3}\1)*\d{3}")  # thousands, or lakhs: 1,23,456
_NO_CENTS = re.compile(r"(?<=\d)([.,])--?(?!\d)")  # 12.- and 12,--
_NO_PAISE = re.compile(r"(?<=\d)/[-=](?!\d)")  # 45/- and 45/=
_TAX_CODE = re.compile(r"(?<=[.,]\d\d)(-?)[ ]?[*#]?[ ]?[A-FNTZ]?[*#]?$")  # 1,99 A and 1.99*
_BRACKETED = re.compile(r"([^()\d]*)\(([^()]*)\)([^()\d]*)")
_QUOTES = "\"'"  # around a number that a spreadsheet was to take for text: '1.99 and ="1.99"
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
_MARKS = str.maketrans(dict.fromkeys("−–‐‑—", "-") | dict.fromkeys("’‘ʼ′´`", "'") | {"٫": ".", "٬": "'"})  # noqa: RUF001
# Codes, and signs made of letters. The signs of Unicode's currency class need no list.
_CURRENCY_WORDS = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd cad cdf chf clp cny
cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils
inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru
mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek
sgd shp sle sll sos srd ssp stn syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ves vnd vuv wst xaf xcd
xof xpf yer zar zmw
kr zł zl kč kc ft lei лв руб грн дин ден din fr sfr r rs rp rm rmb tl bs gs q s/ sr dh dhs ksh đ euro euros nt
円 元 圆 圓 원 บาท ر.س د.إ ج.م د.م د.ك ريال درهم جنيه ریال تومان
"""  # noqa: RUF001
_CURRENCIES = frozenset(_CURRENCY_WORDS.split())
_MAX_CHARACTERS = 60  # of an amount
_SAMPLE = 10_000  # amounts that decide on a file's decimal mark


def parse_amount(text: str, mark: Mark = ".") -> float | None:
    """The number that a text is; None if it is none.

    Read are: digits of any script and width, decimal points and commas, thousands separated by points, commas, spaces
    or apostrophes, a sign before or after, brackets for a negative number, a currency before or after, or its sign and
    its code, and the code of a tax after it.

    Args:
        text: the text.
        mark: how to read an ambiguous amount, one with a point or comma before exactly three digits.

    >>> parse_amount("€ 1.234,56-"), parse_amount("1,234"), parse_amount("1,234", ","), parse_amount("2 X 3.39")
    (-1234.56, 1234.0, 1.234, None)
    """
    if len(text) > _MAX_CHARACTERS:
        return None
    if _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if _PLAIN.fullmatch(text) and not (mark == "," and _AMBIGUOUS.fullmatch(text.lstrip("+-"))):
        number = float(text)
        return number if math.isfinite(number) else None
    taken = _take_apart(text)
    if taken is None:
        return None
    negative, digits = taken
    last = max(digits.rfind("."), digits.rfind(","))
    decimal = digits[last] if last >= 0 and _is_decimal(digits, last, mark) else ""
    whole, fraction = (digits[:last], digits[last + 1 :]) if decimal else (digits, "")
    groups = _GROUPS.fullmatch(whole)
    if not ((groups and groups[1] != decimal) or whole.isdecimal() or not whole):
        return None
    if not (fraction.isdecimal() or not fraction):
        return None
    value = float(re.sub(r"[., ']", "", whole) + "." + fraction)
    if text.rstrip().endswith("¢"):
        value /= 100
    return -value if negative and value else value


def is_mark_of(text: str) -> Mark | None:
    """The decimal mark that an amount must have been written with; None if it shows none."""
    taken = _take_apart(text)
    if taken is None:
        return None
    digits = taken[1]
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0 or _AMBIGUOUS.fullmatch(digits):
        return None
    mark: Mark = "." if digits[last] == "." else ","
    if _is_decimal(digits, last, mark):
        return mark
    return "," if mark == "." else "."  # it separates thousands


def find_mark(values: Iterable[Any]) -> Mark:
    """The decimal mark of a file: a comma, if more of its first 10,000 amounts show a comma than a point.

    `values` are the fields of the price. Only texts show a mark.
    """
    amounts = islice((value for value in values if value is not None and value != ""), _SAMPLE)
    votes = Counter(is_mark_of(value) for value in amounts if isinstance(value, str))
    return "," if votes[","] > votes["."] else "."


def _is_decimal(digits: str, place: int, mark: Mark) -> bool:
    """Whether the last point or comma, at `place`, starts the decimals."""
    other = "," if digits[place] == "." else "."
    if other in digits:
        return True
    if digits.count(digits[place]) > 1:
        return False
    return digits[place] == mark if _AMBIGUOUS.fullmatch(digits) else True


def _take_apart(text: str) -> tuple[bool, str] | None:
    """Whether an amount is negative, and its digits and separators; None if the text is no amount."""
    if any(unicodedata.category(letter) == "No" for letter in text):  # ½, and the raised cents of 1⁹⁹, are no digits
        return None
    # NFKC makes full-width digits and no-break spaces plain.
    text = unicodedata.normalize("NFKC", text.translate(_MARKS)).translate(_MARKS)
    text = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cf", "Cc")).strip()
    text = _TAX_CODE.sub(r"\1", text.removeprefix("=").strip(_QUOTES))
    text = _NO_PAISE.sub("", _NO_CENTS.sub(r"\g<1>00", text))
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        text = "".join(bracketed.groups())
    found = _NUMBER.search(text)
    if not found:
        return None
    digits = found[0].rstrip(" ")
    around = text[: found.start()], text[found.start() + len(digits) :]
    signs = [sign for part in around for sign in _SIGN.findall(part)]
    currencies = [word for word in (_SIGN.sub("", part).strip() for part in around) if word]
    if len(signs) + bool(bracketed) > 1 or not all(map(_is_currency, currencies)):
        return None
    if len(currencies) > 1 and len(set(map(_has_sign, currencies))) == 1:  # "$1.50 USD" has one of each kind
        return None
    return bool(bracketed) or signs == ["-"], digits


def _is_currency(word: str) -> bool:
    """Whether a word is a sign, with letters or without, as in US$; or a code, or such as "kr." """
    letters = "".join(letter for letter in word if unicodedata.category(letter) != "Sc").strip(" .").casefold()
    return letters in _CURRENCIES or (_has_sign(word) and len(letters) <= 2 and (letters.isalpha() or not letters))


def _has_sign(word: str) -> bool:
    return any(unicodedata.category(letter) == "Sc" for letter in word)
