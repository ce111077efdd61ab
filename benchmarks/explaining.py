"""What explanations cost: rows labelled per CPU second with and without them, and the ratio of the two.

    python benchmarks/explaining.py INPUT --arm linear [--explain K]

Run it in a project with a trained arm. It labels INPUT in turns with and without explanations, three times each, and
takes the fastest.
"""

import argparse
import time
from pathlib import Path

import pandas as pd

from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.serving.feed import open_feed
from tillmap.serving.labeller import Labeller, open_arm

TURNS = 3


def rows_per_second(labeller: Labeller, rows: pd.DataFrame, explain: int) -> float:
    began = time.process_time()
    for start in range(0, len(rows), labeller.rows_at_once):
        labeller.label(rows.iloc[start : start + labeller.rows_at_once], first=start, explain=explain)
    return len(rows) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--explain", type=int, default=5)
    given = parser.parse_args()
    params = read_params(paths.PARAMS, schema())
    labeller = open_arm(given.arm, params)
    rows = pd.concat(open_feed(given.input, params.data).batches(labeller.rows_at_once), ignore_index=True)
    for explain in (0, given.explain):
        labeller.label(rows.head(100), explain=explain)  # loads and compiles
    turns = [[rows_per_second(labeller, rows, explain) for explain in (0, given.explain)] for _ in range(TURNS)]
    plain, explained = map(max, zip(*turns, strict=True))
    print(f"without explanations {plain:9,.0f} rows per CPU second")
    print(f"--explain {given.explain:<10} {explained:9,.0f} rows per CPU second")
    print(f"ratio                {explained / plain:9.2f}")


if __name__ == "__main__":
    main()
