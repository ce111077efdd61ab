"""`tillmap predict --explain`: what the files hold, with and without the labelled rows, and after a kill."""

import json
import shutil
from contextlib import chdir

import pandas as pd
import pytest
from trained import make_trained
from typer.testing import CliRunner

from tillmap import cli
from tillmap.config import paths
from tillmap.serving import batch


@pytest.fixture
def folder(tmp_path):
    rows = make_trained(tmp_path / "project")
    asked = rows[rows["split"] == "test"].head(8)[["id", "description", "retailer", "price"]]
    asked.rename(columns={"id": "indoml_id"}).to_csv(tmp_path / "new.csv", index=False)
    return tmp_path / "project"


def predict(folder, out, *more):
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILLMAP_STATE", str(folder.parent / "state"))
        words = ["predict", str(folder.parent / "new.csv"), "--arm", "linear", "--out", str(folder.parent / out), *more]
        done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    return folder.parent / out


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_has_its_candidates_neighbours_and_words(folder):
    rows = read(predict(folder, "out.jsonl", "--explain", "4"))
    levels = ("supergroup", "group", "module", "brand")
    for row in rows:
        assert row["candidates"][0]["path"] == [row[level] for level in levels]
        assert 1 <= len(row["candidates"]) <= 4 and len(row["neighbours"]) <= 4 and 1 <= len(row["words"]) <= 4
        adds = [word["adds"] for word in row["words"]]
        assert adds == sorted(adds, reverse=True) and min(adds) > 0
    plain = read(predict(folder, "plain.jsonl"))
    assert [{name: row[name] for name in plain[0]} for row in rows] == plain
    table = pd.read_parquet(predict(folder, "out.parquet", "--explain", "4"))
    assert [[dict(word) for word in words] for words in table["words"]] == [row["words"] for row in rows]


def test_without_the_labelled_rows_there_are_no_neighbours_and_a_line_says_why(folder, caplog):
    shutil.rmtree(folder / paths.INDEX)
    rows = read(predict(folder, "out.jsonl", "--explain", "2"))
    assert all(row["neighbours"] == [] and row["candidates"] and row["words"] for row in rows)
    [said] = [record.message for record in caplog.records if "nearest rows" in record.message]
    assert said.endswith("`dvc pull data/index` fetches it")


def test_a_run_that_was_killed_goes_on_with_its_own_explanations(folder, monkeypatch):
    monkeypatch.setattr("tillmap.serving.labeller._FREE_ARM_ROWS", 4)
    whole = predict(folder, "whole.jsonl", "--explain", "3").read_bytes()
    assert whole == predict(folder, "once.jsonl", "--explain", "3").read_bytes()
    write = batch.write_answers
    monkeypatch.setattr(batch, "write_answers", lambda *_, **__: 1 / 0)  # after both batches, before the file
    with pytest.raises(AssertionError):
        predict(folder, "killed.jsonl", "--explain", "3")
    monkeypatch.setattr(batch, "write_answers", write)
    assert "candidates" not in read(predict(folder, "plain.jsonl"))[0], "the saved batches are another run's"
    assert predict(folder, "killed.jsonl", "--explain", "3").read_bytes() == whole


def test_a_number_out_of_range_is_refused():
    done = CliRunner().invoke(cli.app, ["predict", "new.csv", "--arm", "linear", "--out", "o.csv", "--explain", "11"])
    assert done.exit_code == 2 and "less than or equal to 10" in done.output
