"""Fetches the checkpoint that a local language model arm asks or is tuned from."""

from tillmap.cli.stages import Metrics, run_arm_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OFF, write_json
from tillmap.core.writing import new_folder
from tillmap.llm.checkpoints import fetch_checkpoint

PARAMS = ("run.{arm}", "run.cascade", "cascade.llm", "{arm}.base", "{arm}.revision")


def main(params: Params, arm: str) -> Metrics:
    settings = params.block(arm)
    with new_folder(paths.BASE / arm) as folder:
        fetch_checkpoint(settings.base, settings.revision, folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"model": settings.base, "size_mib": round(size / 2**20, 1)}


def write_off(arm: str) -> None:
    with new_folder(paths.BASE / arm) as folder:
        write_json({"off": True}, folder / OFF)


if __name__ == "__main__":
    run_arm_stage(main, PARAMS, write_off, Params.needs)
