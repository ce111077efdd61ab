"""Decisions come into the file of corrections, and stay there whatever git does with it."""

import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT

from review_rows import COFFEE, GREEN, LEVELS, TEA
from tillmap.core.errors import InputError
from tillmap.review.decisions import corrections, open_log, read_decisions
from tillmap.review.queue import ReviewRow
from tillmap.review.saving import file_for, save_corrections, unsaved

HOUSE = ReviewRow(7, "HOUSE TEA", COFFEE, 0.25, 1.0, split="test", retailer="Lune", price="1.50")
OTHER = ReviewRow(8, "<b>BEANS</b> \u2028", COFFEE, 0.5, 0.5)


@pytest.fixture
def log(tmp_path):
    with open_log(tmp_path / "decisions.jsonl", LEVELS, who="Ana") as log:
        yield log


def lines(place):
    return [(line["text"], line["module"]) for line in map(json.loads, place.read_bytes().splitlines())]


def test_what_holds_is_added_once_and_what_is_undone_or_decided_again_leaves(log, tmp_path):
    place = tmp_path / "corrections.jsonl"
    place.write_text('{"text": "BY HAND", "module": "Tea"}')  # without the end of its line
    first = log.decide([HOUSE, OTHER], TEA)
    assert unsaved(log, LEVELS, place) == 2
    assert save_corrections(log, LEVELS, place)[1:] == (2, 0)
    assert save_corrections(log, LEVELS, place)[1:] == (0, 0) and unsaved(log, LEVELS, place) == 0
    assert lines(place) == [("BY HAND", "Tea"), (HOUSE.text, "Tea"), (OTHER.text, "Tea")]
    log.decide([OTHER], GREEN)
    log.decide([HOUSE], None)
    assert save_corrections(log, LEVELS, place)[1:] == (1, 2)
    assert lines(place) == [("BY HAND", "Tea"), (OTHER.text, "Green Tea")]
    for decision in reversed(log.valid):
        log.undo(decision.number)
    assert first not in log.valid
    save_corrections(log, LEVELS, place)
    assert lines(place) == [("BY HAND", "Tea")]


def test_a_file_that_git_took_back_is_made_again_and_an_edited_line_stays(log, tmp_path):
    place = tmp_path / "corrections.jsonl"
    log.decide([HOUSE], TEA)
    log.decide([OTHER], TEA)
    save_corrections(log, LEVELS, place)
    whole = place.read_bytes()
    place.write_bytes(whole.splitlines(keepends=True)[1])
    assert save_corrections(log, LEVELS, place).added == 1
    assert sorted(place.read_bytes().splitlines()) == sorted(whole.splitlines())
    place.write_bytes(whole.replace(b'"module": "Tea"', b'"module": "Green Tea"'))
    assert save_corrections(log, LEVELS, place)[1:] == (0, 0)


STEPS = st.lists(st.tuples(st.sampled_from([HOUSE, OTHER]), st.sampled_from([TEA, GREEN, None, "undo", "save"])))


@settings(max_examples=50)
@given(STEPS)
def test_however_often_it_is_saved_the_file_has_what_holds(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("log")
    place = folder / "corrections.jsonl"
    start = datetime(2026, 3, 1, tzinfo=UTC)
    times = (start + timedelta(milliseconds=step) for step in range(1000))
    with open_log(folder / "log.jsonl", LEVELS, now=lambda: next(times)) as log:
        for row, step in steps:
            if step == "save":
                save_corrections(log, LEVELS, place)
            elif step == "undo":
                _ = log.valid and log.undo(log.valid[-1].number)
            else:
                log.decide([row], step)
        save_corrections(log, LEVELS, place)
    expected = corrections(read_decisions(folder / "log.jsonl", LEVELS), LEVELS)
    found = lines(place) if place.exists() else []
    assert sorted(found) == sorted(zip(expected["text"], expected["module"], strict=True))


def test_two_people_who_add_lines_have_no_conflict(tmp_path):
    def git(*words):
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    place = tmp_path / "data/corrections.jsonl"
    place.parent.mkdir()
    place.write_text("\n")  # as the project ships it
    (tmp_path / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    git("init", "-b", "main")
    git("add", "-A")
    git("commit", "-m", "start")
    for who, path in (("Ana", TEA), ("Ben", GREEN)):
        git("checkout", "-b", who, "main")
        with open_log(tmp_path / f"data/{who}.jsonl", LEVELS, who=who) as log:
            log.decide([HOUSE], path)
            save_corrections(log, LEVELS, place)
        git("add", "-A")
        git("commit", "-m", who)
    git("merge", "Ana")
    assert sorted(lines(place)) == [(HOUSE.text, "Green Tea"), (HOUSE.text, "Tea")]
    tracked = subprocess.run(["git", "ls-files"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert tracked.split() == [".gitattributes", ".gitignore", "data/corrections.jsonl"], "logs stay on the machine"


def test_only_json_lines_are_written(tmp_path):
    assert file_for(tmp_path) == tmp_path / "review.jsonl"
    with pytest.raises(InputError, match=r"writes JSON Lines, not \.csv; put the file into a folder"):
        file_for(tmp_path / "fixes.csv")
