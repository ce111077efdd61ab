"""Takes apart a code such as `01.1.4`, or a path such as `Food > Bread`."""

import re
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from tillmap.catalogue.rows import BadRowError, show

LabelsOf = Literal["parts", "prefixes"]

_CODE = re.compile(r"(?=\D*\d)[^\W_]{1,10}(?:[.\-/_:|;,][^\W_]{1,10})*")  # at least one digit
_SHORT_CODE = re.compile(r"\d+|[A-Za-z]{0,2}\d+[A-Za-z]?|[^\W_]{1,2}")
_ALNUM = re.compile(r"[^\W_]+")
_OF_CODES = ".-/_:|;,"
_OF_PATHS = (">", "»", "|", "::", " / ", "/")  # the first that fits
_ONLY_OF_PATHS = frozenset((">", "»", "|", "::"))  # no label has one of these in it
_MOST = 0.9
_HALF = 0.5


def find_separator(values: Collection[str]) -> str | None:
    """What is between the parts of some codes or paths; None if nothing is.

    Codes are values of letters and digits with at least one digit. In them it is the sign that most of them have. In
    paths it is the first of `>`, `»`, `|`, `::` and `/` that half of them have.

    >>> find_separator(["01", "01.1", "01.1.4"]), find_separator(["Food > Bread", "Food > Tea/Coffee"])
    ('.', '>')
    """
    if _share(values, _CODE.fullmatch) >= _MOST:
        counts = {sign: sum(sign in value for value in values) for sign in _OF_CODES}
        best = max(_OF_CODES, key=lambda sign: counts[sign])
        return best if counts[best] else None
    return next((sign for sign in _OF_PATHS if _share(values, lambda value: sign in value) >= _HALF), None)  # noqa: B023


def are_short_codes(values: Collection[str], separator: str | None) -> bool:
    """Whether the parts of most values are such as 01, 4 and A1, which say little without the parts before them."""
    return _share(values, lambda value: all(map(_SHORT_CODE.fullmatch, split_path(value, separator)))) >= _MOST


def split_path(value: str, separator: str | None) -> list[str]:
    """The parts of a code or path, without spaces around them."""
    return [part.strip() for part in value.split(separator)] if separator else [value.strip()]


def read_path(
    column: str, value: str, separator: str | None, labels: LabelsOf, *, short: bool = False
) -> tuple[str, ...]:
    """The labels of a code or path.

    Args:
        column: its field, for errors.
        value: the code or path.
        separator: what is between its parts; None if nothing is.
        labels: `parts` gives 01, 1 and 4 for 01.1.4; `prefixes` gives 01, 01.1 and 01.1.4.
        short: whether the parts are short codes, of letters and digits only.

    Raises BadRowError if a part is empty, or another sign is between the parts.
    """
    parts = split_path(value, separator)
    if not all(parts):
        raise BadRowError(f"`{column}` is {show(value)}, which has an empty part, expected no gap in a path")
    if not all(map(_ALNUM.fullmatch, parts)) if short else separator and _is_separated(parts):
        between = f"with {show(separator)} between its parts" if separator else "of letters and digits"
        raise BadRowError(f"`{column}` is {show(value)}, expected a code {between} (`taxonomy.separator`)")
    if labels == "parts":
        return tuple(parts)
    return tuple((separator or "").join(parts[: depth + 1]) for depth in range(len(parts)))


def _is_separated(parts: Sequence[str]) -> bool:
    """Whether another separator is in one of the parts."""
    return any(sign in part for part in parts for sign in _ONLY_OF_PATHS)


def _share(values: Collection[str], fits: Callable[[str], object]) -> float:
    return sum(bool(fits(value)) for value in values) / len(values) if values else 0.0
