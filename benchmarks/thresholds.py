"""How often a confidence threshold misses its target accuracy on rows that did not choose it.

    python benchmarks/thresholds.py [--splits N] [--rows N ...] [--probability P] [--arms ARM ...]

Run it in a project after `dvc repro`. It takes the answers that are there to the rows of the calibration and the test
subset, and draws both subsets again, product by product, N times. Each time the confidences are fitted on the new
calibration rows, and thresholds are chosen on them: `plug-in`, the lowest confidence at which these rows reach the
target, and `promise`, the one of the pipeline. `half` fits the confidences on one half of the rows and promises on the
other, which is stricter in theory. `disagreement` is the cascade with `asks: disagreement`, and LEVEL is the review's
threshold for the labels down to that level. The free arms vote anew in
each draw.

Prints for each target: the share of the draws in which the answered test rows miss it by anything, the share in which
no threshold is promised, the mean share of rows answered, and how many of these are right. Last, the same with the
subsets as the pipeline drew them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from tillmap.arms.rules import AnswerRules
from tillmap.cascade.judge import agreement, route_scores
from tillmap.config.blocks import VOTE
from tillmap.core.files import read_jsonl, read_table
from tillmap.core.taxonomy import KEY, LabelTree, right_labels
from tillmap.evaluation.calibration_curves import coverage_curve
from tillmap.evaluation.promises import promise
from tillmap.evaluation.report import TARGETS
from tillmap.evaluation.review import level_confidences, level_thresholds
from tillmap.postprocessing.calibration import Confidence, calibrate, candidate_scores, make_signals
from tillmap.postprocessing.voting import hold_election

DATA = Path("data")
REVIEWED = 0.9


def plug_in(confidence: np.ndarray, right: np.ndarray, target: float) -> float:
    """The lowest confidence at which these rows reach the target."""
    curve = coverage_curve(confidence, right, points=None)
    return float(curve.loc[curve["accuracy"] >= target, "threshold"].min())


class Draws:
    """The rows that are drawn again, and the answers of the free arms to them."""

    def __init__(self, probability: float) -> None:
        self.probability = probability
        self.tree = LabelTree.from_table(read_table(DATA / "split/tree.parquet"))
        rows = read_table(DATA / "split/rows.parquet")
        known = rows["subset"].isin(["calibration", "test"]) & self.tree.levels.labelled(rows)
        self.rows = rows[known].reset_index(drop=True)
        files = {file.stem: list(read_jsonl(file)) for file in sorted((DATA / "completions").glob("*.jsonl"))}
        # An arm that is off has one record, an arm that was asked about a sample too few.
        self.completions = {arm: records for arm, records in files.items() if len(records) >= len(self.rows)}
        self.free = {arm: candidate_scores(records) for arm, records in self.completions.items()}
        self.codes, self.products = pd.factorize(self.rows["product"])
        self.keys = list(self.rows[KEY].itertuples(index=False, name=None))
        self.agree = agreement(self.free, self.keys)

    def subsets(self, size: int, seed: int) -> pd.DataFrame:
        """The rows with whole products drawn for the calibration subset until it has `size` rows."""
        place = np.random.default_rng(seed).permutation(len(self.products))[self.codes]
        last = np.sort(place)[size - 1]
        return self.rows.assign(subset=np.where(place <= last, "calibration", "test"))


class Arm:
    """One arm's answers to the rows, not calibrated, and the signals of its confidence."""

    def __init__(self, draws: Draws, name: str) -> None:
        self.draws, self.name = draws, name
        by_key = {(answer["split"], answer["id"]): answer for answer in draws.completions[name]}
        said = [by_key[key] for key in draws.keys]
        predictions = draws.rows[KEY].merge(read_table(DATA / f"predictions/{name}.parquet"), on=KEY)
        own = [answer["candidates"][0][1] for answer in said]
        self.answers = predictions.assign(confidence=own)
        others = {arm: scores for arm, scores in draws.free.items() if arm != name}
        self.signals = make_signals(said, self.answers, draws.rows, others, draws.tree)
        self.keep_own = AnswerRules.load(DATA / "answer_rules" / name).calibrated
        self.latest: tuple[pd.DataFrame | None, pd.DataFrame] = (None, self.answers)

    def calibrated(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The predictions, with confidences that are fitted on the calibration subset of `rows`."""
        if self.latest[0] is not rows:  # the vote asks for the same
            levels = self.draws.tree.levels
            found, _ = calibrate(self.answers, self.signals, rows, levels, keep_own=self.keep_own)
            self.latest = rows, found
        return self.latest[1]

    def half(self, fitted: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Confidences that are fitted on one half of the calibration rows, and which rows the other half is."""
        half = fitted & (np.random.default_rng(0).permutation(len(fitted)) % 2 > 0)
        return Confidence.fit(self.signals[half], right[half]).of(self.signals), fitted & ~half


class Vote(Arm):
    """The vote of the free arms, held again for each draw: it weighs their confidences."""

    def __init__(self, draws: Draws, voters: list[Arm]) -> None:
        self.draws, self.name, self.voters = draws, VOTE, voters

    def calibrated(self, rows: pd.DataFrame) -> pd.DataFrame:
        ballots = {voter.name: voter.calibrated(rows) for voter in self.voters}
        free = {arm: self.draws.free[arm] for arm in ballots}
        return hold_election(ballots, free, rows, self.draws.tree).predictions

    def half(self, fitted: np.ndarray, right: np.ndarray) -> None:
        return None


Answered = tuple[str, float, np.ndarray, np.ndarray]


def thresholds(arm: Arm, rows: pd.DataFrame, *, thorough: bool) -> Iterator[Answered]:
    """Each way and target with what is answered of the test rows, and which of these rows are right."""
    levels, odds = arm.draws.tree.levels, arm.draws.probability
    calibrated = arm.calibrated(rows)
    right_at = np.asarray(right_labels(calibrated, rows, levels), dtype=bool)
    fitted, right = rows["subset"].to_numpy() == "calibration", right_at.all(axis=1)
    sure, product, new = calibrated["confidence"].to_numpy(), rows["product"], int((~fitted).sum())
    tested = {"promise": (sure, sure, fitted), "disagreement": (sure, route_scores(sure, arm.draws.agree), fitted)}
    if halved := arm.half(fitted, right):
        other, where = halved
        tested["half"] = other, other, where
    for target in TARGETS:
        ways = {"plug-in": (sure, plug_in(sure[fitted], right[fitted], target))}
        for name, (score, order, where) in tested.items():
            found = promise(
                score[where], right[where], target, odds, new_rows=new, order=order[where], product=product[where]
            )
            ways[name] = order, found.value
        for name, (score, threshold) in ways.items():
            yield name, target, score[~fitted] >= threshold, right[~fitted]
    if thorough:
        every = level_confidences(calibrated, arm.draws.free, rows, levels)
        chosen = level_thresholds(calibrated, every, rows, levels, target=REVIEWED, probability=odds)
        right_to = np.logical_and.accumulate(right_at, axis=1)
        for depth, (level, found) in enumerate(zip(levels, chosen, strict=True)):
            yield level, REVIEWED, every.to_numpy()[~fitted, depth] >= found.value, right_to[~fitted, depth]


def tabulate(arms: list[Arm], draws: list[pd.DataFrame], *, thorough: bool) -> pd.DataFrame:
    """One line for each arm, target and way: the means over the draws."""
    found = [
        (arm.name, target, way, bool(kept.any()) and right[kept].mean() < target, not kept.any(), kept.mean(),
         right[kept].mean() if kept.any() else np.nan)
        for rows in draws
        for arm in arms
        for way, target, kept, right in thresholds(arm, rows, thorough=thorough)
    ]  # fmt: skip
    columns = ["arm", "target", "way", "missed", "none", "answered", "right"]
    return pd.DataFrame(found, columns=columns).groupby(columns[:3], sort=False).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=200, help="draws; default %(default)s")
    parser.add_argument("--rows", type=int, nargs="+", help="calibration rows; by default as many as the project has")
    parser.add_argument("--probability", type=float, default=0.9, help="of `promise`; default %(default)s")
    parser.add_argument("--arms", nargs="+", help="by default all free arms that are on, and their vote")
    parser.add_argument("--levels", action="store_true", help="also the review's thresholds of each level (slow)")
    args = parser.parse_args()
    draws = Draws(args.probability)
    free = {name: Arm(draws, name) for name in draws.completions}
    every = free | {VOTE: Vote(draws, list(free.values()))}
    arms = [every[name] for name in args.arms or every]
    for size in args.rows or [int((draws.rows["subset"] == "calibration").sum())]:
        print(
            f"\n{size:,} of {len(draws.rows):,} rows calibrate, {args.splits} draws, promised with {args.probability:g}"
        )
        drawn = [draws.subsets(size, seed) for seed in range(args.splits)]
        print(tabulate(arms, drawn, thorough=args.levels).to_string(float_format="{:.3f}".format))
    print("\nthe subsets of the pipeline")
    print(tabulate(arms, [draws.rows], thorough=args.levels).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
