"""Reads the files of `data.source` and checks every row. The order of the rows is kept."""

from pathlib import Path

from tillmap.catalogue.counts import count_rows, find_contradictions
from tillmap.catalogue.source import read_source
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, write_json, write_table
from tillmap.core.inputs import watch

PARAMS = ("data", "taxonomy")


def main(params: Params) -> Metrics:
    unchanged = watch(Path(params.data.source))
    source = read_source(params.data, params.taxonomy)
    unchanged()
    rows, levels = source.rows, source.levels
    with new_folder(paths.RAW) as folder:
        write_table(rows, folder / "rows.parquet")
        write_table(source.quarantined, folder / "quarantined.parquet")
        write_table(find_contradictions(rows, levels), folder / "contradictions.parquet")
        write_json({"levels": list(levels), "brand": levels.brand}, folder / "levels.json")
        if source.declared is not None:
            write_table(source.declared.to_table(), folder / "declared.parquet")
    is_test = rows["split"] == "test"
    return {
        "train_rows": int((~is_test).sum()),
        "test_rows": int(is_test.sum()),
        "labelled_test_rows": int(levels.labelled(rows[is_test]).sum()),
        **count_rows(rows, levels),
        "quarantined": len(source.quarantined),
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
