"""A brand that no training row has, read off the line: in the pipeline, in new rows, in a submission, in the report."""

import json
import re
import zipfile
from contextlib import chdir

import pandas as pd
import pytest
from trained import answer_freely, evaluate_freely, set_params

from brand_shop import LEVELS, brand_rows
from command import commands_in
from stages import stratify
from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import read_table, write_json, write_table
from tillmap.core.taxonomy import LabelTree


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The folder of a shop's project, and its 150 test rows."""
    folder = tmp_path_factory.mktemp("brands")
    rows = brand_rows().assign(split=["train"] * 450 + ["test"] * 150)
    changes = {
        "run": {"rag": False, "llama": False, "pilot_rows": None, "vote": False},
        "taxonomy": {"levels": list(LEVELS), "brand": LEVELS.brand},
        "linear": {"epochs": 2, "price": False, "retailer": False},
        "rerank": {"read_brand": True, "folds": 2, "trees": 20, "candidates": 30},
        "split": {"calibration_rows": 60},
        "evaluate": {"resamples": 100},
    }
    set_params(folder, changes)
    with chdir(folder):
        params = read_params(paths.PARAMS, schema())
        write_table(rows, paths.RAW / "rows.parquet")
        write_json({"levels": list(LEVELS), "brand": LEVELS.brand}, paths.RAW / "levels.json")
        stratify.main(params)
        answer_freely(params)
        evaluate_freely(params)
    return folder, rows.tail(150)


@pytest.fixture
def tillmap(project, tmp_path, monkeypatch, capsys):
    """Runs a command in the project: gives its exit code and all it said."""
    return commands_in(project[0], tmp_path / "state", monkeypatch, capsys)


@pytest.fixture(scope="module")
def read(project):
    """The pipeline's answers of the test rows with a brand that was read."""
    answers = pd.read_parquet(project[0] / "data/predictions/rerank.parquet").query("split == 'test'")
    return answers[answers["repair"] == "new_brand"]


def test_the_pipeline_marks_them_and_most_are_right(project, read):
    folder, rows = project
    with chdir(folder):
        training = LabelTree.from_table(read_table(paths.TREE))
    assert len(read) > 20 and not read["in_tree"].any()
    assert not set(read["brand"]) & {path[-1] for path in training}
    assert (read["brand"] == rows.set_index("id")["brand"].loc[read["id"]].to_numpy()).mean() > 0.7


def test_predict_writes_them(project, read, tillmap, tmp_path):
    new, out = tmp_path / "new.csv", tmp_path / "out.csv"
    project[1][["id", "description", "retailer", "price"]].to_csv(new, index=False)
    names = ["--id", "id", "--text", "description", "--retailer", "retailer", "--price", "price"]
    code, said = tillmap("predict", new, "--arm", "rerank", "--out", out, *names)
    assert code == 0, said
    got = pd.read_csv(out)
    got = got[got["repair"] == "new_brand"]
    assert dict(zip(got["id"], got["brand"], strict=True)) == dict(zip(read["id"], read["brand"], strict=True))
    assert not got["in_tree"].any()


def test_a_submission_holds_them(project, read, tillmap, tmp_path):
    zipped = tmp_path / "us.zip"
    code, said = tillmap("submit", "--arm", "rerank", "--name", "us", "--out", zipped, "--unseen")
    assert code == 0, said
    with zipfile.ZipFile(zipped) as archive:
        lines = [json.loads(line) for line in archive.read("test_us.predict").decode().splitlines()]
    written = {next(iter(line.values())): line["brand"] for line in lines}
    assert len(lines) == len(project[1])
    assert {key: written[key] for key in read["id"]} == dict(zip(read["id"], read["brand"], strict=True))
    code, said = tillmap("submit", "--arm", "rerank", "--name", "us", "--out", tmp_path / "other.zip")
    assert code == 1 and "--unseen" in said and not (tmp_path / "other.zip").exists()


def test_the_report_shows_the_mark(project, read):
    html = (project[0] / "report/index.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', html)[1])["rows"]
    shown = {
        row["id"]: data["paths"][row["answers"]["rerank"]["path"]]
        for row in data["rows"]
        if row["split"] == "test" and row["answers"]["rerank"]["repair"] == "new_brand"
    }
    assert shown == {str(key): [group, brand] for key, group, brand in read[["id", "group", "brand"]].to_numpy()}
