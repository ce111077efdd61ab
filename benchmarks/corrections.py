"""What corrections gain: accuracy on the test rows after the first N decisions of the review page, and of random ones.

    PYTHONPATH=. python benchmarks/corrections.py --out FOLDER [--arm linear|rerank] [--seeds N] [--start N]
    PYTHONPATH=. python benchmarks/corrections.py --out FOLDER --draw

Run it in a project with the demo (`dvc repro catalogue`). For each seed, all training rows of the demo but `--start`
lose their labels. The arm is trained on the rest and labels them, as `tillmap predict` does. Then N of these lines are
decided rightly, once in the order of `tillmap review` and once in random order, written to `data.corrections`, and the
stages run again. Equal lines are one decision. No test row is ever decided.

Writes FOLDER/ARM.csv with what each seed measured; with it, a second run measures only what is missing. With `--draw`,
draws all arms that are there to FOLDER/corrections.svg. Intervals (95%) are of the mean over the seeds, by bootstrap
over the products of the test rows.
"""

import argparse
import os
import random
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from stages import infer, ingest, postprocess, stratify, train
from tillmap.arms import schema
from tillmap.catalogue.formats import RowFile
from tillmap.config import paths
from tillmap.config.params import Params, read_params
from tillmap.config.profiles import write_values
from tillmap.core.files import read_jsonl, read_table, write_jsonl, write_table
from tillmap.core.taxonomy import CONTEST, LabelPath
from tillmap.core.writing import new_folder
from tillmap.evaluation.bootstrap import cluster_codes, mean_interval
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import neighbours_table
from tillmap.review.sources import from_file
from tillmap.serving.batch import label_feed
from tillmap.serving.feed import open_feed
from tillmap.serving.labeller import open_arm
from tillmap.splitting.subsets import product_key

STEPS = (100, 250, 500, 1000)  # decisions
ORDERS = ("proposed", "random")
ID = "indoml_id"


def hold_back(demo: Path, start: int, seed: int) -> None:
    """Write a source with `start` labelled rows, and the other lines as a feed. Run it in an empty project."""
    folder = paths.DEMO
    folder.mkdir(parents=True)
    for name in ("test.features", "test.labels"):
        shutil.copy(demo / name, folder)
    rows, labels = (list(read_jsonl(demo / f"train.{part}")) for part in ("features", "labels"))
    kept = set(random.Random(seed).sample(range(len(rows)), start))
    for name, records in (("features", rows), ("labels", labels)):
        write_jsonl((record for place, record in enumerate(records) if place in kept), folder / f"train.{name}")
    write_jsonl((row for place, row in enumerate(rows) if place not in kept), Path("feed.jsonl"))


def settings(root: Path, arm: str) -> Params:
    """The project's params, with the arm and what it builds on."""
    shutil.copy(root / paths.PARAMS, ".")
    off = dict.fromkeys(("nearest", "linear", "rerank", "rag", "llama", "openai", "cascade", "vote"), False)
    write_values({"run": off | {"linear": True, arm: True}}, paths.PARAMS, schema())
    return read_params(paths.PARAMS, schema())


def train_and_score(params: Params, arm: str, truth: dict[int, LabelPath]) -> np.ndarray:
    """Which test rows are right (rows,) once the arm has learned the corrections."""
    ingest.main(params)
    stratify.main(params)
    for name in dict.fromkeys(("linear", arm)):
        train.main(params, name)
        infer.main(params, name)
    best = {
        record["id"]: LabelPath(*record["candidates"][0][0])
        for record in read_jsonl(paths.COMPLETIONS / f"{arm}.jsonl")
        if record["split"] == "test"
    }
    return np.array([best[row_id] == path for row_id, path in truth.items()])


def queue_of(params: Params, arm: str) -> list[list[dict[str, Any]]]:
    """The decisions of the feed in the order of the page: the rows of each."""
    rows = read_table(paths.ROWS)
    training, asked = rows[rows["subset"] == "train"], rows[rows["subset"] != "train"]
    lexical = LexicalRetriever.build(training["id"].to_numpy(), training["description"].tolist())
    with new_folder(paths.INDEX) as folder:
        lexical.save(folder)
    write_table(neighbours_table(lexical, training, asked, params.retrieval.k), paths.NEIGHBOURS / "lexical.parquet")
    postprocess.main(params)
    feed = open_feed(Path("feed.jsonl"), params.data)
    label_feed(open_arm(arm, params), feed, Path("labelled.parquet"), "parquet")
    queue = from_file(RowFile(Path("labelled.parquet")), feed, CONTEST)
    return [
        [{"id": row.id, "text": row.text, "retailer": row.retailer, "price": row.price or None} for row in item]
        for item in queue.items
    ]


def measure(root: Path, arm: str, start: int, seed: int) -> pd.DataFrame:
    """One seed: order, decisions, id and product of each test row, and whether it is right."""
    demo = root / paths.DEMO
    labels = {record[ID]: record for record in read_jsonl(demo / "train.labels")}
    truth = {
        record[ID]: CONTEST.path(record[level] for level in CONTEST) for record in read_jsonl(demo / "test.labels")
    }
    texts = {record[ID]: record["description"] for record in read_jsonl(demo / "test.features")}
    parts = []
    with TemporaryDirectory() as folder, chdir(folder):
        os.environ["TILLMAP_STATE"] = f"{folder}/state"
        hold_back(demo, start, seed)
        params = settings(root, arm)
        corrections = Path(params.data.corrections)
        before = train_and_score(params, arm, truth)
        proposed = queue_of(params, arm)
        drawn = random.Random(seed).sample(proposed, len(proposed))
        for order, decisions in zip(ORDERS, (proposed, drawn), strict=True):
            right = {0: before}
            for count in STEPS:
                lines = [row | labels[int(row["id"])] for each in decisions[:count] for row in each]
                write_jsonl(({key: line[key] for key in line if key != ID} for line in lines), corrections)
                right[count] = train_and_score(params, arm, truth)
                print(f"seed {seed}, {order}, {count}: {right[count].mean():.4f}", file=sys.stderr, flush=True)
            corrections.unlink()
            for count, flags in right.items():
                table = pd.DataFrame({"id": list(truth), "right": flags})
                parts.append(table.assign(seed=seed, order=order, decisions=count))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(product=table["id"].map(lambda row_id: product_key(texts[row_id])))


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """The mean accuracy over the seeds by order and decisions, and the gain over random order, with intervals."""
    seeds = table["seed"].nunique()
    found = []
    for count, some in table.groupby("decisions"):
        wide = some.pivot_table(index=["id", "product"], columns="order", values="right", aggfunc="sum").astype(int)
        clusters = cluster_codes(wide.index.to_frame()["product"].reset_index(drop=True))
        better = wide[ORDERS[0]] - wide[ORDERS[1]]
        gain = mean_interval(better, clusters, bounds=(-seeds, seeds))
        for order in ORDERS:
            low, high = mean_interval(wide[order], clusters, bounds=(0, seeds))
            record = {"order": order, "decisions": count, "seeds": seeds, "accuracy": wide[order].mean() / seeds}
            record |= {"low": low / seeds, "high": high / seeds}
            if order == ORDERS[0]:
                record |= {"gain": better.mean() / seeds, "gain_low": gain[0] / seeds, "gain_high": gain[1] / seeds}
            found.append(record)
    return pd.DataFrame(found).sort_values(["order", "decisions"], ignore_index=True)


def draw(tables: dict[str, pd.DataFrame], out: Path) -> None:
    """A curve for each order, with a panel for each arm."""
    mpl.rcParams["svg.hashsalt"] = "tillmap"
    figure = Figure(figsize=(4.6 * len(tables), 3.6), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (arm, table) in zip(panels, tables.items(), strict=True):
        for order, colour, marker in zip(ORDERS, ("#0072B2", "#D55E00"), ("o", "s"), strict=True):
            own = table[table["order"] == order]
            axes.plot(own["decisions"], own["accuracy"], color=colour, marker=marker, label=f"{order} order")
            axes.fill_between(own["decisions"], own["low"], own["high"], color=colour, alpha=0.15, linewidth=0)
        axes.set_title(f"{arm}, {own['seeds'].iloc[0]} draws", fontsize=10)
        axes.set_xlabel("decisions")
        axes.yaxis.set_major_locator(MultipleLocator(0.05))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test rows with all labels right")
    panels[0].legend(frameon=False, loc="lower right")
    figure.savefig(out, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--arm", choices=("linear", "rerank"), default="linear", help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--start", type=int, default=1000, help="labelled rows at first; default %(default)s")
    parser.add_argument("--draw", action="store_true", help="only draw what was measured")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.draw:
        tables = {name: args.out / f"{name}.csv" for name in ("linear", "rerank")}
        found = {name: summarise(pd.read_csv(file)) for name, file in tables.items() if file.is_file()}
        draw(found, args.out / "corrections.svg")
        for name, table in found.items():
            print(f"{name}\n{table.to_string(index=False, float_format='{:.4f}'.format, na_rep='')}")
        return
    file = args.out / f"{args.arm}.csv"
    done = [pd.read_csv(file)] if file.is_file() else []
    for seed in range(args.seeds):
        if not done or seed not in set(done[0]["seed"]):
            done = [pd.concat([*done, measure(Path.cwd(), args.arm, args.start, seed)], ignore_index=True)]
            done[0].to_csv(file, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
