"""Reads the source folder and checks every row. The order of the rows is kept."""

from pathlib import Path

from tillmap.catalogue.source import read_source
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, write_table

PARAMS = ("data",)


def main(params: Params) -> Metrics:
    source = read_source(Path(params.data.source), params.data.on_bad_row)
    with new_folder(paths.RAW) as folder:
        write_table(source.rows, folder / "rows.parquet")
        write_table(source.quarantined, folder / "quarantined.parquet")
    counts = source.rows["split"].value_counts()
    labelled = source.rows["brand"].notna().groupby(source.rows["split"]).sum()
    return {
        "train_rows": int(counts["train"]),
        "test_rows": int(counts["test"]),
        "labelled_test_rows": int(labelled["test"]),
        "null_prices": int(source.rows["price"].isna().sum()),
        "quarantined": len(source.quarantined),
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
