"""Compares one arm in several experiments with the same catalogue, or several arms, row by row.

    python benchmarks/paired.py ARM FIRST SECOND [SECOND ...]
    python benchmarks/paired.py linear workspace workspace:rerank

FIRST and SECOND are names from `dvc exp run`, commits, branches, or `workspace` for the files in this folder. Another
arm than ARM is written after a colon. Prints for each SECOND the item accuracy on the labelled test rows, the rows that
only one of the two gets right, the difference to FIRST with its 95% interval (bootstrap by product), and the verdict:
better, worse or can't tell.
"""

import argparse
from io import BytesIO
from pathlib import Path

import dvc.api
import pandas as pd

from tillmap.core.taxonomy import LabelTree
from tillmap.evaluation.comparison import compare_arms
from tillmap.evaluation.metrics import mark


def read(name: str, revision: str) -> pd.DataFrame:
    """Read a Parquet file of the project from an experiment."""
    if revision == "workspace":
        return pd.read_parquet(name)
    return pd.read_parquet(BytesIO(dvc.api.read(name, repo=str(Path.cwd()), rev=revision, mode="rb")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT")
    args = parser.parse_args()

    split = args.experiments[0].partition(":")[0]
    rows, tree = (read(f"data/split/{name}.parquet", split) for name in ("rows", "tree"))
    levels = LabelTree.from_table(tree).levels
    truth = rows[(rows["subset"] == "test") & levels.labelled(rows)]
    marks = {}
    for name in args.experiments:
        revision, _, arm = name.partition(":")
        arm = arm or args.arm
        marks[name] = mark(read(f"data/predictions/{arm}.parquet", revision), truth, arm, levels)
    table = compare_arms(marks, args.experiments[0]).drop(columns=["reference", "rows"])
    table.insert(1, "accuracy", [marks[name]["right"].mean() for name in table["arm"]])
    first = marks[args.experiments[0]]["right"].mean()
    print(f"{args.arm}, {len(truth):,} rows; {args.experiments[0]}: {first:.4f}")
    print(table.rename(columns={"arm": "experiment"}).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
