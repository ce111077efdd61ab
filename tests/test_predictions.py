"""Every answer becomes one prediction, in order, whatever it says."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained import make_trained

from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import Embedding, Postprocess
from tillmap.core.files import OFF, read_table, write_table
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing import predictions
from tillmap.postprocessing.calibration import Confidence
from tillmap.postprocessing.predictions import (
    ALONE,
    TOGETHER,
    calibrate_arm,
    count_repairs,
    make_repairer,
    predict,
    prediction_columns,
    write_off,
)
from tillmap.postprocessing.repair import Repairer

PATHS = [LabelPath("food", "dairy", "butter", "golden meadow"), LabelPath("home", "care", "soap", "velvetto")]
TREE = LabelTree.from_rows(pd.DataFrame([(*path, "alder") for path in PATHS], columns=[*CONTEST, "retailer"]), CONTEST)
REPAIRER = Repairer(TREE, make_answer_format("short", TREE))


def answer(number, text, status="ok", logprob=None, candidates=None):
    return {"split": "test", "id": number, "text": text, "status": status, "logprob": logprob, "candidates": candidates}


@given(st.lists(st.text(max_size=30)))
def test_any_texts_become_paths_of_the_tree_in_order(texts):
    table = predict([answer(number, text) for number, text in enumerate(texts)], REPAIRER, {}, "rag")
    assert list(table["id"]) == list(range(len(texts)))
    assert set(table[list(CONTEST)].itertuples(index=False, name=None)) <= set(PATHS)
    assert table["confidence"].between(0, 1).all()


def test_a_failed_answer_keeps_its_mark_and_takes_the_neighbours_vote():
    votes = {("test", 1): [(PATHS[1], 0.75), (PATHS[0], 0.25)]}
    table = predict([answer(0, "butter | golden meadow"), answer(1, "", "error")], REPAIRER, votes, "rag")
    assert list(table["repair"]) == ["none", "vote"]
    assert list(table["status"]) == ["ok", "error"]
    assert tuple(table.loc[1, list(CONTEST)]) == PATHS[1]
    assert list(table["confidence"]) == [1.0, 0.75]


def test_confidence_is_the_models_own_where_it_gives_one():
    answers = [
        answer(0, "butter | golden meadow", logprob=-0.693147),
        answer(1, "soap | velvetto", candidates=[[list(PATHS[1]), 0.8]]),
        answer(2, "soap | velvetto", logprob=-0.1, candidates=[["soap | velvetto", 0.7], ["butter | x", 0.3]]),
        answer(3, "soap | velvetto", logprob=0.0, candidates=[]),
    ]
    assert predict(answers, REPAIRER, {}, "rag")["confidence"].round(4).tolist() == [0.5, 0.8, 0.7, 1.0]


def test_an_answer_that_needed_repair_is_less_sure_than_the_model_was():
    table = predict([answer(0, "soaps | velveto", candidates=[["soaps | velveto", 0.8]])], REPAIRER, {}, "rag")
    assert table.loc[0, "repair"] == "snapped"
    assert 0.4 < table.loc[0, "confidence"] < 0.8


def test_an_arm_that_is_off_has_every_column(tmp_path):
    make_trained(tmp_path)
    for arm in ("rag", "llama", "openai"):
        table = read_table(tmp_path / f"data/predictions/{arm}.parquet")
        assert list(table) == prediction_columns(CONTEST)
        assert table.empty


def test_a_level_is_null_from_where_the_path_ends(tmp_path):
    levels = Levels(("division", "group", "class"))
    tree = LabelTree(levels, (LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")), (2, 1))
    repairer = Repairer(tree, make_answer_format("short", tree))
    table = predict([answer(0, "bread"), answer(1, "rye"), answer(2, "bred")], repairer, {}, "rag")
    assert list(table) == prediction_columns(levels)
    assert list(write_off(tmp_path / "off", levels)) == prediction_columns(levels)
    assert levels.paths(table)[:2] == list(tree.paths)
    write_table(table, tmp_path / "table.parquet")
    assert levels.paths(read_table(tmp_path / "table.parquet")) == levels.paths(table)
    assert list(table["class"].isna()) == [True, False, True]
    alone = predict([answer(0, "bread")], repairer, {}, "rag")
    assert alone.dtypes.equals(table.dtypes), "a level that no answer reaches is text, too"


# How an arm's answers are read, and how sure they are


SETTINGS = Postprocess(repair=True, embed=True, min_similarity=0.5)
EMBEDDING = Embedding(model="m", revision=None, batch_size=1, flat_up_to=1)


@pytest.fixture
def loaded(monkeypatch):
    """The models of meaning that were loaded."""
    models = []

    class Model:
        def __init__(self, *chosen):
            models.append(chosen)

        def encode(self, texts):
            return np.ones((len(texts), 2), np.float32)

    monkeypatch.setattr(predictions, "Embedder", Model)
    return models


def test_only_free_text_is_repaired_by_its_meaning(loaded):
    for rules, settings in (
        (AnswerRules("json", False, free_text=False, paths=None), SETTINGS),
        (AnswerRules("short", False, free_text=True, paths=None), SETTINGS.model_copy(update={"embed": False})),
        (AnswerRules("short", False, free_text=True, paths=None), SETTINGS.model_copy(update={"repair": False})),
    ):
        make_repairer(rules, TREE, settings, EMBEDDING)
    assert loaded == []
    make_repairer(AnswerRules("short", False, free_text=True, paths=None), TREE, SETTINGS, EMBEDDING)
    assert loaded == [("m", None, 1)]


def test_answers_are_read_by_the_arms_own_rules():
    other = LabelPath("food", "dairy", "milk", "alder")
    wider = LabelTree.from_rows(pd.DataFrame([*PATHS, other], columns=list(CONTEST)), CONTEST)
    said = [answer(0, "milk | alder"), answer(1, "butter | newbrand")]

    def read(**rules):
        chosen = AnswerRules(**{"format": "short", "unseen": False, "free_text": False, "paths": None} | rules)
        table = predict(said, make_repairer(chosen, TREE, SETTINGS, EMBEDDING), {}, "rag")
        return list(table[list(CONTEST)].itertuples(index=False, name=None))

    assert set(read()) <= set(PATHS)
    assert read(paths=wider)[0] == other
    assert read(unseen=True)[1] == ("food", "dairy", "butter", "newbrand")


def calibrated(subset, folder, rows=200):
    """An arm that is right on three rows of four, with a free arm beside it."""
    right = [row % 4 > 0 for row in range(rows)]
    texts = ["butter | golden meadow" if ok else "soap | velvetto" for ok in right]
    said = [answer(row, text, logprob=-0.1) for row, text in enumerate(texts)]
    known = pd.DataFrame([PATHS[0]] * rows, columns=list(CONTEST))
    known = known.assign(split="test", id=range(rows), subset=subset, description="d")
    free = {"nearest": {("test", row): [(PATHS[0], 0.7)] for row in range(rows)}}
    table = predict(said, REPAIRER, {}, "rag")
    return table, calibrate_arm("rag", said, table, known, free=free, training=TREE, folder=folder)


def test_confidences_are_fitted_alone_and_with_the_free_arms(tmp_path):
    before, after = calibrated("calibration", tmp_path)
    models = {name: Confidence.load(tmp_path / f"{name}.json") for name in (ALONE, TOGETHER)}
    assert (models[ALONE].free, models[TOGETHER].free) == ((), ("nearest",))
    right = (after["brand"] == "golden meadow").to_numpy()
    assert after["confidence"][right].mean() > 0.9
    assert after["confidence"][~right].mean() < 0.1
    assert after.drop(columns="confidence").equals(before.drop(columns="confidence"))


def test_without_the_calibration_subset_confidences_stay_the_arms_own(tmp_path, caplog):
    before, after = calibrated("test", tmp_path)
    assert after.equals(before)
    assert "rag answered no row of the calibration subset" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == [OFF]


def test_repairs_are_counted():
    said = [answer(0, "butter | golden meadow"), answer(1, ""), answer(2, "SOAP | velvetto"), answer(3, "")]
    counts = count_repairs(predict(said, REPAIRER, {}, "rag"))
    assert counts["rows"] == 4
    assert counts["repair"]["vote"] == 2 and sum(counts["repair"].values()) == 4
    assert counts["out_of_tree"] == 0
