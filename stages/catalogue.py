"""Writes the simulated demo catalogue, in the file format of the contest."""

from pathlib import Path

from tillmap.catalogue.demo import make_demo, write_contest_files
from tillmap.catalogue.source import check_source
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.writing import new_folder

PARAMS = ("seed", "demo", "data.source")


def main(params: Params) -> Metrics:
    source = Path(params.data.source)
    if source != paths.DEMO:
        check_source(source)  # in the first stage, because DVC's own error for a missing dependency gives no advice
    catalogue = make_demo(params.demo.train_rows, params.demo.test_rows, seed=params.seed)
    with new_folder(paths.DEMO) as folder:
        write_contest_files(catalogue, folder)
    return {"train_rows": len(catalogue.train), "test_rows": len(catalogue.test)}


if __name__ == "__main__":
    run_stage(main, PARAMS)
