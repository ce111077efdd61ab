"""Resume state: whole batches survive, cut ones do not count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.run_state import Journal, run_key, state_folder

BATCHES = [[{"id": 0, "text": "a"}, {"id": 1, "text": "crème | b\n"}], [{"id": 2, "text": ""}]]


def filled(path):
    journal = Journal(path)
    for number, records in enumerate(BATCHES):
        journal.add(number, 1.5, records)
    return journal


def test_batches_come_back_in_order(tmp_path):
    filled(tmp_path / "run.jsonl")
    journal = Journal(tmp_path / "run.jsonl")
    assert list(journal.records()) == [record for batch in BATCHES for record in batch]
    assert journal.seconds == 3.0


@given(cut=st.integers(min_value=0))
def test_a_file_cut_anywhere_keeps_its_whole_batches(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "run.jsonl"
    filled(path)
    whole = path.read_bytes()
    cut %= len(whole) + 1
    path.write_bytes(whole[:cut])
    journal = Journal(path)
    kept = whole[:cut].count(b"\n")
    assert [number in journal for number in range(2)] == [number < kept for number in range(2)]
    for number in range(kept, 2):
        journal.add(number, 1.5, BATCHES[number])
    assert path.read_bytes() == whole


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


@pytest.mark.parametrize("number", [0, 1])
def test_unknown_batches_are_not_there(tmp_path, number):
    assert number not in Journal(tmp_path / "new.jsonl")
