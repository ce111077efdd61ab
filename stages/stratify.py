"""Splits the labelled rows into a training subset and three held-out subsets, and builds the label tree."""

from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, read_table, write_json, write_table
from tillmap.core.taxonomy import LabelTree
from tillmap.splitting.drift import Seen
from tillmap.splitting.report import split_report
from tillmap.splitting.subsets import assign_subsets, calibration_share, product_key

PARAMS = ("seed", "split")


def main(params: Params) -> Metrics:
    rows = read_table(paths.RAW / "rows.parquet")
    split = params.split
    products = {text: product_key(text) for text in rows["description"].unique()}
    rows["product"] = rows["description"].map(products).astype("str")
    calibration = calibration_share(split.calibration, split.calibration_rows, int((rows["split"] == "train").sum()))
    shares = {"dev": split.dev, "calibration": calibration, "holdout": split.holdout}
    rows.insert(2, "subset", assign_subsets(rows, split.by, **shares, seed=params.seed))
    tree = LabelTree.from_rows(rows[rows["subset"] == "train"])
    with new_folder(paths.SPLIT) as folder:
        write_table(rows, folder / paths.ROWS.name)
        write_table(tree.to_table(), folder / paths.TREE.name)
    write_json(Seen.of(rows[rows["subset"] == "train"]).as_json(), paths.SEEN)
    return {
        "subsets": {str(subset): int(count) for subset, count in rows["subset"].value_counts(sort=False).items()},
        "paths": len(tree),
        "strict_tree": tree.is_strict,
        "split_by": split.by,
        **split_report(rows, params.seed),
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
