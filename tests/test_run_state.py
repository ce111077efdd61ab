"""Run state: whole lines of answers survive, cut ones do not count; one process at a time, until it is killed."""

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.errors import ResourceError
from tillmap.core.run_state import AnswerLog, alone, hold, read_answers, run_key, scratch, state_folder, sweep

LINES = [{"x": {"id": 0, "text": "a"}, "y": {"id": 1, "text": "crème | b\n"}}, {"z": {"id": 2, "text": ""}}]
HOLDER = """
import sys, time
from pathlib import Path
from tillmap.core.run_state import hold
with hold(Path(sys.argv[1]), str):
    print("held", flush=True)
    time.sleep(600)
"""


def filled(path):
    log = AnswerLog(path)
    for records in LINES:
        log.add(records, 1.5)
    return log


def test_records_come_back_by_key_in_the_order_asked_for(tmp_path):
    filled(tmp_path / "run.jsonl")
    log = AnswerLog(tmp_path / "run.jsonl")
    assert log.records("zxy") == [LINES[1]["z"], LINES[0]["x"], LINES[0]["y"]]
    assert log.seconds("xyz") == 3.0
    assert log.seconds("x") == 0.75


@given(cut=st.integers(min_value=0))
def test_a_file_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    filled(path)
    whole = path.read_bytes()
    cut %= len(whole) + 1
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert set(read_answers(path, "xyz")) == {key for records in LINES[:kept] for key in records}
    assert path.read_bytes() == whole[:cut], "reading writes nothing"
    log = AnswerLog(path)
    assert ["x" in log, "y" in log, "z" in log] == [kept > 0, kept > 0, kept > 1]
    for records in LINES[kept:]:
        log.add(records, 1.5)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-3],
        lambda line: line.replace(b'"text": "a"', b'"text": "b"'),
        lambda line: line.replace(b"1.5", b"1e9"),
        lambda line: line.replace(b'"crc32"', b'"crc"'),
        lambda line: b"[" * 100_000,
        lambda line: b"\xff\x00" + line,
        lambda line: b"",
    ],
)
def test_a_damaged_line_does_not_count_and_the_others_do(tmp_path, caplog, damage):
    path = tmp_path / "run.jsonl"
    filled(path)
    first, second = path.read_bytes().splitlines()
    path.write_bytes(damage(first) + b"\n" + second + b"\n")
    log = AnswerLog(path)
    assert ["x" in log, "y" in log, "z" in log] == [False, False, True]
    assert f"{path}: damaged lines, whose questions are asked again: 1" in caplog.text
    log.add(LINES[0], 1.5)
    assert AnswerLog(path).records("xz") == [LINES[0]["x"], LINES[1]["z"]]


def test_answers_of_other_runs_count_but_are_not_written_again(tmp_path):
    filled(tmp_path / "old.jsonl")
    found = read_answers(tmp_path / "old.jsonl", {"x", "z", "unknown"})
    assert set(found) == {"x", "z"}
    log = AnswerLog(tmp_path / "new.jsonl")
    log.add({"x": {"id": 0, "text": "own"}}, 1.0)
    log.take(found)
    assert log.records("xz") == [{"id": 0, "text": "own"}, LINES[1]["z"]]
    assert log.seconds("xz") == 2.5
    assert "z" not in AnswerLog(tmp_path / "new.jsonl")


def test_key_follows_settings_and_bytes_not_places(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model").write_bytes(b"weights")
    key = run_key({"x": 1}, [tmp_path / "a" / "model"])
    assert key == run_key({"x": 1}, [tmp_path / "b" / "model"])
    assert key != run_key({"x": 2}, [tmp_path / "a" / "model"])
    (tmp_path / "b" / "model").write_bytes(b"other")
    assert key != run_key({"x": 1}, [tmp_path / "b" / "model"])


def test_state_folder_is_absolute_and_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    assert state_folder() == tmp_path / "state"
    monkeypatch.delenv("TILLMAP_STATE")
    assert state_folder().is_absolute()


@pytest.mark.parametrize("key", ["x", ""])
def test_unknown_records_are_not_there(tmp_path, key):
    log = AnswerLog(tmp_path / "new.jsonl")
    assert key not in log
    with pytest.raises(KeyError):
        log.records([key])


def refusal(pid):
    return f"process {pid} has it"


def test_another_process_is_named_until_it_is_killed(tmp_path):
    lock = tmp_path / "new" / "stage.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):  # a refused process leaves the number where it is
            with pytest.raises(ResourceError, match=f"^process {holder.pid} has it$"), hold(lock, refusal):
                pass
        holder.kill()
        holder.wait()
        with hold(lock, refusal):
            assert lock.read_text() == str(os.getpid())


def test_a_lock_is_held_once_and_released_whatever_happens(tmp_path):
    lock = tmp_path / "lock"
    with hold(lock, refusal), pytest.raises(ResourceError, match=f"process {os.getpid()} has it"), hold(lock, refusal):
        pass
    with pytest.raises(ZeroDivisionError), hold(lock, refusal):
        raise ZeroDivisionError
    with hold(lock, refusal):
        pass


def test_a_folder_may_be_deleted_by_the_process_that_has_it(tmp_path):
    folder = tmp_path / "run"
    with alone(folder):
        shutil.rmtree(folder)
    with alone(folder), pytest.raises(ResourceError, match="another process follows this run"), alone(folder):
        pass


def test_scratch_folders_of_killed_runs_are_removed_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    program = "import os\nfrom tillmap.core.run_state import scratch\nwith scratch() as folder:\n"
    program += " (folder / 'large').write_text('x'); os.kill(os.getpid(), 9)"

    def left_by_a_kill():
        subprocess.run([sys.executable, "-c", program], check=False)
        (left,) = tmp_path.rglob("large")
        return left.parent.parent

    left = left_by_a_kill()
    sweep()
    assert not left.exists()
    left = left_by_a_kill()
    with scratch() as first:
        assert not left.exists()
        (first / "large").write_text("y")
        with scratch() as second:
            sweep()
            assert (first / "large").read_text() == "y" and not any(second.iterdir())
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["lock"]
