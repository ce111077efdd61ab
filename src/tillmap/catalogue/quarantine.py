"""Bad rows: the first one stops the run, or all are set aside and listed."""

from dataclasses import dataclass, field

import pandas as pd

from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.items import OnBadRow
from tillmap.catalogue.reading import Row
from tillmap.core.errors import InputError


@dataclass
class Quarantine:
    """Collects bad rows; under "stop" the first one raises InputError."""

    on_bad_row: OnBadRow
    rows: list[tuple[str, int, str, str]] = field(default_factory=list)

    def add(self, file: RowFile, row: Row, reason: str) -> None:
        """Set a row aside. `reason` says what was found and what was expected."""
        if self.on_bad_row == "stop":
            raise InputError(
                f"{file.shown}:{row.place}: {reason}; correct the {file.unit}, or set bad rows aside with "
                "`data.on_bad_row: quarantine`"
            )
        self.rows.append((file.path.name, row.place, reason, row.raw()))

    def to_table(self) -> pd.DataFrame:
        """The rows that were set aside: file, line, reason and raw, see `source.Source`."""
        table = pd.DataFrame(sorted(self.rows), columns=["file", "line", "reason", "raw"])
        return table.astype({"file": "str", "line": "int64", "reason": "str", "raw": "str"})
