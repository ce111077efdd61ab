"""Two experiments of one catalogue, paired row by row: how much more accurate is the second?

    python benchmarks/paired.py ARM FIRST SECOND [SECOND ...]

FIRST and SECOND are names of `dvc exp run`, commits or branches (`workspace`: what lies here), all of one catalogue.
Prints for each the item accuracy on the labelled test rows, the rows that it alone gets right, the difference from
FIRST with its 95% interval (bootstrap by product), and whether it is better, worse or can't be told.
"""

import argparse
from io import BytesIO
from pathlib import Path

import dvc.api
import pandas as pd

from tillmap.evaluation.comparison import compare_arms
from tillmap.evaluation.metrics import mark


def read(name: str, revision: str) -> pd.DataFrame:
    """A Parquet file of the project as an experiment left it."""
    if revision == "workspace":
        return pd.read_parquet(name)
    return pd.read_parquet(BytesIO(dvc.api.read(name, repo=str(Path.cwd()), rev=revision, mode="rb")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm")
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT")
    args = parser.parse_args()

    rows = read("data/split/rows.parquet", args.experiments[0])
    truth = rows[(rows["subset"] == "test") & rows["brand"].notna()]
    file = f"data/predictions/{args.arm}.parquet"
    marks = {name: mark(read(file, name), truth, args.arm) for name in args.experiments}
    table = compare_arms(marks, args.experiments[0]).drop(columns=["reference", "rows"])
    table.insert(1, "accuracy", [marks[name]["right"].mean() for name in table["arm"]])
    first = marks[args.experiments[0]]["right"].mean()
    print(f"{args.arm}, {len(truth):,} rows; {args.experiments[0]}: {first:.4f}")
    print(table.rename(columns={"arm": "experiment"}).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    main()
