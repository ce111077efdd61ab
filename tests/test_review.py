"""Answers held back below a level, and what a person should look at first."""

import numpy as np
import pandas as pd
import pytest

from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.evaluation.metrics import hierarchical_scores, mark, score_held_back
from tillmap.evaluation.review import CONFIDENCE, hold_back, level_confidences, needs_review

LABELS = list(CONTEST)
CONFIDENCES = [CONFIDENCE.format(level) for level in CONTEST]
MILK, CREAM, BAGS = (
    LabelPath("food", "dairy", "milk", "alder"),
    LabelPath("food", "dairy", "cream", "alder"),
    LabelPath("home", "bags", "bin bags", "alder"),
)


def answered(rows, seed):
    """Rows of which the free arm has the brand right with its confidence, and the group nearly always."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.05, 0.95, rows)
    right = rng.random(rows) < confidence
    said = [MILK if ok else (CREAM if rng.random() < 0.9 else BAGS) for ok in right]
    table = pd.DataFrame(said, columns=LABELS).assign(confidence=confidence, split="train", id=range(rows))
    candidate_scores = {
        ("train", row): [(path, 0.6), (CREAM if path == MILK else MILK, 0.3)] for row, path in enumerate(said)
    }
    truth = pd.DataFrame([MILK] * rows, columns=LABELS).assign(split="train", id=range(rows))
    return table, {"linear": candidate_scores}, truth


def test_a_level_is_as_sure_as_it_turns_out_to_be_right():
    table, free, truth = answered(3000, 1)
    truth["subset"] = np.where(truth["id"] < 1500, "calibration", "holdout")
    sure = level_confidences(table, free, truth, CONTEST)
    assert list(sure) == CONFIDENCES
    assert (np.diff(sure.to_numpy(), axis=1) <= 1e-12).all(), "no level is surer than the one above it"
    assert (sure["brand_confidence"] == table["confidence"]).all()
    new = truth["subset"] == "holdout"
    for depth, level in enumerate(CONTEST):
        right = (table[LABELS[: depth + 1]] == truth[LABELS[: depth + 1]]).all(axis=1)
        assert sure.loc[new, f"{level}_confidence"].mean() == pytest.approx(right[new].mean(), abs=0.03)
    held = hold_back(table, sure, CONTEST, [0.9] * 4)
    marks = mark(held[new], truth[new], "linear", CONTEST)
    scores = score_held_back(marks, CONTEST)
    assert scores["answered"]["group"] > scores["answered"]["brand"] > 0
    assert all(scores["accuracy"][level] > 0.87 for level in CONTEST)
    whole = hierarchical_scores(mark(table[new], truth[new], "linear", CONTEST), CONTEST)
    assert scores["hierarchical"]["precision"] > whole["precision"]
    assert scores["hierarchical"]["recall"] < whole["recall"]


def test_labels_under_the_first_unsure_level_are_null():
    table = pd.DataFrame([MILK, CREAM, BAGS], columns=LABELS).assign(split="test", id=[2, 0, 1], confidence=0.5)
    sure = pd.DataFrame([[0.9, 0.8, 0.7, 0.2], [0.9, 0.9, 0.9, 0.9], [0.6] * 4], columns=CONFIDENCES)
    held = hold_back(table, sure, CONTEST, [0.7] * 4)
    assert held["answered"].tolist() == [3, 4, 0]
    assert held.loc[0, LABELS].tolist()[:3] == list(MILK[:3]) and pd.isna(held.loc[0, "brand"])
    assert held.loc[1, LABELS].tolist() == list(CREAM)
    assert held.loc[2, LABELS].isna().all()
    assert held[["split", "id"]].equals(table[["split", "id"]])
    uncalibrated = level_confidences(table, {}, table.assign(subset="test"), CONTEST)
    assert (uncalibrated.to_numpy() == 0.5).all(), "nothing was fitted: all as sure as the item"


def test_the_first_to_review_teaches_most():
    confidence = [0.1, 0.5, 0.6, 0.7, 0.4, 0.99]
    table = pd.DataFrame([MILK] * 6, columns=LABELS).assign(split="test", id=range(6), confidence=confidence)
    held = table[["split", "id", *LABELS]].assign(answered=[0, 3, 3, 3, 3, 4])
    held["brand"] = None
    rows = table[["split", "id"]].assign(
        subset="test", description="d", retailer="r", price=1.0, product=["one", "oat", "oat", "oat", "two", "one"]
    )
    found = needs_review(held, table, rows, CONTEST)
    assert found["id"].tolist() == [1, 0, 4, 2, 3], "three oats first; one of them answers for the others"
    assert found["similar"].tolist() == [3, 1, 1, 3, 3]
    assert found["teaches"].iloc[0] == pytest.approx(0.5 + 0.4 + 0.3)
    assert found["teaches"].is_monotonic_decreasing
    assert found["guess_brand"].notna().all()
    assert needs_review(held.assign(answered=4), table, rows, CONTEST).empty


def test_a_label_that_a_path_does_not_have_is_not_held_back():
    levels = Levels(("division", "group", "class"))
    table = levels.columns([("food", "bread", ""), ("food", "bread", "rye"), ("food", "", "")])
    table = table.assign(split="test", id=range(3), confidence=0.5)
    columns = [CONFIDENCE.format(level) for level in levels]
    sure = pd.DataFrame([[0.9, 0.8, 0.5], [0.9, 0.8, 0.5], [0.6, 0.5, 0.5]], columns=columns)
    held = hold_back(table, sure, levels, [0.7] * len(levels))
    assert held["answered"].tolist() == [2, 2, 0]
    rows = table[["split", "id"]].assign(
        subset="test", description="d", retailer="r", price=1.0, product=["a", "b", "c"]
    )
    found = needs_review(held, table, rows, levels)
    assert sorted(found["id"]) == [1, 2]
    assert found.set_index("id").loc[1, ["group", "guess_class"]].tolist() == ["bread", "rye"]
    assert found["class"].isna().all()


def test_a_level_of_a_ragged_tree_is_as_sure_as_it_turns_out_to_be_right():
    levels, rng = Levels(("division", "group", "class")), np.random.default_rng(5)
    bread, rye, tea = LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye"), LabelPath("food", "tea", "")
    confidence = rng.uniform(0.1, 0.9, 2000)
    right = rng.random(2000) < confidence
    said = [bread if ok else (rye if rng.random() < 0.8 else tea) for ok in right]
    table = levels.columns(said).assign(split="train", id=range(2000), confidence=confidence)
    truth = levels.columns([bread] * 2000).assign(split="train", id=range(2000))
    truth["subset"] = np.where(truth["id"] < 1000, "calibration", "holdout")
    free = {"linear": {("train", row): [(path, 0.6), (bread, 0.3)] for row, path in enumerate(said)}}
    sure = level_confidences(table, free, truth, levels)[1000:]
    group = pd.Series(path[1] == "bread" for path in said)[1000:]
    assert sure["group_confidence"].mean() == pytest.approx(group.mean(), abs=0.04)
    assert (sure["class_confidence"] == confidence[1000:]).all() and (
        sure["group_confidence"] >= confidence[1000:]
    ).all()
