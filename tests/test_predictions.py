"""Every answer becomes one prediction, in order, whatever it says."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.answer_formats import make_answer_format
from tillmap.postprocessing.predictions import COLUMNS, no_predictions, predict
from tillmap.postprocessing.repair import Repairer

PATHS = [LabelPath("food", "dairy", "butter", "golden meadow"), LabelPath("home", "care", "soap", "velvetto")]
TREE = LabelTree.from_rows(pd.DataFrame([(*path, "alder") for path in PATHS], columns=[*LEVELS, "retailer"]))
REPAIRER = Repairer(TREE, make_answer_format("short", TREE))


def answer(number, text, status="ok", logprob=None, candidates=None):
    return {"split": "test", "id": number, "text": text, "status": status, "logprob": logprob, "candidates": candidates}


@given(st.lists(st.text(max_size=30)))
def test_any_texts_become_paths_of_the_tree_in_order(texts):
    table = predict([answer(number, text) for number, text in enumerate(texts)], REPAIRER, {}, "rag")
    assert list(table["id"]) == list(range(len(texts)))
    assert set(table[list(LEVELS)].itertuples(index=False, name=None)) <= set(PATHS)
    assert table["confidence"].between(0, 1).all()


def test_a_failed_answer_keeps_its_mark_and_takes_the_neighbours_vote():
    votes = {("test", 1): [(PATHS[1], 0.75), (PATHS[0], 0.25)]}
    table = predict([answer(0, "butter | golden meadow"), answer(1, "", "error")], REPAIRER, votes, "rag")
    assert list(table["repair"]) == ["none", "vote"]
    assert list(table["status"]) == ["ok", "error"]
    assert tuple(table.loc[1, list(LEVELS)]) == PATHS[1]
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


def test_an_arm_that_is_off_has_every_column():
    assert list(no_predictions()) == COLUMNS
    assert no_predictions().empty
