"""Reads the files of `data.source`, checks every row, and lays `data.corrections` over them. Keeps the rows' order."""

from pathlib import Path

import pandas as pd

from tillmap.catalogue.corrections import correction_files, read_corrections
from tillmap.catalogue.counts import count_rows, find_contradictions
from tillmap.catalogue.overlay import overlay
from tillmap.catalogue.quarantine import Quarantine
from tillmap.catalogue.source import read_source
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import write_json, write_table
from tillmap.core.inputs import watch
from tillmap.core.writing import new_folder

PARAMS = ("data", "taxonomy")


def main(params: Params) -> Metrics:
    corrected = Path(params.data.corrections)
    unchanged = watch(Path(params.data.source), *correction_files(corrected))
    found, faults = read_source(params.data, params.taxonomy), Quarantine(params.data.on_bad_row)
    corrections = read_corrections(corrected, params.data.columns, found.labels, faults)
    overlaid = overlay(found, corrections, faults)
    unchanged()
    source, levels = overlaid.source, found.levels
    rows, quarantined = source.rows, pd.concat([found.quarantined, faults.to_table()], ignore_index=True)
    with new_folder(paths.RAW) as folder:
        write_table(rows, folder / "rows.parquet")
        write_table(quarantined, folder / "quarantined.parquet")
        write_table(find_contradictions(rows, levels), folder / "contradictions.parquet")
        write_json({"levels": list(levels), "brand": levels.brand}, folder / "levels.json")
        if source.declared is not None:
            write_table(source.declared.to_table(), folder / "declared.parquet")
        if corrections:
            write_table(overlaid.listed, folder / "corrections.parquet")
    is_test = rows["split"] == "test"
    return {
        "train_rows": int((~is_test).sum()),
        "test_rows": int(is_test.sum()),
        "labelled_test_rows": int(levels.labelled(rows[is_test]).sum()),
        **count_rows(rows, levels),
        "quarantined": len(quarantined),
        "corrections": overlaid.counts,
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
