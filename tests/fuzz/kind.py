"""What a kind of file is, for the campaign."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tillmap.arms import schema
from tillmap.config.params import read_params
from tillmap.core.errors import TillmapError

Files = Mapping[str, bytes]
IN = "in"  # the folder in the project where inputs are put


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        files: gives the files by their place in the project; called in a trained project. A copy of one is damaged.
        run: reads them.
        structure: of the files, see `mutate.DAMAGE`; by the ending of a name where they differ.
        pack: packs a damaged file; half of the time the packed bytes are damaged instead.
    """

    files: Callable[[], Files]
    run: Callable[[], object]
    structure: str | Mapping[str, str] = "bytes"
    pack: Callable[[bytes], bytes] | None = None

    def structure_of(self, name: str) -> str:
        if isinstance(self.structure, str):
            return self.structure
        return next((kind for ending, kind in self.structure.items() if name.endswith(ending)), "bytes")


BY_ENDING = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".safetensors": "safetensors",
    ".txt": "text",
    ".csv": "csv",
}

refused: list[TillmapError] = []  # what targets were told that read several times


@contextmanager
def refusing() -> Iterator[None]:
    try:
        yield
    except TillmapError as error:
        refused.append(error)


@cache
def params_here():
    """The params of the project in the working folder, which stays the same in a process."""
    return read_params(Path("params.yaml"), schema())


def own(*names: str) -> Callable[[], Files]:
    """Files of the trained project itself; a folder's name stands for all in it."""

    def files() -> Files:
        found = {}
        for name in names:
            there = Path(name)
            for file in sorted(there.rglob("*")) if there.is_dir() else [there]:
                if file.is_file() and file.suffix != ".lock":
                    found[str(file)] = file.read_bytes()
        return found

    return files


def parquet(table: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()
