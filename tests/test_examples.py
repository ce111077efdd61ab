"""The pipeline on the files in examples/, set up by `tillmap init` alone."""

from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest
from trained import answer_freely, evaluate_freely, read_lines, set_params
from typer.testing import CliRunner

from stages import ingest, lookup, prompts, stratify
from tillmap.arms import schema
from tillmap.cli import app
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import read_json, read_table
from tillmap.core.taxonomy import LabelTree

EXAMPLES = Path(__file__).parent.parent / "examples"
SOURCES = {"till": EXAMPLES / "till", "feed": EXAMPLES / "feed" / "feed.csv", "contest": EXAMPLES / "contest"}


@pytest.fixture(scope="module", params=SOURCES)
def made(request, tmp_path_factory):
    """A folder with the outputs of all stages, and the name of the example."""
    folder = tmp_path_factory.mktemp(request.param)
    off = {"llama": False, "pilot_rows": None}
    set_params(folder, {"run": off, "evaluate": {"resamples": 100}, "split": {"calibration_rows": 40}})
    with chdir(folder):
        said = CliRunner().invoke(app, ["init", str(SOURCES[request.param])], catch_exceptions=False)
        assert said.exit_code == 0, said.output
        params = read_params(paths.PARAMS, schema())
        ingest.main(params)
        stratify.main(params)
        lookup.main(params)
        answer_freely(params)
        prompts.main(params, "rag")
        set_params(folder, {"run": {"rag": False}})
        evaluate_freely(read_params(paths.PARAMS, schema()))
    return folder, request.param


def test_every_test_row_is_answered_and_most_are_right(made):
    folder, name = made
    with chdir(folder):
        rows = read_table(paths.ROWS)
        test = rows[rows["split"] == "test"]
        assert len(test) >= (60 if name == "contest" else 30)
        answers = read_table(paths.PREDICTIONS / "linear.parquet").query("split == 'test'")
        assert sorted(answers["id"]) == sorted(test["id"])
        scores = read_json(paths.METRICS / "scores.json")["scores"]
        assert scores["arms"]["linear"]["item_accuracy"] > 0.6
        listed, ranked = scores["recall"]["paths"], scores["recall"]["rerank"]
        assert listed["at_5"] == ranked["at_5"] and listed["at_10"] >= ranked["at_10"], "then the neighbours' paths"


def test_the_tree_has_the_names_of_the_taxonomy_file(made):
    folder, name = made
    with chdir(folder):
        tree = LabelTree.from_table(read_table(paths.TREE))
    if name == "till":
        cheese = ("Food and non-alcoholic beverages", "Food", "Milk, cheese and eggs", "Yoghurt and cheese", "Cheese")
        assert tree.code_of(cheese) == "01.1.4.3.3"
        syrup = next(path for path in tree if "Syrup" in path)
        assert tree.rows_of(syrup) == 0  # only the taxonomy file has it
        assert "concentrates" in tree.definition_of(syrup)
    if name == "feed":
        assert ("Animals & Pet Supplies", "", "", "", "") in tree
        assert tree.levels.brand is None
    if name == "contest":
        assert tree.levels.brand == "brand"


def test_a_prompt_shows_labels_by_name_and_their_definitions(made):
    folder, name = made
    questions = read_lines(folder / paths.PROMPTS / "rag" / "questions.jsonl")
    shown = "\n".join(message["content"] for question in questions for message in question["messages"])
    assert {"till": "Bread and rolls", "feed": "Coffee", "contest": "green tea |"}[name] in shown


def test_new_lines_get_the_users_own_codes(made):
    folder, name = made
    if name != "till":
        pytest.skip("only this example has codes")
    lines = (EXAMPLES / "till" / "lines.csv").read_text(encoding="utf-8-sig").splitlines()[:6]
    (folder / "new.csv").write_text("\n".join(line.rsplit(";", 1)[0] for line in lines), encoding="utf-8")
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILLMAP_STATE", str(folder / "state"))
        done = CliRunner().invoke(app, ["predict", "new.csv", "--arm", "linear", "--out", "out.csv"])
        assert done.exit_code == 0, done.output
    written = pd.read_csv(folder / "out.csv", dtype="str", keep_default_na=False)
    assert written["Ligne"].tolist() == ["1", "2", "3", "4", "5"]
    expected = [line.rsplit(";", 1)[1] for line in lines[1:]]
    assert sum(a == b for a, b in zip(written["code"], expected, strict=True)) >= 4
