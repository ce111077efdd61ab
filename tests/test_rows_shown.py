"""Which rows the report shows, and what it says of each."""

import numpy as np
import pytest

from report_rows import PROMPT, RAW, SCRIPT, TEST, make_shown, make_tables
from tillmap.evaluation import rows_shown as module
from tillmap.evaluation.rows_shown import ROWS, choose_rows


@pytest.fixture(scope="module")
def made():
    rows, predictions = make_tables()
    truth = rows[rows["subset"] == "test"]
    return rows, predictions, make_shown(rows, predictions, truth)


def test_the_wrong_rows_are_first_then_the_least_sure(made):
    _, _, shown = made
    answers = [row["answers"]["free"] for row in shown["rows"]]
    wrong = [not all(answer["right"]) for answer in answers]
    assert wrong == sorted(wrong, reverse=True) and 0 < sum(wrong) < len(wrong)
    sure = [answer["confidence"] for answer in answers]
    assert sure[: sum(wrong)] == sorted(sure[: sum(wrong)], reverse=True)
    assert sure[sum(wrong) :] == sorted(sure[sum(wrong) :])


def test_of_many_rows_800_are_shown_the_scored_ones_if_there_are_enough():
    rows, predictions = make_tables(tests=2000)
    scored = rows[rows["subset"] == "test"]
    levels = module.Levels(("group", "<b>module</b>", "brand"), brand="brand")
    chosen = choose_rows(predictions, rows, scored, levels)
    assert len(chosen) == ROWS and set(chosen["subset"]) == {"test"}
    few = choose_rows(predictions, rows, scored[:50], levels)
    assert len(few) == ROWS and set(few["id"][few["split"] == "test"]) >= set(range(50))


def test_a_row_has_every_arms_answer_and_what_it_was_made_of(made):
    rows, _, shown = made
    assert shown["arms"] == ["free", "asked"] and shown["asks_model"] == ["asked"]
    assert len(shown["rows"]) == TEST + 40
    line = next(row for row in shown["rows"] if row["split"] == "test" and row["id"] == "1")
    true = rows[(rows["split"] == "test") & (rows["id"] == 1)].iloc[0]
    assert line["text"] == true["description"] and (line["price"], line["scored"]) == (1.5, True)
    assert shown["paths"][line["truth"]] == SCRIPT
    free, asked = line["answers"]["free"], line["answers"]["asked"]
    assert [shown["paths"][free["candidates"][0][0]], *free["candidates"][1]] == [SCRIPT, "<u>text</u>", 0.3]
    assert "raw" not in free and (asked["raw"], asked["repair"]) == (RAW, "snapped")
    assert [(role, shown["texts"][number]) for role, number in asked["prompt"]] == [("user", PROMPT)]
    [[neighbour, text, path, score]] = line["near"]
    assert (neighbour, text, score) == ("1", rows["description"][1], 0.5) and shown["paths"][path] == SCRIPT
    known = [row for row in shown["rows"] if not row["scored"]]
    assert len(known) == 40 and all(set(row["answers"]) == {"free"} for row in known)


def test_a_row_without_labels_has_no_truth():
    rows, predictions = make_tables()
    levels = ["group", "<b>module</b>", "brand"]
    rows.loc[rows["split"] == "test", levels] = None
    shown = make_shown(rows, predictions, rows[rows["subset"] == "calibration"])
    without = [row for row in shown["rows"] if row["split"] == "test"]
    assert len(without) == TEST and all(row["truth"] is None for row in without)
    assert all(row["answers"]["asked"]["right"] is None for row in without)


def test_prompts_that_would_make_the_file_large_are_left_out(monkeypatch):
    rows, predictions = make_tables()
    monkeypatch.setattr(module, "_PROMPT_CHARACTERS", len(PROMPT) * 10)
    shown = make_shown(rows, predictions, rows[rows["subset"] == "test"])
    prompts = np.array(["prompt" in row["answers"].get("asked", ()) for row in shown["rows"]])
    assert prompts.sum() == 10 and np.flatnonzero(prompts).max() < 20
