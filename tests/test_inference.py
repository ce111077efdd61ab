"""Batches, resuming, engines that fail, and answers that another run of the same model has given already."""

import errno
import json
import os
from dataclasses import replace

import pytest

from tillmap.core.completions import Question, finished
from tillmap.core.errors import ResourceError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.llm.engines import loading
from tillmap.llm.interface import inference
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.llm.interface.inference import (
    KeptEngine,
    LocalModel,
    answer_missing,
    ask_in_batches,
    ask_model,
    plan_generation,
)

QUESTIONS = [Question("test", number, [{"role": "user", "content": str(number)}]) for number in range(10)]
PILOT = [QUESTIONS[number] for number in (1, 4, 7, 8)]
MODEL = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


class Echo:
    """Answers with the question's own words; fails on the ids it is told to, and remembers the batches it saw."""

    def __init__(self, poisoned=(), killed_at=None, meanwhile=None):
        self.poisoned, self.killed_at, self.meanwhile, self.batches = set(poisoned), killed_at, meanwhile, []

    def answer(self, questions):
        ids = [question.id for question in questions]
        if self.killed_at in ids:
            raise KeyboardInterrupt
        if self.poisoned & set(ids):
            raise ValueError("cannot answer")
        if self.meanwhile:
            self.meanwhile()
        self.batches.append(ids)
        return [finished(question, question.messages[0]["content"]) for question in questions]

    @property
    def asked(self):
        return [number for batch in self.batches for number in batch]


def in_batches(engine):
    return lambda missing, save, _: ask_in_batches(missing, engine, save, 4, "echo")


def ask(engine, questions=QUESTIONS, model=MODEL):
    """A whole run: its answers, as (id, text, status)."""
    run = answer_missing(questions, model, in_batches(engine), "echo")
    return [(answer.id, answer.text, answer.status) for answer in run.completions]


def half_a_second_each(missing, save, _):
    save([finished(question, "x") for question in missing], 0.5 * len(missing))


def said(*numbers):
    return [(number, str(number), "ok") for number in numbers]


def test_every_row_is_answered_in_order():
    engine = Echo()
    assert ask(engine) == said(*range(10))
    assert engine.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_interrupted_run_goes_on_with_the_same_batches():
    with pytest.raises(KeyboardInterrupt):
        ask(Echo(killed_at=5))
    engine = Echo()
    assert ask(engine) == said(*range(10))
    assert engine.batches == [[4, 5, 6, 7], [8, 9]]


def test_a_finished_run_loads_no_model(caplog):
    first = answer_missing(QUESTIONS, MODEL, half_a_second_each, "a")
    with caplog.at_level("INFO", "tillmap"):
        again = answer_missing(QUESTIONS, MODEL, pytest.fail, "a")
    assert again == first
    assert again.seconds == pytest.approx(5.0)
    assert "a: 10 of 10 rows were answered before" in caplog.text


def test_a_poisoned_row_is_an_error_and_costs_no_other():
    run = answer_missing(QUESTIONS, MODEL, in_batches(Echo(poisoned=[5, 9])), "echo")
    assert [answer.id for answer in run.completions if answer.status == "error"] == [5, 9]
    assert all("cannot answer" in answer.error for answer in run.completions if answer.status == "error")
    assert len(run.completions) == 10


def test_a_dead_engine_stops_the_run_and_keeps_what_was_done():
    with pytest.raises(ResourceError, match="fails on every row"):
        ask(Echo(poisoned=range(4, 10)))
    engine = Echo()
    assert ask(engine) == said(*range(10))
    assert engine.asked == [4, 5, 6, 7, 8, 9]


FULL = "the disk is full; free some space, among the temporary files, too"
SHORT = "out of memory; close other programs, or lower engine.batch_rows"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), FULL),
        (RuntimeError("g++: /tmp/x: No space left on device"), FULL),
        (RuntimeError("File size limit exceeded signal terminated program cc1plus"), "a file would exceed"),
        (MemoryError(), SHORT),
        (ImportError("x.so: failed to map segment from shared object"), SHORT),
    ],
)
def test_a_full_disk_and_too_little_memory_are_no_fault_of_the_rows(error, message, caplog):
    class Full(Echo):
        def answer(self, questions):
            if self.batches:
                raise error
            return super().answer(questions)

    with pytest.raises(ResourceError, match=f"^{message}"):
        ask(Full())
    assert caplog.records == []
    assert ask(engine := Echo()) == said(*range(10)) and engine.asked == [4, 5, 6, 7, 8, 9]


def test_white_space_is_an_empty_answer():
    assert finished(QUESTIONS[0], " \n").status == "empty"


# A pilot, and the full run after it


def test_a_full_run_asks_only_what_the_pilot_did_not():
    pilot, full, again = Echo(), Echo(), Echo()
    assert ask(pilot, PILOT) == said(1, 4, 7, 8)
    assert ask(full) == said(*range(10))
    assert full.batches == [[0, 2, 3, 5], [6, 9]]
    ask(again)
    ask(again, PILOT)
    ask(again, QUESTIONS[:6])
    assert again.asked == [], "nothing is asked twice"
    wider = [*QUESTIONS, Question("test", 10, [{"role": "user", "content": "10"}])]
    assert ask(again, wider) == said(*range(11))
    assert again.asked == [10]


def test_a_killed_full_run_after_a_pilot_goes_on_with_the_same_batches():
    ask(Echo(), PILOT)
    with pytest.raises(KeyboardInterrupt):
        ask(Echo(killed_at=9))
    engine = Echo()
    assert ask(engine) == said(*range(10))
    assert engine.batches == [[6, 9]]


def test_errors_of_another_run_are_asked_again():
    assert ask(Echo(poisoned=[4, 8]), PILOT)[1] == (4, "", "error")
    engine = Echo()
    assert ask(engine) == said(*range(10))
    assert sorted(engine.asked) == [0, 2, 3, 4, 5, 6, 8, 9]
    for part in (QUESTIONS[3:6], QUESTIONS[4:9], QUESTIONS[:5], QUESTIONS[8:]):  # whichever log is read last
        numbers = [question.id for question in part]
        assert ask(Echo(poisoned=range(10)), part) == said(*numbers), "the answer counts, not the error"


def test_the_time_of_a_row_is_counted_once_whichever_run_it_was_spent_in():
    assert answer_missing(PILOT, MODEL, half_a_second_each, "a").seconds == pytest.approx(2.0)
    assert answer_missing(QUESTIONS, MODEL, half_a_second_each, "a").seconds == pytest.approx(5.0)
    assert answer_missing(PILOT[:2], MODEL, pytest.fail, "a").seconds == pytest.approx(1.0)


def test_another_model_or_another_question_is_asked():
    ask(Echo(), PILOT)
    other, reworded = Echo(), Echo()
    ask(other, PILOT, model="f" * 32)
    assert other.asked == [1, 4, 7, 8]
    changed = [replace(question, answers=["a", "b"]) for question in PILOT[:2]]
    ask(reworded, [*changed, *PILOT[2:]])
    assert reworded.asked == [1, 4]


def test_two_runs_at_once_do_not_disturb_each_other(state):
    inner, outer = Echo(), Echo()
    outer.meanwhile = lambda: ask(inner, PILOT)
    assert ask(outer) == said(*range(10))
    assert outer.asked == list(range(10))
    assert inner.asked == [1, 4, 7, 8], "not yet written when it began"
    logs = sorted(state.glob("infer/*/answers.jsonl"))
    assert len(logs) == 2
    written = [[key for line in log.read_text().splitlines() for key in json.loads(line)["records"]] for log in logs]
    assert sorted(map(len, written)) == [4, 10], "each in its own log, whole"
    assert ask(Echo(killed_at=0)) == said(*range(10))


def test_the_same_run_twice_at_once_is_refused():
    engine = Echo()
    engine.meanwhile = lambda: ask(Echo())
    with pytest.raises(ResourceError, match="another process follows this run"):
        ask(engine)


def test_a_log_that_is_being_written_is_read_up_to_its_last_whole_line(state):
    with pytest.raises(KeyboardInterrupt):
        ask(Echo(killed_at=8), QUESTIONS)
    [log] = state.glob("infer/*/answers.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:-20])
    engine = Echo()
    assert ask(engine, QUESTIONS[2:7]) == said(*range(2, 7))
    assert engine.asked == [4, 5, 6]
    assert log.read_bytes() == lines[0] + lines[1][:-20], "another run's log is only read"


# What the answers follow from


@pytest.fixture
def local(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base/model.safetensors").write_bytes(b"weights")
    machine = Machine("float32", 256, 8, kv_cache_gib=None, eager=True)
    return LocalModel("vllm", tmp_path / "base", None, machine, Generation(8, 0.0, 1))


def test_a_model_is_known_by_its_files_and_settings_but_not_by_sizes_and_threads(local, tmp_path):
    sizes = {"batch_rows": 64, "save_rows": 256, "threads": 2, "gpu_memory_utilization": 0.5}
    same = replace(local, machine=replace(local.machine, **sizes))
    assert same.key() == local.key()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"more")
    others = [
        replace(local, engine="transformers"),
        replace(local, adapter=tmp_path / "adapter"),
        replace(local, machine=replace(local.machine, dtype="bfloat16")),
        replace(local, generation=replace(local.generation, temperature=0.5)),
        replace(local, generation=replace(local.generation, seed=2)),
    ]
    keys = {local.key(), *(other.key() for other in others)}
    (tmp_path / "base/model.safetensors").write_bytes(b"tuned")
    assert len(keys | {local.key()}) == 7


def test_a_resumed_run_keeps_its_threads_and_another_takes_those_that_are_free(local, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(loading, "load_engine", lambda engine, checkpoint, machine, *_: used.append(machine.threads))
    for free in (3, 1):
        monkeypatch.setattr(inference, "free_threads", lambda free=free: free)
        KeptEngine().load(local, tmp_path)
    (tmp_path / "other").mkdir()
    KeptEngine().load(local, tmp_path / "other")
    KeptEngine().load(local.with_threads(2), tmp_path / "other")
    assert used == [3, 3, 1, 2]


def test_threads_that_a_kill_left_half_written_are_counted_anew(local, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(loading, "load_engine", lambda engine, checkpoint, machine, *_: used.append(machine.threads))
    monkeypatch.setattr(inference, "free_threads", lambda: 3)
    (tmp_path / "threads").write_text("")
    KeptEngine().load(local, tmp_path)
    assert used == [3]
    assert (tmp_path / "threads").read_text() == "3"


def test_an_engine_is_kept_for_the_same_model_and_ended_before_another(local, tmp_path, monkeypatch):
    happened = []

    class Loaded:
        def __init__(self, *model):
            happened.append(f"load {model[2].threads}")

        def close(self):
            happened.append("close")

    monkeypatch.setattr(loading, "load_engine", Loaded)
    kept = KeptEngine()
    for free, name in ((3, "trial"), (1, "routed")):
        monkeypatch.setattr(inference, "free_threads", lambda free=free: free)
        (tmp_path / name).mkdir()
        kept.load(local, tmp_path / name)
    assert happened == ["load 3"]
    kept.load(replace(local, adapter=tmp_path), tmp_path / "routed")
    (tmp_path / "resumed").mkdir()
    (tmp_path / "resumed/threads").write_text("2")
    kept.load(replace(local, adapter=tmp_path), tmp_path / "resumed")
    kept.close()
    kept.close()
    assert happened == ["load 3", "close", "load 3", "close", "load 2", "close"]


def test_generation_takes_the_answers_that_are_allowed_to_all():
    class Settings:
        max_new_tokens, temperature, constrain, unseen_brand = 8, 0.5, "tree", True

    assert plan_generation(Settings, 3, None) == Generation(8, 0.5, 3)
    tree = LabelTree(CONTEST, (LabelPath("a", "b", "c", "d"), LabelPath("a", "b", "c", "e")), (1, 1))
    answer_format = make_answer_format("short", tree)
    allowed = json.loads(json.dumps(answer_format.allowed_to_all(Settings)))
    planned = plan_generation(Settings, 3, allowed)
    assert planned.answers == tuple(answer_format.answers)
    assert planned.open_answers == answer_format.open_answers


def test_a_local_engine_that_failed_is_loaded_anew(local, monkeypatch):
    """What a failed step leaves in vLLM would keep it, and every later batch, waiting forever."""
    engines = []

    class Breaking(Echo):
        broken = False

        def answer(self, questions):
            assert not self.broken, "would wait forever"
            self.broken = True
            found = super().answer(questions)
            self.broken = False
            return found

        def close(self):
            self.broken = True

    def load(*_):
        engines.append(Breaking(poisoned=[5]))
        return engines[-1]

    monkeypatch.setattr(loading, "load_engine", load)
    model = replace(local, machine=replace(local.machine, save_rows=4))
    run = ask_model(model, QUESTIONS, "echo", KeptEngine())
    assert [answer.id for answer in run.completions if answer.status == "error"] == [5]
    assert [engine.asked for engine in engines] == [[0, 1, 2, 3], [4], [6, 7, 8, 9]]
