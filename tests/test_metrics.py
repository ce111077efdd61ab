"""Scores of an arm, against examples counted by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.evaluation.metrics import (
    f1_scores,
    hierarchical_scores,
    mark,
    path_codes,
    recall_table,
    score_arm,
    score_held_back,
)

TEA = ("drinks", "hot drinks", "tea", "leafy")
JAM = ("larder", "spreads", "jam", "orchard")
HONEY = ("larder", "spreads", "honey", "orchard")


def rows(paths, split="test", ids=None, levels=CONTEST):
    table = pd.DataFrame(paths, columns=list(levels), dtype="str")
    table.insert(0, "id", np.arange(len(paths)) if ids is None else ids)
    table.insert(0, "split", split)
    return table


def test_scores_counted_by_hand():
    truth = rows([TEA, TEA, JAM, HONEY])
    predictions = rows([TEA, ("drinks", "hot drinks", "tea", "orchard"), JAM, JAM])
    score = score_arm(predictions, truth, "linear", CONTEST)
    assert score["rows"] == 4
    assert score["item_accuracy"] == 0.5
    assert score["accuracy"] == {"supergroup": 1.0, "group": 1.0, "module": 0.75, "brand": 0.75}
    assert score["path_accuracy"] == {"supergroup": 1.0, "group": 1.0, "module": 0.75, "brand": 0.5}
    # module: tea F1 1, jam 2/3 (one right, one wrongly added), honey 0
    assert score["f1_macro"]["module"] == pytest.approx(5 / 9, abs=1e-6)
    assert score["f1_weighted"]["module"] == pytest.approx((2 * 1 + 2 / 3 + 0) / 4, abs=1e-6)
    assert score["hierarchical"] == {"precision": 0.8125, "recall": 0.8125, "f1": 0.8125}  # 4 + 3 + 4 + 2 of 16 nodes
    assert 0 <= score["low"] < 0.5 < score["high"] <= 1


def test_a_right_brand_under_a_wrong_module_is_no_node_in_common():
    marks = mark(rows([("larder", "spreads", "honey", "orchard")]), rows([JAM]), "linear", CONTEST)
    assert marks["right_brand"].tolist() == [True]
    assert marks["right"].tolist() == [False]
    assert hierarchical_scores(marks, CONTEST)["f1"] == 0.5


def test_an_answer_held_back_is_wrong_but_costs_no_precision():
    predictions = rows([TEA, ("larder", "spreads", None, None)])
    truth = rows([TEA, JAM])
    marks = mark(predictions, truth, "cascade", CONTEST)
    assert marks["right_module"].tolist() == [True, False]
    assert hierarchical_scores(marks, CONTEST) == {"precision": 1.0, "recall": 0.75, "f1": pytest.approx(6 / 7)}
    assert score_arm(predictions, truth, "cascade", CONTEST)["f1_macro"]["module"] == 0.5


def test_predictions_are_joined_by_key_and_not_by_place():
    truth = rows([TEA, JAM, HONEY], ids=[7, 3, 5]).assign(subset="holdout")
    elsewhere = rows([HONEY, HONEY, TEA], split="train", ids=[7, 3, 5])
    predictions = pd.concat([elsewhere, rows([TEA, JAM, HONEY], ids=[7, 3, 5]).iloc[::-1]])
    marks = mark(predictions.assign(repair="none"), truth, "linear", CONTEST)
    assert marks["id"].tolist() == [7, 3, 5]
    assert marks["right"].all()
    assert marks["repair"].tolist() == ["none"] * 3


def test_the_product_makes_the_clusters():
    paths = [TEA] * 30 + [JAM] * 30
    truth = rows(paths)
    predictions = rows([TEA] * 45 + [JAM] * 15)
    alone = score_arm(predictions, truth, "linear", CONTEST)
    together = score_arm(predictions, truth.assign(product=np.arange(60) // 15), "linear", CONTEST)
    assert together["item_accuracy"] == alone["item_accuracy"] == 0.75
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        (rows([TEA]), rows([TEA, JAM]), "arm rag: no prediction for 1 rows, e.g. split=test id=1"),
        (
            rows([TEA, TEA], ids=[0, 0]),
            rows([TEA]),
            "arm rag: more than one prediction for 1 rows, e.g. split=test id=0",
        ),
        (rows([TEA]), rows([TEA, JAM], ids=[0, 0]), r"repeated \(split, id\) in 1 rows, e.g. split=test id=0"),
        (rows([TEA]), rows([(None,) * 4]), "there is no label in 1 rows, e.g. split=test id=0"),
        (rows([TEA]), rows([TEA])[:0], "no labelled rows"),
        (rows([TEA]).drop(columns="brand"), rows([TEA]), "predictions of arm rag: no column brand"),
    ],
)
def test_what_cannot_be_joined_is_refused(predictions, truth, message):
    with pytest.raises(InputError, match=message):
        score_arm(predictions, truth, "rag", CONTEST)


label_paths = st.tuples(*[st.sampled_from(["a", "b", "c"])] * 4)


@settings(deadline=None, max_examples=25)
@given(pairs=st.lists(st.tuples(label_paths, label_paths), min_size=1, max_size=30))
def test_scores_keep_their_order_and_bounds(pairs):
    true, predicted = zip(*pairs, strict=True)
    score = score_arm(rows(predicted), rows(true), "linear", CONTEST, resamples=100)
    assert 0 <= score["low"] <= score["item_accuracy"] <= score["high"] <= 1
    down = list(score["path_accuracy"].values())
    assert down == sorted(down, reverse=True)
    assert score["path_accuracy"]["brand"] == score["item_accuracy"]
    for level in CONTEST:
        assert score["item_accuracy"] <= score["path_accuracy"][level] <= score["accuracy"][level] <= 1
        assert 0 <= score["f1_macro"][level] <= 1
    assert score["item_accuracy"] <= score["hierarchical"]["f1"] + 1e-6


@settings(deadline=None, max_examples=25)
@given(pairs=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=1, max_size=30))
def test_f1_is_scikit_learns(pairs):
    true, predicted = (pd.Series(labels) for labels in zip(*pairs, strict=True))
    expected = [f1_score(true, predicted, average=kind, zero_division=0) for kind in ("macro", "weighted")]
    assert f1_scores(true, predicted) == pytest.approx(expected)


def found_paths(query, paths, split="test"):
    return rows(paths, split).assign(id=query, rank=range(len(paths)))


def test_recall_counts_the_first_paths():
    truth = rows([TEA, JAM, HONEY, (*HONEY[:3], "unseen")])
    found = pd.concat(
        [
            found_paths(0, [TEA, JAM]),
            found_paths(1, [TEA, HONEY, JAM]),
            found_paths(3, [HONEY, TEA]),
            found_paths(2, [HONEY], split="train"),  # the same id of the other split
        ]
    )
    table = recall_table(found, truth, CONTEST, ks=(1, 2, 5, 50))  # the first 5 cover all, so 50 say nothing more
    whole = table[table["level"] == "path"]
    assert whole["k"].tolist() == [1, 2, 5]
    assert whole["found"].tolist() == [1, 1, 2]
    assert whole["recall"].tolist() == [0.25, 0.25, 0.5]
    assert (table["low"] <= table["recall"]).all()
    modules = table[table["level"] == "module"]
    assert modules["found"].tolist() == [2, 2, 3]
    assert table[table["level"] == "brand"]["found"].tolist() == [1, 2, 2]  # orchard, in another path


def test_recall_of_a_level_is_of_the_rows_that_reach_it():
    truth = ragged([FOOD, BREAD, RYE])
    table = recall_table(truth.assign(rank=0), truth, RAGGED, ks=(1,)).set_index("level")
    assert table["rows"].to_dict() == {"path": 3, "division": 3, "group": 2, "class": 1}
    assert (table["recall"] == 1).all()


def test_path_codes_tell_whole_paths_apart():
    first, second = path_codes(CONTEST, rows([TEA, JAM]), rows([JAM, (*JAM[:3], "leafy"), TEA]))
    assert first.tolist() == [second[2], second[0]]
    assert len(set(second)) == 3


def test_what_repair_gained_is_told_apart_by_kind():
    truth = rows([TEA, TEA, JAM, JAM])
    predictions = rows([TEA, JAM, JAM, JAM]).assign(repair=["none", "snapped", "snapped", "vote"])
    assert score_arm(predictions, truth, "rag", CONTEST)["repair"] == {
        "without": 0.25,
        "gained": 0.5,
        "none": {"rows": 1, "right": 1},
        "snapped": {"rows": 2, "right": 1},
        "vote": {"rows": 1, "right": 1},
    }
    assert "repair" not in score_arm(predictions.assign(repair="none"), truth, "linear", CONTEST)


# Other taxonomies

RAGGED = Levels(("division", "group", "class"))
BREAD, RYE, FOOD = LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye"), LabelPath("food", "", "")


def ragged(paths, levels=RAGGED, **columns):
    return levels.columns(paths).assign(split="test", id=range(len(paths)), **columns)


def test_a_level_is_scored_on_the_rows_that_reach_it_and_an_item_where_its_path_ends_too():
    truth = ragged([FOOD, BREAD, BREAD, RYE, RYE])
    predictions = ragged([FOOD, BREAD, RYE, BREAD, RYE])
    score = score_arm(predictions, truth, "linear", RAGGED)
    assert score["item_accuracy"] == 0.6
    assert score["accuracy"] == score["path_accuracy"] == {"division": 1.0, "group": 1.0, "class": 0.5}
    assert score["f1_macro"]["class"] == pytest.approx(2 / 3, abs=1e-6)  # of two rows, one has no label
    # nodes: truth 1 + 2 + 2 + 3 + 3, answers 1 + 2 + 3 + 2 + 3, both 1 + 2 + 2 + 2 + 3
    assert score["hierarchical"] == dict.fromkeys(("precision", "recall", "f1"), pytest.approx(10 / 11, abs=1e-6))


def test_a_level_that_no_true_path_reaches_is_left_out():
    score = score_arm(ragged([RYE, BREAD]), ragged([BREAD, BREAD]), "linear", RAGGED)
    assert set(score["accuracy"]) == set(score["f1_macro"]) == {"division", "group"}
    assert score["accuracy"]["group"] == 1.0 and score["item_accuracy"] == 0.5
    assert score["hierarchical"]["precision"] == 0.8 and score["hierarchical"]["recall"] == 1.0


def test_a_brand_may_follow_a_chain_that_ends_early():
    levels = Levels(("division", "group", "brand"), "brand")
    truth = ragged([("food", "", "alder"), ("food", "bread", "")], levels)
    score = score_arm(ragged([("food", "", "alder"), ("food", "bread", "elm")], levels), truth, "linear", levels)
    assert score["item_accuracy"] == 0.5
    assert score["accuracy"] == {"division": 1.0, "group": 1.0, "brand": 1.0}
    assert score["hierarchical"] == {"precision": 0.8, "recall": 1.0, "f1": pytest.approx(8 / 9, abs=1e-6)}
    wrong = score_arm(ragged([("home", "", "alder"), ("food", "bread", "")], levels), truth, "linear", levels)
    assert wrong["accuracy"]["brand"] == 1.0 and wrong["path_accuracy"]["brand"] == 0.0


@pytest.mark.parametrize("depth", [1, 8])
def test_one_level_and_eight(depth):
    levels = Levels(tuple(f"level {number}" for number in range(depth)))
    truth = ragged([("a",) * depth, ("b",) * depth], levels)
    score = score_arm(ragged([("a",) * depth, ("a",) * depth], levels), truth, "linear", levels)
    assert score["item_accuracy"] == 0.5 and set(score["accuracy"].values()) == {0.5}
    assert score["hierarchical"]["f1"] == 0.5
    found = ragged([("b",) * depth, ("b",) * depth], levels).assign(rank=0)
    assert recall_table(found, truth, levels, ks=(1,))["found"].head(1).tolist() == [1]


def test_paths_that_differ_only_in_where_they_end_have_other_codes():
    (codes,) = path_codes(RAGGED, ragged([FOOD, BREAD, RYE, BREAD]))
    assert codes[1] == codes[3] and len(set(codes)) == 3


def test_labels_held_back_are_scored_where_there_is_one_left():
    truth = ragged([RYE, BREAD, BREAD])
    held = ragged([FOOD, BREAD, RYE])
    scores = score_held_back(mark(held, truth, "linear", RAGGED), RAGGED)
    assert scores["answered"] == {
        "division": 1.0,
        "group": pytest.approx(2 / 3, abs=1e-6),
        "class": pytest.approx(1 / 3, abs=1e-6),
    }
    assert scores["accuracy"] == {"division": 1.0, "group": 1.0, "class": 0.0}
