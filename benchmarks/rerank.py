"""The reranker against the linear model that it builds on, on a catalogue in the contest's format, step by step.

    python benchmarks/rerank.py --data FOLDER [--split-by product|row] [--candidates N] [--trees N] [--copies N]
        [--rows N] [--test-rows N] [--fold-up-to N] [--held-out-rows N] [--once] [--only-training]
    python benchmarks/rerank.py --only-answering    # in a project, with its trained model

The linear model has the default recipe (with `--copies`, and noisy copies of its rows) and is trained on all labelled
rows; the reranker's trees are trained on the training subset. Where the reranker gains nothing out of fold, `linear`
answers, and only its figures are printed. Prints the item accuracy on labelled test rows, rows
gained and lost, the share of the rows whose true path is among the first 5, the calibration error of the shares (ECE,
15 bins), the CPU seconds of each step of training, those of each step of answering a thousand rows, the size of the
model and the peak memory. While it runs, it logs what is done, after so many CPU seconds and with what peak memory.

`--rows` takes some of the labelled rows, `--test-rows` some of the test rows. With `--once` the linear model is not
trained again on all labelled rows: that of the training subset answers. With `--only-training` nothing but the
reranker is trained; linear and it are compared on the training rows out of fold. For large data. With
`--only-answering` nothing is trained or scored: it prints the speed and the memory of the project's own model.

A prototype in NumPy answered 270 rows a second with a busy core: heads and neighbours 1.8 ms a row, candidates and
features 0.7, trees 0.9. It had 0.671 of the receipts right, where linear had 0.582, and took 415 CPU seconds to train.
"""

import argparse
import json
import logging
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from linear import SEED, read

from tillmap.config import paths
from tillmap.core.files import read_table
from tillmap.core.prices import cents, log_prices
from tillmap.core.taxonomy import CONTEST, LabelTree
from tillmap.evaluation.bootstrap import mean_interval
from tillmap.linear import fits
from tillmap.linear.model import LinearModel, Recipe
from tillmap.rerank.candidates import Candidates, propose
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.examples import Options
from tillmap.rerank.features import describe
from tillmap.rerank.lines import Lines
from tillmap.rerank.reranker import Reranker
from tillmap.rerank.training import train
from tillmap.splitting.subsets import product_key

BINS = 15


class Progress(logging.Formatter):
    """Log lines with CPU seconds and the peak memory so far."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{time.process_time():6.0f} s {peak_mib() / 1024:5.2f} GiB  {record.getMessage()}"


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.process_time()

    def note(self, step: str) -> None:
        """Count the time since the last step."""
        now = time.process_time()
        if step not in self.spent:
            logging.info("done: %s", step)
        self.spent[step] = self.spent.get(step, 0.0) + now - self._last
        self._last = now


def answer_in_steps(evidence: Evidence, reranker: Reranker, rows: pd.DataFrame) -> dict[str, float]:
    """CPU milliseconds a row of each step of answering; the same calls as in `Evidence` and `Reranker`."""
    clock = Clock()
    for begin in range(0, len(rows), 1024):
        some = rows.iloc[begin : begin + 1024]
        features = evidence.model.featuriser.transform(some)
        clock.note("features of the text")
        scores = evidence.model.heads.score(features)
        clock.note("linear scores")
        lines = Lines.of(some["description"])
        prices = some["price"].to_numpy(np.float32)
        near = evidence.near(lines, cents(prices))
        clock.note("neighbours")
        shared = scores, evidence.scale, evidence.facts, evidence.spellings, lines.arrays(), near
        found = Candidates(*propose(*shared, reranker.candidates, reranker.read_brand))
        clock.note("candidates")
        logs = np.nan_to_num(log_prices(prices)).astype(np.float32)
        described = describe(*shared, cents(prices), logs, found, len(evidence.features))
        clock.note("features of the candidates")
        if reranker.trees is not None:
            reranker.trees.score(described)
        clock.note("trees")
    return {step: 1000 * seconds / len(rows) for step, seconds in clock.spent.items()}


def calibration_error(share: np.ndarray, right: np.ndarray) -> float:
    place = np.minimum((share * BINS).astype(int), BINS - 1)
    return float(sum(abs((right - share)[place == each].sum()) for each in range(BINS)) / len(share))


def interval(right: np.ndarray, test: pd.DataFrame) -> str:
    """The 95% interval of the accuracy, from a bootstrap over products."""
    product = [product_key(text) for text in test["description"]]
    low, high = mean_interval(right, product, resamples=1000, seed=SEED)
    return f"{low:.3f} to {high:.3f}"


def measure(rows: pd.DataFrame, recipe: Recipe, options: Options, *, once: bool) -> dict[str, object]:
    labelled, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    subset = {name: table for name, table in rows.groupby("subset")}
    truth = CONTEST.paths(test)
    clock = Clock()
    model = LinearModel.fit(subset["train"], LabelTree.from_rows(subset["train"], CONTEST), recipe, SEED)
    clock.note("linear, training subset")
    if once:
        labelled, whole = subset["train"], model
    else:
        whole = LinearModel.fit(labelled, LabelTree.from_rows(labelled, CONTEST), recipe, SEED)
        clock.note("linear, all rows")
    reranker = train(model, subset["train"], test, options, SEED)
    clock.note("reranker, with linear once a fold")
    with TemporaryDirectory() as folder:
        reranker.save(Path(folder))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        reranker = Reranker.load(Path(folder))
    clock.note("saving")
    evidence = Evidence.of(whole, labelled)
    clock.note("loading: facts and index")
    whole.predict(test.head(2))  # numba compiles on the first call
    began = time.process_time()
    answers = [each[0] for each in whole.predict(test)["candidates"]]
    seconds = time.process_time() - began
    linear = np.array([answer[0] == path for answer, path in zip(answers, truth, strict=True)])
    found: dict[str, object] = {
        "rows": len(test),
        "linear": linear.mean(),
        "linear, 95%": interval(linear, test),
        "linear, rows/s": len(test) / seconds,
    }
    clock.note("answers of linear")
    found["trials"] = [f"{each['tried']}: {each['right']} of {each['rows']}" for each in reranker.trials]
    if reranker.trees is not None:
        list(reranker.rank(evidence, test.head(2)))
        began = time.process_time()
        ranked = list(reranker.rank(evidence, test))
        seconds = time.process_time() - began
        right = np.array([each[0][0] == path for each, path in zip(ranked, truth, strict=True)])
        share = np.array([each[0][1] for each in ranked])
        surest = np.argsort(-share)[: len(share) // 2]
        found |= {
            "reranked": right.mean(),
            "reranked, 95%": interval(right, test),
            "brands read off the line": reranker.read_brand,
            "gained": int((right & ~linear).sum()),
            "lost": int((linear & ~right).sum()),
            "among the first 5": np.mean(
                [path in [each for each, _ in answer[:5]] for answer, path in zip(ranked, truth, strict=True)]
            ),
            "the surest half": right[surest].mean(),
            "ECE": calibration_error(share, right),
            "rows/s": len(test) / seconds,
        }
    clock.note("answers of rerank")
    answer_in_steps(evidence, reranker, test.head(2))
    return found | {
        "training CPU s": clock.spent,
        "answering CPU ms a row": answer_in_steps(evidence, reranker, test),
        "model MiB": size / 2**20,
        "peak MiB": peak_mib(),
    }


def measure_training(rows: pd.DataFrame, recipe: Recipe, options: Options) -> dict[str, object]:
    """Train the reranker alone, and print how many rows out of fold each option gets right."""
    training, test = rows[rows["subset"] == "train"], rows[rows["split"] == "test"]
    few = training.head(1000)  # of this model only the recipe counts
    model = LinearModel.fit(few, LabelTree.from_rows(few, CONTEST), recipe, SEED)
    began = time.process_time()
    reranker = train(model, training, test, options, SEED)
    seconds = time.process_time() - began
    return {"rows": len(training), "trials": reranker.trials, "training CPU s": seconds, "peak MiB": peak_mib()}


def measure_answering() -> dict[str, object]:
    """The speed of the project's trained model on its test rows, whose labels are not read."""
    rows, model, reranker = read_table(paths.ROWS), fits.load(paths.LINEAR), Reranker.load(paths.MODELS / "rerank")
    evidence = Evidence.of(model, fits.rows_of(paths.LINEAR, fits.fit_for("test"), rows, model.tree))
    test = rows[rows["split"] == "test"]
    model.predict(test.head(2))  # numba compiles on the first call
    list(reranker.rank(evidence, test.head(2)))
    answer_in_steps(evidence, reranker, test.head(2))
    clock = Clock()
    model.predict(test)
    clock.note("linear")
    list(reranker.rank(evidence, test))
    clock.note("rerank")
    return {
        "rows": len(test),
        "rows/s": {arm: round(len(test) / seconds) for arm, seconds in clock.spent.items()},
        "CPU ms a row": answer_in_steps(evidence, reranker, test),
        "peak MiB": peak_mib(),
    }


def some(rows: pd.DataFrame, labelled: int | None, test: int | None) -> pd.DataFrame:
    """So many of the labelled rows and of the test rows, drawn by chance, in their order."""
    parts = []
    for split, size in (("train", labelled), ("test", test)):
        part = rows[rows["split"] == split]
        parts.append(part if size is None else part.sample(min(size, len(part)), random_state=SEED).sort_index())
    return pd.concat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train.* and test.* (.features, .labels)")
    parser.add_argument("--split-by", choices=("product", "row"), default="product", help="default %(default)s")
    parser.add_argument("--candidates", type=int, default=Options.candidates, help="a row; default %(default)s")
    parser.add_argument("--trees", type=int, default=Options.trees, help="default %(default)s")
    parser.add_argument("--copies", type=int, default=0, help="noisy copies of linear's rows; default %(default)s")
    parser.add_argument("--rows", type=int, help="labelled rows (default: all)")
    parser.add_argument("--test-rows", type=int, help="test rows to answer (default: all)")
    parser.add_argument("--fold-up-to", type=int, default=Options.fold_up_to, help="rows; default %(default)s")
    parser.add_argument("--held-out-rows", type=int, default=Options.held_out_rows, help="default %(default)s")
    parser.add_argument("--once", action="store_true", help="answer with the linear model of the training subset")
    parser.add_argument("--only-training", action="store_true", help="answer no test rows")
    parser.add_argument("--only-answering", action="store_true", help="with the trained model of this project")
    args = parser.parse_args()
    if (args.data is None) != args.only_answering:
        parser.error("give --data, or --only-answering in a project")
    handler = logging.StreamHandler()
    handler.setFormatter(Progress())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if args.only_answering:
        show(measure_answering())
        return
    rows = some(read(args.data, args.split_by), args.rows, args.test_rows)
    logging.info("read %d rows", len(rows))
    recipe = Recipe(copies=args.copies, epochs=3 if args.copies else 5)
    options = Options(
        candidates=args.candidates, trees=args.trees, fold_up_to=args.fold_up_to, held_out_rows=args.held_out_rows
    )
    show(
        measure_training(rows, recipe, options)
        if args.only_training
        else measure(rows, recipe, options, once=args.once)
    )


def show(found: dict[str, object]) -> None:
    print(json.dumps(found, indent=2, default=lambda value: round(float(value), 4)))


if __name__ == "__main__":
    main()
