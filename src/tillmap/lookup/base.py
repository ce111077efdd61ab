"""What all sources of descriptions share: the interface, the cache, and the check of what comes from outside."""

import json
import logging
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tillmap.core.errors import TillmapError
from tillmap.core.files import json_bytes, json_object, write_jsonl
from tillmap.core.text import normalise

log = logging.getLogger(__name__)


class LookupFailedError(TillmapError):
    """A source of descriptions refuses, fails, or answers what cannot be used."""


class Found(NamedTuple):
    """What a source knows about a text: `about` is "" if nothing. `requests` is how many were sent for it."""

    about: str
    requests: int = 0


class Source(ABC):
    """A source of descriptions. `key` names it and its settings in the cache."""

    key: str

    @abstractmethod
    def find(self, texts: Iterable[str]) -> Iterable[tuple[str, Found]]:
        """What is known about normalised texts, each as soon as it is known. Texts may be left out.

        Raises LookupFailedError, or ResourceError if it would cost more than the budget.
        """


class Cache:
    """The answers of paid sources in a file of JSON Lines, which DVC tracks, so that no question is paid for twice.

    An answer is written as soon as it is known: a killed run resumes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_bytes().splitlines():
                record = _record(line)
                if record is not None:  # a killed run may have left half a line
                    self._records[record["source"], record["text"]] = record

    def get(self, source: str, text: str) -> str | None:
        """The description of a text; None if the source was not asked."""
        record = self._records.get((source, text))
        return None if record is None else str(record["about"])

    def add(self, source: str, text: str, found: Found) -> None:
        """Keep an answer."""
        record = {"source": source, "text": text, **found._asdict()}
        self._records[source, text] = record
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"\n" if file.tell() and not _ends_a_line(self._path) else b"")
            file.write(json_bytes(json.dumps(record, ensure_ascii=False) + "\n"))

    def requests(self) -> int:
        """The requests that all answers took, in this run and earlier ones."""
        return sum(record["requests"] for record in self._records.values())

    def save(self) -> None:
        """Write the file again, sorted, so that equal answers are equal bytes."""
        write_jsonl((self._records[key] for key in sorted(self._records)), self._path)


def look_up(texts: Iterable[str], source: Source, cache: Cache | None) -> tuple[dict[str, str], dict[str, int]]:
    """The descriptions of some texts, and how many texts were asked, cached and found.

    Args:
        texts: receipt lines, not normalised.
        source: where to look.
        cache: of a source that is asked again only for new texts; None reads all anew.

    Returns the descriptions by normalised text, without the texts that nothing is known about. Raises what
    `Source.find` raises; what was found until then is in the cache.
    """
    distinct = list(dict.fromkeys(normalise(text) for text in texts))
    known: dict[str, str] = {}
    for text in distinct:
        kept = cache.get(source.key, text) if cache else None
        if kept is not None:
            known[text] = kept
    new = [text for text in distinct if text not in known]
    asked, requests = 0, 0
    for text, found in source.find(new):
        known[text] = found.about
        asked, requests = asked + 1, requests + found.requests
        if cache:
            cache.add(source.key, text, found)
    about = {text: known[text] for text in distinct if known.get(text)}
    counts = {"texts": len(distinct), "cached": len(distinct) - len(new), "answered": asked, "found": len(about)}
    return about, counts | {"failed": len(new) - asked, "requests": requests}


def cleaned(text: str, most: int) -> str:
    """A text from outside as one line of at most `most` characters, without control and format characters."""
    shown = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text[: 20 * most])
    line = " ".join(shown.split())
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."


def _record(line: bytes) -> dict[str, Any] | None:
    record = json_object(line) or {}
    kinds: Mapping[str, type] = {"source": str, "text": str, "about": str, "requests": int}
    fits = all(isinstance(record.get(name), kind) for name, kind in kinds.items())
    return record if fits else None


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
