"""Descriptions from a table of the user's: JSON Lines, CSV or Parquet."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError, read_label
from tillmap.core.errors import InputError
from tillmap.core.text import normalise
from tillmap.lookup.base import Found, Source, cleaned


class TableSource(Source):
    """Finds a line by its text, whatever its case and punctuation. Of rows with the same text the first counts."""

    key = "table"

    def __init__(self, path: Path, text: str, about: str, *, encoding: str = "utf-8", most: int = 200) -> None:
        """From a file with the columns `text` (a receipt line) and `about` (what it is). `most` characters are kept."""
        self._file = RowFile(
            path, encoding=encoding, known=(text, about), remedy="check `context.table.file`", naming="`context.table`"
        )
        self._text, self._about, self._most = text, about, most

    def find(self, texts: Iterable[str]) -> Iterator[tuple[str, Found]]:
        """See `Source.find`. Raises InputError, with the line, if the table cannot be read."""
        for text in texts:
            yield text, Found(self._known.get(text, ""))

    @cached_property
    def _known(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for row in self._file.rows([self._text, self._about]):
            try:
                record = row.read()
                text, about = (read_label(record, name) for name in (self._text, self._about))
            except BadRowError as error:
                raise InputError(f"{self._file.shown}:{row.place}: {error}; correct the row, or leave it out") from None
            known.setdefault(normalise(text), cleaned(about, self._most))
        known.pop("", None)
        return known
