"""Which rows are scored, also after a pilot, and what a report says of them."""

import numpy as np
import pandas as pd
import pytest

from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.evaluation.comparison import comparison_table
from tillmap.evaluation.recall import by_retriever, recall_of
from tillmap.evaluation.report import choose_truth, draw, make_report
from tillmap.evaluation.review import review_arms
from tillmap.retrieval.paths import paths_of_neighbours

MILK, CREAM = LabelPath("food", "dairy", "milk", "alder"), LabelPath("food", "dairy", "cream", "alder")
SIZES = {"train": 20, "calibration": 40, "holdout": 30, "test": 50}
PILOT = pd.DataFrame({"split": "test", "id": [7, 3, 21, 40]})


def make_rows(labelled=True):
    subsets = [subset for subset, size in SIZES.items() for _ in range(size)]
    rows = pd.DataFrame([MILK] * len(subsets), columns=list(CONTEST))
    rows = rows.assign(subset=subsets, description="d", product=range(len(rows)), retailer="shop", price=1.0)
    rows.insert(0, "split", np.where(rows["subset"] == "test", "test", "train"))
    rows.insert(1, "id", rows.groupby("split").cumcount())
    if not labelled:
        rows.loc[rows["subset"] == "test", list(CONTEST)] = None
    return rows


def says(rows, right, arm):
    table = pd.DataFrame([MILK if ok else CREAM for ok in right], columns=list(CONTEST))
    table.insert(0, "split", rows["split"].array)
    table.insert(1, "id", rows["id"].array)
    return table.assign(confidence=0.5, repair="none", in_tree=True, source=arm, status="ok")


def of(table, column="id"):
    return table[column].tolist()


def test_labelled_test_rows_are_scored_and_in_a_pilot_only_its_rows():
    rows = make_rows()
    assert of(choose_truth(rows, {}, None, CONTEST)) == list(range(50))
    truth = choose_truth(rows, {}, PILOT, CONTEST)
    assert sorted(of(truth)) == sorted(of(PILOT)) and set(truth["subset"]) == {"test"}
    some = rows.copy()
    some.loc[(rows["split"] == "test") & (rows["id"] == 21), list(CONTEST)] = None
    assert sorted(of(choose_truth(some, {}, PILOT, CONTEST))) == [3, 7, 40], "a row without labels cannot be scored"


def test_without_test_labels_the_holdout_rows_that_all_arms_answered_are_scored():
    rows = make_rows(labelled=False)
    holdout = rows[rows["subset"] == "holdout"]
    tables = {"nearest": says(rows[20:], [True] * 120, "nearest"), "rag": says(holdout[::3], [True] * 10, "rag")}
    for pilot in (None, PILOT):
        truth = choose_truth(rows, tables, pilot, CONTEST)
        assert of(truth) == of(holdout[::3]) and set(truth["subset"]) == {"holdout"}


def test_every_arm_of_a_pilot_is_scored_on_the_same_rows_paired_with_intervals():
    rows = make_rows()
    rng = np.random.default_rng(1)
    pilot = rows.loc[rows["subset"] == "test", ["split", "id"]].sample(30, random_state=1)
    asked = rows[rows["subset"] != "train"]
    some = asked[(asked["subset"] == "calibration") | asked["id"].isin(pilot["id"]) & (asked["split"] == "test")]
    tables = {"nearest": says(asked, rng.random(len(asked)) < 0.4, "nearest"), "rag": says(some, [True] * 70, "rag")}
    usage = {"nearest": {"rows": 120, "rows_per_second": 1000.0},
             "rag": {"rows": 70, "rows_per_second": 2.0, "prompt_tokens": 700, "completion_tokens": 140}}  # fmt: skip
    truth = choose_truth(rows, tables, pilot, CONTEST)
    report = make_report(
        tables, rows, truth, CONTEST, held_back={}, confidences={}, usage=usage, probability=0.9, resamples=200, seed=1
    )
    assert {arm: score["rows"] for arm, score in report.scores.items()} == {"nearest": 30, "rag": 30}
    mine = tables["nearest"].merge(pilot, on=["split", "id"])
    assert report.scores["nearest"]["item_accuracy"] == pytest.approx((mine["module"] == "milk").mean())
    assert (
        report.scores["nearest"]["low"] < report.scores["nearest"]["item_accuracy"] < report.scores["nearest"]["high"]
    )
    [against] = report.versus.itertuples()
    assert against.arm == "rag"
    assert against.difference == pytest.approx(1 - report.scores["nearest"]["item_accuracy"])
    assert 0 < against.low < against.high and report.scores["rag"]["verdict"] == "better"
    assert report.scores["rag"]["prompt_tokens"] == 10 and report.scores["rag"]["completion_tokens"] == 2
    assert set(report.compact()["rag"]) == {"item_accuracy", "low", "high", *CONTEST}
    assert set(report.as_json()["versus"]) == {"rag"}


@pytest.mark.parametrize(
    ("levels", "one", "other"),
    [
        (Levels(("Food/non-food",)), ("food",), ("home",)),
        (Levels(("division", "group", "class")), ("food", "bread", ""), ("food", "bread", "rye")),
        (Levels(("division", "group", "maker"), "maker"), ("food", "", "alder"), ("food", "bread", "")),
        (Levels(tuple("abcdefgh")), ("x",) * 8, ("x", *[""] * 7)),
    ],
    ids=["one level", "ragged", "brand of a short chain", "eight levels"],
)
def test_a_report_of_any_taxonomy(levels, one, other, tmp_path):
    rng = np.random.default_rng(3)
    frame = make_rows().drop(columns=list(CONTEST))
    paths = [one if heads else other for heads in rng.random(len(frame)) < 0.5]
    rows = pd.concat([frame.assign(price=np.where(frame["id"] % 9, 1.0, -1.0)), levels.columns(paths)], axis=1)
    asked = rows[rows["subset"] != "train"].reset_index(drop=True)
    said = [
        path if heads else other for path, heads in zip(levels.paths(asked), rng.random(len(asked)) < 0.7, strict=True)
    ]
    tables = {
        arm: pd.concat([asked[["split", "id"]], levels.columns(said)], axis=1).assign(
            confidence=rng.uniform(0.2, 0.9, len(asked)), repair="none", in_tree=True, source=arm, status="ok"
        )
        for arm in ("nearest", "linear")
    }
    truth = choose_truth(rows, tables, None, levels)
    assert of(truth) == list(range(50))
    (tmp_path / "review").mkdir()
    held = review_arms(tables, {}, rows, levels, target=0.6, probability=0.9, folder=tmp_path / "review")
    usage = {arm: {"rows": 120, "rows_per_second": 1.0} for arm in tables}
    draws = {"resamples": 50, "seed": 1}
    report = make_report(
        tables, rows, truth, levels, held_back=held, confidences={}, usage=usage, probability=0.9, **draws
    )
    right = np.array(said)[asked["subset"] == "test"] == np.array(levels.paths(truth))
    assert report.scores["linear"]["item_accuracy"] == pytest.approx(right.all(axis=1).mean(), abs=1e-6)
    assert set(report.compact()["linear"]) - {"item_accuracy", "low", "high"} <= set(levels)
    assert "linear" in comparison_table(report.scores)
    near = asked[["split", "id"]].assign(rank=0, neighbour=0, score=1.0)
    recall = recall_of(
        {"lexical": paths_of_neighbours(near, rows.query("subset == 'train'"), levels)}, truth, levels, **draws
    )
    assert set(by_retriever(recall)["lexical"]["levels"]) <= set(levels)
    draw(report, recall, {}, levels, tmp_path / "plots")
    written = {file.name for file in (tmp_path / "plots").iterdir()}
    assert {"arms.csv", "confusion_linear.png", "costliest_linear.csv", "by_refund.csv"} <= written
    assert ("by_path_depth.csv" in written) == (len(levels.chain) > 1)
    assert ("by_brand_shown.csv" in written) == (levels.brand is not None)
