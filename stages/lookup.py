"""Looks up what is known outside about the rows that language models are asked about."""

from pathlib import Path

import pandas as pd

from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.blocks import Outside
from tillmap.config.params import Params
from tillmap.core.errors import ParamsError
from tillmap.core.files import read_table, write_table
from tillmap.core.stored import read_rows
from tillmap.core.taxonomy import LabelTree
from tillmap.lookup.base import Cache, Source, look_up
from tillmap.lookup.table import TableSource
from tillmap.splitting.subsets import rows_to_answer

PARAMS = ("seed", "context", "data.source", "data.encoding", "run.pilot_rows")


def main(params: Params) -> Metrics:
    chosen, cache = params.context, Cache(paths.LOOKUP / "answers.jsonl")
    paths.LOOKUP.mkdir(parents=True, exist_ok=True)  # what was paid for stays there, whatever the provider now
    if chosen.provider == "none":
        write_table(_table({}), paths.ABOUT)
        return {"off": True}
    rows = read_rows(paths.ROWS)
    levels = LabelTree.from_table(read_table(paths.TREE)).levels
    scored = levels.labelled(rows[rows["subset"] == "test"]).any()
    used = rows["subset"].isin(("test", "calibration") if scored else ("test", "calibration", "holdout"))
    asked = rows_to_answer(rows[used], chosen.held_out_rows, params.seed, params.run.pilot_rows)
    source = _source(chosen, Path(params.data.source), params.data.encoding)
    try:
        about, counts = look_up(asked["description"], source, cache if chosen.provider == "http" else None)
    finally:
        cache.save()
    write_table(_table(about), paths.ABOUT)
    price = chosen.http.usd_per_request
    bill = {"usd": round(counts["requests"] * price, 4), "usd_in_all": round(cache.requests() * price, 4)}
    return {"rows": len(asked), **counts, **bill}


def _source(chosen: Outside, folder: Path, encoding: str) -> Source:
    if chosen.provider == "http":
        from tillmap.lookup.http import HttpSource, SearchApi

        if not chosen.http.url:
            raise ParamsError(f"{paths.PARAMS}: context.provider is http; name the address in context.http.url")
        return HttpSource(SearchApi(**chosen.http.model_dump()), most=chosen.max_characters)
    table = chosen.table
    if table.file is None:
        raise ParamsError(f"{paths.PARAMS}: context.provider is table; name the file in context.table.file")
    if not folder.is_dir():  # DVC would not see that the table changes
        raise ParamsError(
            f"context.table.file is a file in the source folder, but data.source is the file {folder}; set data.source "
            "to its folder, and name the file in `data.train`"
        )
    return TableSource(folder / table.file, table.text, table.about, encoding=encoding, most=chosen.max_characters)


def _table(about: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"text": list(about), "about": list(about.values())}, dtype="str")


if __name__ == "__main__":
    run_stage(main, PARAMS)
