"""The linear model against the vote of lexical neighbours (the baseline), on a catalogue in the contest's format.

    python benchmarks/linear.py --data FOLDER [--split-by product|row] [--rows N]

`linear` is trained on the training subset, 88% of the labelled rows, and its recipe is chosen on 4%. `refitted` is the
same recipe trained on all labelled rows, like the baseline; its seconds include the choice of the recipe. Prints the
item accuracy on labelled test rows, the CPU seconds of training, the rows answered per CPU second (features, scores and
decoding), the size of the files, the peak memory, and the ratios to the baseline. Each system runs in a process of its
own, one after the other.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from tillmap.core.taxonomy import CONTEST, LabelTree, right_labels
from tillmap.linear import fits
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import neighbours_table
from tillmap.retrieval.vote import vote
from tillmap.splitting.subsets import By, assign_subsets, product_key

BASELINE = "lexical vote"
SYSTEMS = (BASELINE, "linear", "refitted")
NEIGHBOURS = 20
SHARE = 0.04  # of each held-out subset
SEED = 3407
Answer = Callable[[pd.DataFrame], pd.DataFrame]


def read(folder: Path, by: By) -> pd.DataFrame:
    """A rows table: split, id, subset, description, retailer, price and the four levels."""
    tables = []
    for split in ("train", "test"):
        kinds = [pd.read_json(folder / f"{split}.{kind}", lines=True, dtype=False) for kind in ("features", "labels")]
        tables.append(kinds[0].merge(kinds[1], on="indoml_id").assign(split=split))
    rows = pd.concat(tables, ignore_index=True).rename(columns={"indoml_id": "id"})
    rows["price"] = pd.to_numeric(rows["price"]).astype(float)
    rows["product"] = [product_key(text) for text in rows["description"]] if by == "product" else ""
    rows["subset"] = assign_subsets(rows, by, dev=SHARE, calibration=SHARE, holdout=SHARE, seed=SEED)
    return rows


def prepare(system: str, rows: pd.DataFrame, folder: Path) -> Answer:
    """Train a system and save it in the folder. Returns a function that answers rows with the four levels."""
    labelled = rows[rows["split"] == "train"]
    if system == BASELINE:
        index = LexicalRetriever.build(labelled["id"], labelled["description"])
        index.save(folder)

        def answer(asked: pd.DataFrame) -> pd.DataFrame:
            return vote(neighbours_table(index, labelled, asked, NEIGHBOURS), labelled, asked, CONTEST).query(
                "rank == 0"
            )

        return answer
    model = fits.train(rows, LabelTree.from_rows(rows[rows["subset"] == "train"], CONTEST), fits.Options(), SEED)
    if system == "refitted":
        model = fits.refit(model, rows, SEED)
    model.save(folder)
    return model.predict


def measure(system: str, data: Path, by: By, most: int | None) -> dict[str, float]:
    rows = read(data, by)
    asked = rows[rows["split"] == "test"]
    asked = asked if most is None else asked.sample(min(most, len(asked)), random_state=SEED)
    with TemporaryDirectory() as folder:
        began = time.process_time()
        answer = prepare(system, rows, Path(folder))
        trained = time.process_time() - began
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    answer(asked.head(10))  # numba compiles on the first call
    began = time.process_time()
    answers = answer(asked)
    seconds = time.process_time() - began
    return {
        "item accuracy": float(right_labels(answers, asked, CONTEST).all(axis=1).mean()),
        "rows/s": len(asked) / seconds,
        "training CPU s": trained,
        "files MiB": size / 2**20,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.* and test.* (.features, .labels)")
    parser.add_argument("--split-by", choices=("product", "row"), default="product", help="default %(default)s")
    parser.add_argument("--rows", type=int, help="test rows to answer (default: all)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS[1:], default=SYSTEMS[1:])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()

    results = {}
    for system in (BASELINE, *args.systems):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            results[system] = alone.submit(measure, system, args.data, args.split_by, args.rows).result()
    table = pd.DataFrame(results)
    for system in args.systems:
        table[f"{system} / {BASELINE}"] = table[system] / table[BASELINE]
    print(table.to_string(float_format=lambda value: f"{value:,.3f}" if value < 10 else f"{value:,.0f}"))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
