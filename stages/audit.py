"""Lists labelled rows whose label looks wrong, for a person to check. It changes nothing: only the report shows it."""

from dataclasses import asdict

from tillmap.audit.evidence import gather
from tillmap.audit.suspects import estimate_share, find_suspects, similar_rows
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OFF, read_table, write_json, write_table
from tillmap.core.stored import read_rows
from tillmap.core.taxonomy import LabelTree
from tillmap.core.writing import new_folder
from tillmap.linear import fits

PARAMS = ("seed", "audit")


def main(params: Params) -> Metrics:
    with new_folder(paths.AUDIT) as folder:
        if params.audit.folds is None or (paths.LINEAR / OFF).is_file():
            write_json({"off": True}, folder / OFF)
            return {"off": True}
        rows, tree = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE))
        labelled = rows[(rows["split"] == "train") & tree.levels.labelled(rows)].reset_index(drop=True)
        recipe = fits.load(paths.LINEAR, fits.fit_for("dev")).recipe
        evidence = gather(labelled, tree, recipe, params.audit.folds, params.seed)
        share = estimate_share(labelled, evidence, tree.levels, seed=params.seed)
        suspects = find_suspects(labelled, evidence, tree.levels, share.share)
        write_table(suspects, folder / paths.SUSPECTS.name)
        write_table(similar_rows(suspects, labelled, evidence), folder / paths.SIMILAR.name)
        write_json({"rows": len(labelled), "wrong": asdict(share)}, folder / paths.SHARE.name)
    return {
        "rows": len(labelled),
        "suspects": len(suspects),
        "wrong": {"share": round(share.share, 4), "low": round(share.low, 4), "high": round(share.high, 4)},
        "levels": {str(level): int(count) for level, count in suspects["level"].value_counts().items()},
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
