"""Batches, resuming, and engines that fail."""

import pytest

from tillmap.core.completions import Question, finished
from tillmap.core.errors import ResourceError
from tillmap.core.run_state import Journal
from tillmap.llm.inference import answer_all

QUESTIONS = [Question("test", number, [{"role": "user", "content": str(number)}]) for number in range(10)]


class Echo:
    """Answers with the question's own words; fails on the ids it is told to, and remembers the batches it saw."""

    def __init__(self, poisoned=(), killed_at=None):
        self.poisoned, self.killed_at, self.batches = set(poisoned), killed_at, []

    def answer(self, questions):
        ids = [question.id for question in questions]
        if self.killed_at in ids:
            raise KeyboardInterrupt
        if self.poisoned & set(ids):
            raise ValueError("cannot answer")
        self.batches.append(ids)
        return [finished(question, question.messages[0]["content"]) for question in questions]


def answered(journal):
    return [(record["id"], record["text"], record["status"]) for record in journal.records()]


def test_every_row_is_answered_in_order(tmp_path):
    journal, engine = Journal(tmp_path / "j"), Echo()
    answer_all(QUESTIONS, lambda: engine, journal, 4, "echo")
    assert answered(journal) == [(number, str(number), "ok") for number in range(10)]
    assert engine.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_interrupted_run_goes_on_with_the_same_batches(tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(KeyboardInterrupt):
        answer_all(QUESTIONS, lambda: Echo(killed_at=5), journal, 4, "echo")
    engine = Echo()
    answer_all(QUESTIONS, lambda: engine, Journal(tmp_path / "j"), 4, "echo")
    assert engine.batches == [[4, 5, 6, 7], [8, 9]]
    assert answered(Journal(tmp_path / "j")) == [(number, str(number), "ok") for number in range(10)]


def test_a_finished_run_loads_no_model(tmp_path):
    answer_all(QUESTIONS, Echo, Journal(tmp_path / "j"), 4, "echo")

    def load():
        raise AssertionError("the model was loaded again")

    answer_all(QUESTIONS, load, Journal(tmp_path / "j"), 4, "echo")


def test_a_poisoned_row_is_an_error_and_costs_no_other(tmp_path):
    journal = Journal(tmp_path / "j")
    answer_all(QUESTIONS, lambda: Echo(poisoned=[5, 9]), journal, 4, "echo")
    assert [record["id"] for record in journal.records() if record["status"] == "error"] == [5, 9]
    assert all("cannot answer" in record["error"] for record in journal.records() if record["status"] == "error")
    assert len(answered(journal)) == 10


def test_a_dead_engine_stops_the_run_and_keeps_what_was_done(tmp_path):
    with pytest.raises(ResourceError, match="fails on every row"):
        answer_all(QUESTIONS, lambda: Echo(poisoned=range(4, 10)), Journal(tmp_path / "j"), 4, "echo")
    assert [number for number, _, _ in answered(Journal(tmp_path / "j"))] == [0, 1, 2, 3]


def test_white_space_is_an_empty_answer():
    assert finished(QUESTIONS[0], " \n").status == "empty"
