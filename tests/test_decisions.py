"""The log of decisions: nothing that was saved is lost, and what is read back is what was decided."""

import json
import os
import random
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from review_rows import COFFEE, CREME, GREEN, LEVELS, TEA
from tillmap.core.errors import InputError, ResourceError
from tillmap.core.taxonomy import LabelPath, Levels
from tillmap.review.decisions import corrections, open_log, read_decisions
from tillmap.review.queue import ReviewRow

PATHS = (TEA, GREEN, COFFEE, CREME, None)
TEXTS = ["plain", 'quotes " and \\', "two\nlines\r\u2028", "\u202e\u0645\u0631", "\x00\x1f", "🥛" * 40]
HOUSE = ReviewRow(7, "HOUSE TEA", COFFEE, 0.25, 1.0, split="test", retailer="Lune")
TWIN = ReviewRow("B-8", "house tea", None, 0.0, 0.5, price="1.50")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corrections.jsonl"


def clock():
    """A clock that moves on by ten seconds each time."""
    start = datetime(2026, 3, 1, tzinfo=UTC)
    times = (start + timedelta(seconds=10 * step) for step in range(1_000_000))
    return lambda: next(times)


def state(decisions):
    return {row.key: decision.labels for row, decision in decisions.current()}


def act(log, steps):
    """Decide and undo as the steps say. Returns the states after each of them, and the file's sizes."""
    states, sizes = [state(log)], [log.path.stat().st_size]
    for row, answer in steps:
        if answer is None and log.valid:
            log.undo(log.valid[-1].number)
        else:
            log.decide([ReviewRow(row, TEXTS[row], TEA, 0.5, 1.0)], PATHS[answer or 0])
        states.append(state(log))
        sizes.append(log.path.stat().st_size)
    return states, sizes


STEPS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 4)), max_size=12)


@settings(max_examples=40)
@given(STEPS, st.randoms(use_true_random=False))
def test_any_cut_of_the_tail_reads_back_what_was_decided_before(tmp_path_factory, steps, rng: random.Random):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    # Without the waits for the disk, of which a process that goes on sees nothing.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        with open_log(path, LEVELS, now=clock()) as log:
            states, sizes = act(log, steps)
        whole = path.read_bytes()
        assert state(read_decisions(path, LEVELS)) == states[-1]
        before = {
            cut: _whole(cut, sizes) for cut in (*sizes, *(size - 1 for size in sizes[1:]), rng.randint(0, sizes[-1]))
        }
        for cut, step in before.items():
            path.write_bytes(whole[:cut])
            assert state(read_decisions(path, LEVELS)) == states[step]
        cut, step = rng.choice(list(before.items()))
        path.write_bytes(whole[:cut])
        with open_log(path, LEVELS, now=clock()) as log:
            assert state(log) == states[step]
            log.decide([HOUSE], GREEN)
    assert state(read_decisions(path, LEVELS)) == states[step] | {HOUSE.key: LEVELS.of(GREEN)}
    assert path.read_bytes().startswith(whole[: sizes[step]])


def _whole(cut, sizes):
    """How many lines are whole in the first bytes of a log. One that only lacks its end is."""
    return max(step for step, size in enumerate(sizes) if size <= cut + 1 and (step == 0 or cut))


def test_a_removed_half_line_is_said(path, caplog):
    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-20])
    with open_log(path, LEVELS) as log:
        assert [decision.number for decision in log.valid] == [1]
    assert "the last line was cut short" in caplog.text
    assert path.read_bytes() == whole


def test_undo_brings_back_the_decision_before(path):
    with open_log(path, LEVELS) as log:
        first = log.decide([HOUSE, TWIN], TEA)
        second = log.decide([HOUSE], None)
        assert log.of(HOUSE.key).labels is None
        assert log.undo(second.number) == second
        assert log.of(HOUSE.key) == log.of(TWIN.key) == first
        assert log.undo(second.number) is None, "once"
        log.undo(first.number)
        assert log.valid == [] and state(log) == {}
    assert len(path.read_text().splitlines()) == 4, "an undo is a line, too"


def test_a_line_says_everything(path):
    with open_log(path, LEVELS, who="Ana", now=clock()) as log:
        log.decide([HOUSE, TWIN], LabelPath("Hot Drinks", "Tea", ""), source="linear")
    assert json.loads(path.read_text()) == {
        "number": 1,
        "when": "2026-03-01T00:00:00Z",
        "who": "Ana",
        "source": "linear",
        "labels": {"group": "Hot Drinks", "module": "Tea"},
        "rows": [
            {"split": "test", "id": 7, "text": "HOUSE TEA", "answer": LEVELS.of(COFFEE), "confidence": 0.25,
             "retailer": "Lune", "price": ""},
            {"split": "", "id": "B-8", "text": "house tea", "answer": None, "confidence": 0.0, "retailer": "",
             "price": "1.50"},
        ],
    }  # fmt: skip


def test_the_corrections_are_the_last_decisions_without_the_ones_that_nobody_could_tell(path):
    with open_log(path, LEVELS, who="Ana", now=clock()) as log:
        log.decide([HOUSE, TWIN], GREEN, source="linear")
        log.decide([HOUSE], TEA, source="linear")
        log.decide([ReviewRow(9, "?", TEA, 0.1, 1.0)], None)
    table = corrections(read_decisions(path, LEVELS), LEVELS)
    expected = pd.DataFrame(
        [
            ("test", "7", "HOUSE TEA", "Lune", None, *TEA, "Ana", "2026-03-01T00:00:10+00:00", "linear", *COFFEE, 0.25),
            (None, "B-8", "house tea", None, "1.50", *GREEN, "Ana", "2026-03-01T00:00:00+00:00", "linear", None, None,
             None, 0.0),
        ],
        columns=[
            "split", "id", "text", "retailer", "price", "group", "module", "brand", "who", "when", "source",
            "answer_group", "answer_module", "answer_brand", "confidence",
        ],
    ).astype({"id": "str"})  # fmt: skip
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_equal_ids_of_two_files_are_two_rows(path):
    other = ReviewRow(7, "SOAP", TEA, 0.5, 1.0, split="test")
    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
        assert log.of(other.key) is None


def test_a_second_process_is_refused_and_a_killed_one_holds_nobody_up(path):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with open_log(path, LEVELS) as log:
            log.decide([HOUSE], TEA)
            os.write(writer, b"open")
            os.read(os.pipe()[0], 1)  # waits for the kill
        os._exit(1)
    os.read(reader, 4)
    with pytest.raises(ResourceError, match=rf"another page is open on this file \(process {child}\)"):
        open_log(path, LEVELS).__enter__()
    os.kill(child, 9)
    os.waitpid(child, 0)
    with open_log(path, LEVELS) as log:
        assert log.of(HOUSE.key).labels == LEVELS.of(TEA)


@pytest.mark.parametrize(
    "break_, says",
    [
        (lambda lines: ["{}\n", *lines], ":1: not a line of `tillmap review`"),
        (lambda lines: [lines[0][:30] + "\n", *lines[1:]], ":1: not a line of `tillmap review`"),
        (lambda lines: lines[1:], ":1: has the number 2"),
        (lambda lines: [line.replace('"module"', '"class"') for line in lines], ":1: has the level class"),
    ],
)
def test_a_file_that_is_not_such_a_log_is_refused_and_not_changed(path, break_, says):
    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
        log.decide([TWIN], TEA)
    broken = "".join(break_(path.read_text().splitlines(keepends=True)))
    path.write_text(broken)
    with pytest.raises(InputError, match=says):
        open_log(path, LEVELS).__enter__()
    assert path.read_text() == broken


def test_other_levels_are_refused(path):
    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
    with pytest.raises(InputError, match="the taxonomy has division, class; name another file"):
        open_log(path, Levels(("division", "class"))).__enter__()


def test_a_file_that_another_program_changed_is_not_written(path):
    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
        path.write_text("")
        with pytest.raises(ResourceError, match="another program changed it"):
            log.decide([TWIN], TEA)
        assert log.of(TWIN.key) is None


def test_a_full_disk_leaves_the_log_as_it_was(path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with open_log(path, LEVELS) as log:
        log.decide([HOUSE], TEA)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                log.decide([TWIN], TEA)
        assert path.read_bytes() == before and log.of(TWIN.key) is None
        log.decide([TWIN], GREEN)
    assert read_decisions(path, LEVELS).of(TWIN.key).number == 2


def test_a_missing_log_is_said(path):
    with pytest.raises(InputError, match="file not found; `tillmap review` writes it"):
        read_decisions(path, LEVELS)
