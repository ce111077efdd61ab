"""Splits the labelled rows into a training subset and three held-out subsets, and builds the label tree.

Without a test file, some of the labelled rows become the test rows first.
"""

import pandas as pd

from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import of_this_version, read_as, read_json, read_table, write_json, write_table
from tillmap.core.stored import INGESTED, read_rows
from tillmap.core.taxonomy import LabelTree, Levels
from tillmap.core.writing import new_folder
from tillmap.splitting.alike import count_alike
from tillmap.splitting.drift import Seen
from tillmap.splitting.listings import join_products
from tillmap.splitting.report import split_report
from tillmap.splitting.subsets import assign_subsets, calibration_share, draw_test, place_added, product_key

PARAMS = ("seed", "split")


def main(params: Params) -> Metrics:
    rows, found = read_rows(paths.RAW / "rows.parquet", needed=INGESTED), read_json(paths.RAW / "levels.json")
    with of_this_version(paths.RAW / "levels.json"):
        levels = read_as(Levels, paths.RAW / "levels.json", {"names": found["levels"], "brand": found["brand"]})
    split = params.split
    products = {text: product_key(text) for text in rows["description"].unique()}
    rows["product"] = rows["description"].map(products).astype("str")
    # Rows that a person added have no part in the draw, so it is the same with and without them.
    is_added = rows["corrected"].eq("added") if "corrected" in rows else pd.Series(False, index=rows.index)
    added, rows = rows[is_added], rows[~is_added]
    joined = join_products(rows[rows["split"] == "train"], levels)
    added, rows = (table.assign(product=[joined.get(key, key) for key in table["product"]]) for table in (added, rows))
    draws_test = not (rows["split"] == "test").any()
    if draws_test:
        rows = draw_test(rows, split.by, split.test, params.seed)
    calibration = calibration_share(split.calibration, split.calibration_rows, int((rows["split"] == "train").sum()))
    shares = {"dev": split.dev, "calibration": calibration, "holdout": split.holdout}
    rows.insert(2, "subset", assign_subsets(rows, split.by, **shares, seed=params.seed))
    added.insert(2, "subset", place_added(added, rows, split.by, test_drawn=draws_test))
    rows = pd.concat([rows, added[added["subset"] != "unused"]], ignore_index=True)
    taxonomy = paths.RAW / "declared.parquet"  # only there if the user has a taxonomy file
    declared = LabelTree.from_table(read_table(taxonomy)) if taxonomy.is_file() else None
    train = rows[rows["subset"] == "train"]
    tree = LabelTree.from_rows(train, levels, declared)
    with new_folder(paths.SPLIT) as folder:
        write_table(rows, folder / paths.ROWS.name)
        write_table(tree.to_table(), folder / paths.TREE.name)
    write_json(Seen.of(train).as_json(), paths.SEEN)
    return {
        "subsets": {str(subset): int(count) for subset, count in rows["subset"].value_counts(sort=False).items()},
        "test_drawn": draws_test,
        "added_unused": int((added["subset"] == "unused").sum()),
        "paths": len(tree),
        "strict_tree": tree.is_strict,
        "alike_labels": count_alike(rows[rows["split"] == "train"], levels),
        "split_by": split.by,
        **split_report(rows, levels, params.seed),
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
