"""How well the audit finds labels that were swapped on purpose, and what correcting them is worth.

    python benchmarks/audit.py [--share S] [--folds N] [--seed N] [--kinds uniform sibling none] [--no-fits]

Run it in a project after `dvc repro`. It swaps the label paths of a share of the labelled rows: `uniform` for any other
path, `sibling` for one that differs in the last two levels only. Then it audits the rows, and prints

* the precision among the first 100 rows and among as many as were swapped, the average precision, and how many rows
  that are the only ones of their path, with the right label, are among the first 100;
* the same for cleanlab's rankings of the same out-of-fold answers, where cleanlab can be imported (it is no dependency;
  `pip install --target FOLDER cleanlab termcolor`, and PYTHONPATH=FOLDER);
* the estimated share of wrong labels with its interval, and how often the proposed path is the right one;
* without --no-fits: the accuracy of `linear` on the labelled test rows if it is trained on the swapped labels, without
  the most suspicious rows, with these rows relabelled as proposed, with them corrected by a person who knows, and with
  the labels as they were; differences to the first with 95% intervals, paired, by product.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from tillmap.audit.evidence import Evidence, gather
from tillmap.audit.suspects import GUESS, estimate_share, find_suspects
from tillmap.core.files import read_table
from tillmap.core.taxonomy import KEY, LabelPath, LabelTree
from tillmap.evaluation.bootstrap import cluster_codes, mean_interval
from tillmap.linear import fits
from tillmap.linear.model import LinearModel

CORRECTED = (100, 200, 400)


def swap(true: Sequence[LabelPath], share: float, kind: str, rng: np.random.Generator) -> list[LabelPath]:
    """The labels with a share of them swapped."""
    kept = {"uniform": 0, "sibling": max(1, len(true[0]) - 2)}
    given = list(true)
    if kind == "none":
        return given
    groups: dict[tuple[str, ...], list[LabelPath]] = {}
    for path in sorted(set(true)):
        groups.setdefault(path[: kept[kind]], []).append(path)
    for row in rng.choice(len(true), round(share * len(true)), replace=False):
        others = [path for path in groups[true[row][: kept[kind]]] if path != true[row]]
        if others:
            given[row] = others[rng.integers(len(others))]
    return given


def rankings(given: Sequence[LabelPath], evidence: Evidence) -> Iterator[tuple[str, np.ndarray]]:
    """cleanlab's scores of the same evidence, higher for worse labels."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return
    names = sorted({*given, *(path for ranked in evidence.paths for path, _ in ranked)})
    place = {path: number for number, path in enumerate(names)}
    shares = np.full((len(given), len(names)), 1e-6)
    for row, ranked in enumerate(evidence.paths):
        for path, share in ranked:
            shares[row, place[path]] += share
    shares /= shares.sum(axis=1, keepdims=True)
    labels = np.array([place[path] for path in given])
    for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        yield f"cleanlab {method}", -get_label_quality_scores(labels, shares, method=method)


class Project:
    """The labelled rows and the labelled test rows of the project in this folder."""

    def __init__(self, seed: int) -> None:
        self.tree = LabelTree.from_table(read_table(Path("data/split/tree.parquet")))
        self.levels, self.seed = self.tree.levels, seed
        rows = read_table(Path("data/split/rows.parquet"))
        rows = rows[self.levels.labelled(rows)]
        self.rows, self.test = (rows[rows["split"] == split].reset_index(drop=True) for split in ("train", "test"))
        self.true = self.levels.paths(self.rows)
        self.recipe = fits.load(Path("models/linear"), fits.fit_for("dev")).recipe

    def labelled(self, labels: Sequence[LabelPath]) -> pd.DataFrame:
        """The labelled rows with other labels."""
        return pd.concat([self.rows.drop(columns=list(self.levels)), self.levels.columns(labels)], axis=1)

    def right(self, rows: pd.DataFrame) -> np.ndarray:
        """Which test rows a linear model is right about that is trained on these rows."""
        model = LinearModel.fit(rows, LabelTree.from_rows(rows, self.levels), self.recipe, self.seed)
        answers = [candidates[0][0] for candidates in model.predict(self.test, 1)["candidates"]]
        return np.array([one == other for one, other in zip(answers, self.levels.paths(self.test), strict=True)])


def rank(project: Project, given: list[LabelPath], folds: int) -> dict[int, LabelPath]:
    """Audit the rows with these labels, and print how well. Gives the suspicious rows and the paths proposed."""
    rows, true, levels = project.labelled(given), project.true, project.levels
    swapped = np.array([one != other for one, other in zip(given, true, strict=True)])
    times = Counter(given)
    only = np.array([times[path] == 1 for path in given])
    evidence = gather(rows, project.tree, project.recipe, folds, project.seed)
    share = estimate_share(rows, evidence, levels, seed=project.seed)
    suspects = find_suspects(rows, evidence, levels, share.share)
    place = {key: number for number, key in enumerate(rows[KEY].itertuples(index=False, name=None))}
    found = [place[key] for key in suspects[KEY].itertuples(index=False, name=None)]
    named = suspects[[GUESS.format(level) for level in levels]].set_axis(list(levels), axis=1)
    guesses = dict(zip(found, levels.paths(named), strict=True))
    print(f"{swapped.sum():,} of {len(rows):,} labels swapped; {only.sum():,} rows are the only ones of their path")
    print(f"estimated share {share.share:.3f} ({share.low:.3f} to {share.high:.3f}) on {share.rows:,} rows; "
          f"{len(found):,} rows listed, expected to be wrong {(1 - suspects['confidence']).sum():.0f}")  # fmt: skip
    score = np.zeros(len(rows))
    score[found] = np.arange(len(found), 0, -1)
    for name, each in [("audit", score), *rankings(given, evidence)] if swapped.any() else ():
        order = np.argsort(-each, kind="stable")
        print(f"{name}: first 100 {swapped[order[:100]].mean():.3f}, first {swapped.sum()} "
              f"{swapped[order[: swapped.sum()]].mean():.3f}, average precision "
              f"{average_precision_score(swapped, each):.3f}, rightly only rows among the first 100: "
              f"{(only & ~swapped)[order[:100]].sum()}")  # fmt: skip
    right = [guesses[row] == true[row] for row in found[:100] if swapped[row]]
    print(
        f"of the swapped rows among the first 100, {np.mean(right or [0]):.3f} get the right path proposed", flush=True
    )
    return guesses


def correct(project: Project, given: list[LabelPath], guesses: dict[int, LabelPath]) -> None:
    """Print what leaving out, relabelling and correcting the first rows does to the accuracy."""
    before = project.right(project.labelled(given))
    print(f"linear, trained on these labels: {before.mean():.4f} of {len(project.test):,} test rows")
    clusters = cluster_codes(project.test["product"])
    order = list(guesses)
    tried = {f"without the first {count}": project.labelled(given).drop(index=order[:count]) for count in CORRECTED}
    first = set(order[:200])
    for name, by in (("relabelled as proposed", guesses), ("corrected by a person who knows", project.true)):
        tried[f"first 200 {name}"] = project.labelled(
            [by[row] if row in first else path for row, path in enumerate(given)]
        )
    tried["labels as they were"] = project.rows
    for name, rows in tried.items():
        after = project.right(rows)
        change = after.astype(int) - before
        low, high = mean_interval(change, clusters, bounds=(-1, 1), seed=project.seed)
        print(f"  {name}: {after.mean():.4f}, {change.mean():+.4f} ({low:+.4f} to {high:+.4f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels, to swap; default %(default)s")
    parser.add_argument("--folds", type=int, default=4, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default %(default)s")
    parser.add_argument("--kinds", nargs="+", default=["uniform", "sibling", "none"])
    parser.add_argument("--no-fits", action="store_true", help="do not measure the accuracy")
    args = parser.parse_args()
    project = Project(args.seed)
    for kind in args.kinds:
        print(f"\n{kind}")
        given = swap(project.true, args.share, kind, np.random.default_rng(args.seed))
        guesses = rank(project, given, args.folds)
        if not args.no_fits:
            correct(project, given, guesses)


if __name__ == "__main__":
    main()
