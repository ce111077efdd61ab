"""Trains the linear arm: its recipe is chosen on the `dev` subset, then fitted anew with the held-out parts."""

from runner import Metrics, run

from tillmap.arms import linear
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, read_table, write_json
from tillmap.core.taxonomy import LabelTree

PARAMS = ("seed", "run.linear", "linear")


def main(params: Params) -> Metrics:
    with new_folder(paths.MODELS / "linear") as folder:
        if not params.run.linear:
            write_json({"off": True}, folder / "off.json")
            return {"off": True}
        chosen, rows = params.linear.model_dump(exclude={"refit_up_to"}), read_table(paths.ROWS)
        chosen |= {block: None for block in ("price", "retailer") if chosen[block] == "auto"}
        settings = linear.Settings(**chosen | {"ngrams": tuple(params.linear.ngrams)})
        model = linear.train(rows, LabelTree.from_table(read_table(paths.TREE)), settings, params.seed)
        others = whole = None
        if (rows["split"] == "train").sum() <= params.linear.refit_up_to:
            others = linear.refit_for_calibration(model, rows, params.seed)
            whole = linear.refit(model, rows, params.seed)
        linear.save(model, folder, others=others, whole=whole)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "rows": int((rows["subset"] == "train").sum()),
        "blocks": list(model.recipe.blocks),
        "siblings": model.recipe.siblings,
        "head_weights": list(model.recipe.head_weights),
        "trials": list(model.trials),
        "size_mib": round(size / 2**20, 1),
    }


if __name__ == "__main__":
    run(main, PARAMS)
