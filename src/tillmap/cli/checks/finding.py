"""What a check of `tillmap doctor` gives."""

from typing import NamedTuple


class Finding(NamedTuple):
    """The result of one check: whether it passed, what was found and, if it failed, how to fix it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
