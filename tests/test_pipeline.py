"""The whole pipeline, small, through DVC: what runs, what does not run again, and what survives a kill."""

import json
import shutil
import sys

import pandas as pd
import pytest
from project import Project, kill_when, stages_run

from openai_server import KEY, LocalOpenAI
from tillmap.core.taxonomy import LEVELS
from tillmap.postprocessing.repairing import HAVE_LINEAR


@pytest.fixture
def undo(project):
    """Put the project back to its first run after a test that changes it."""
    yield
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")


def test_every_stage_runs_and_every_row_is_predicted(project):
    assert set(stages_run(project.first)) >= {"catalogue", "ingest", "stratify", "index", "retrieve", "prompts@rag",
                                              "base_model@rag", "infer@nearest", "infer@rag", "prompts@llama",
                                              "base_model@llama", "train_llama", "infer@llama", "evaluate"}  # fmt: skip
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet")
    tree = pd.read_parquet(project.folder / "data/split/tree.parquet")
    labelled = rows[rows["split"] == "train"]  # linear is refitted on all of them, and vote may follow it
    known, refitted = (set(table[list(LEVELS)].itertuples(index=False, name=None)) for table in (tree, labelled))
    for arm in ("nearest", "linear", "rag", "llama", "vote"):
        answers = [json.loads(line) for line in (project.folder / f"data/completions/{arm}.jsonl").open()]
        predictions = pd.read_parquet(project.folder / f"data/predictions/{arm}.parquet")
        keys = [(answer["split"], answer["id"]) for answer in answers]
        assert keys == list(predictions[["split", "id"]].itertuples(index=False, name=None))
        assert len(set(keys)) == len(keys)
        test = [key for key in keys if key[0] == "test"]
        assert test == [("test", number) for number in rows.loc[rows["split"] == "test", "id"]]
        answered = set(predictions[list(LEVELS)].itertuples(index=False, name=None))
        assert answered <= (refitted if arm in HAVE_LINEAR else known)
        assert predictions["in_tree"].all()


def test_metrics_agree_with_a_scorer_of_its_own(project):
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet").query("split == 'test'")
    truth = {row.id: tuple(getattr(row, level) for level in LEVELS) for row in rows.itertuples()}
    metrics = project.read_json("metrics/evaluate.json")
    for arm in ("nearest", "linear", "rag", "llama", "vote"):
        predictions = pd.read_parquet(project.folder / f"data/predictions/{arm}.parquet").query("split == 'test'")
        right = [tuple(getattr(row, level) for level in LEVELS) == truth[row.id] for row in predictions.itertuples()]
        assert metrics[arm]["item_accuracy"] == pytest.approx(sum(right) / len(truth))
    recall = project.read_json("metrics/scores.json")["scores"]["recall"]
    assert set(recall) == {"dense", "lexical", "hybrid"}
    assert all(set(found) == {"at_1", "at_5", "at_10", "at_20"} for found in recall.values())
    assert "nearest" in (project.folder / "plots/table.txt").read_text()


def test_plots_are_pictures(project):
    pictures = list((project.folder / "plots").glob("*.png"))
    assert {"arms.png", "recall.png"} <= {picture.name for picture in pictures}
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.with_suffix(".csv").is_file()


def test_experiments_can_be_compared_by_dvc_without_a_network(project):
    drawn = json.loads(project.dvc("plots", "diff", "HEAD", "--json"))
    assert {"plots/arms.csv", "plots/coverage.csv", "plots/recall.csv"} <= set(drawn["data"])
    assert not drawn.get("errors")
    for pictures in drawn["data"].values():
        for picture in pictures:
            assert len(picture["content"]["data"]["values"]) > 1
    scores = project.read_json("metrics/scores.json")["scores"]["arms"]
    for arm in ("nearest", "linear"):
        assert 0 <= scores[arm]["confidence"]["ece"] <= 1
        assert set(scores[arm]["confidence"]) == {"ece", "at_80", "at_90", "at_95"}
        assert scores[arm]["without_catch_all"]["rows"] < scores[arm]["rows"]
    repaired = scores["rag"]["repair"]
    assert repaired["without"] + repaired["gained"] == pytest.approx(scores["rag"]["item_accuracy"], abs=1e-5)


def test_a_second_repro_does_nothing(project):
    assert stages_run(project.dvc("repro")) == []


@pytest.mark.usefixtures("undo")
def test_a_changed_param_reruns_just_what_depends_on_it(project):
    project.set_params({"evaluate": {"resamples": 101}})
    assert stages_run(project.dvc("repro")) == ["evaluate"]
    project.set_params({"nearest": {"k": 1}})
    rerun = stages_run(project.dvc("repro"))
    assert "infer@nearest" in rerun
    assert not {"index", "retrieve", "prompts@rag", "infer@rag", "base_model@rag", "train_llama"} & set(rerun)


@pytest.mark.usefixtures("undo")
def test_an_arm_is_switched_by_one_set_param(project):
    output = project.dvc("exp", "run", "--set-param", "run.rag=false")
    assert {"infer@rag", "evaluate"} <= set(stages_run(output))
    assert "infer@nearest" not in stages_run(output)
    assert "rag" not in project.read_json("metrics/evaluate.json")
    assert json.loads((project.folder / "data/completions/rag.jsonl").read_text())["status"] == "off"
    back = project.dvc("exp", "run", "--set-param", "run.rag=true")
    assert "infer@rag" not in stages_run(back), "the run cache should have brought the arm back"
    assert "rag" in project.read_json("metrics/evaluate.json")


@pytest.mark.usefixtures("undo")
def test_a_changed_source_is_noticed(project, tmp_path):
    shutil.copytree(project.folder / "data/demo", tmp_path / "shop")
    project.set_params({"data": {"source": str(tmp_path / "shop")}, "run": {"rag": False, "llama": False}})
    assert "ingest" in stages_run(project.dvc("repro", "ingest"))
    assert stages_run(project.dvc("repro", "ingest")) == []
    features = tmp_path / "shop" / "test.features"
    features.write_text(features.read_text().replace('"description": "', '"description": "x', 1))
    assert stages_run(project.dvc("repro", "ingest")) == ["ingest"]


@pytest.mark.usefixtures("undo")
def test_without_test_labels_the_report_part_is_scored(project, tmp_path):
    shutil.copytree(project.folder / "data/demo", tmp_path / "shop")
    (tmp_path / "shop" / "test.labels").unlink()
    off = dict.fromkeys(("linear", "rag", "llama", "vote"), False)
    project.set_params({"data": {"source": str(tmp_path / "shop")}, "run": off})
    project.dvc("repro")
    metrics = project.read_json("metrics/evaluate.json")
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet")
    assert (metrics["evaluate"]["scored"], metrics["evaluate"]["rows"]) == (
        "holdout",
        (rows["subset"] == "holdout").sum(),
    )
    predictions = pd.read_parquet(project.folder / "data/predictions/nearest.parquet")
    assert (predictions["split"] == "test").sum() == 40


@pytest.mark.usefixtures("undo")
def test_all_arms_off_is_one_line(project):
    project.set_params({"run": dict.fromkeys(("rag", "nearest", "linear", "llama", "vote"), False)})
    output = project.dvc("repro", "--single-item", "evaluate", ok=False)
    assert "every arm is off" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("undo")
def test_a_missing_source_says_what_to_set(project):
    project.set_params({"data": {"source": "nowhere/shop"}})
    output = project.dvc("repro", ok=False)
    assert "nowhere/shop: there is no such folder; set `data.source`" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("undo")
def test_bad_input_stops_with_one_line_and_no_traceback(project, tmp_path):
    shutil.copytree(project.folder / "data/demo", tmp_path / "shop")
    with (tmp_path / "shop" / "test.features").open("a") as file:
        file.write("{not json\n")
    project.set_params({"data": {"source": str(tmp_path / "shop")}})
    output = project.dvc("repro", "ingest", ok=False)
    assert "test.features:41" in output
    assert "quarantine" in output
    assert "Traceback" not in output
    project.set_params({"data": {"on_bad_row": "quarantine"}})
    project.dvc("repro", "ingest")
    assert project.read_json("metrics/ingest.json")["ingest"]["quarantined"] == 1


def test_killed_in_infer_it_resumes_to_the_same_bytes(project, tmp_path):
    """`kill -9` after the first batch; the resumed answers equal those of the unbroken first run."""
    target = project.folder / "data/completions/rag.jsonl"
    unbroken = target.read_bytes()
    target.unlink()
    broken = Project(project.folder, tmp_path / "state")
    command = [sys.executable, "stages/infer.py", "rag"]
    journal = tmp_path / "state" / "infer"

    def answered():
        return any(file.stat().st_size for file in journal.glob("*/*.jsonl"))

    kill_when(answered, command, cwd=broken.folder, env=broken.env)
    assert not target.exists()
    (file,) = journal.glob("*/*.jsonl")
    batches = file.read_bytes().count(b"\n")
    output = broken.run(*command)
    assert f"rag: {batches} of 6 batches are there" in output
    assert target.read_bytes() == unbroken


def test_killed_in_training_it_resumes_to_the_same_bytes(project, tmp_path):
    """`kill -9` after the first checkpoint; steps, tokens, losses and adapter equal those of the unbroken first run."""
    model = project.folder / "models/llama"
    unbroken = {file.name: file.read_bytes() for file in model.iterdir()}
    shutil.rmtree(model)
    broken = Project(project.folder, tmp_path / "state")
    command = [sys.executable, "stages/train_llama.py"]
    before = project.read_json("metrics/train_llama.json")["train_llama"]

    def checkpointed():
        return any((tmp_path / "state").glob("train/*/*/checkpoint-*/progress.json"))

    kill_when(checkpointed, command, cwd=broken.folder, env=broken.env)
    assert not model.exists()
    output = broken.run(*command)
    assert "going on from step" in output
    assert {file.name: file.read_bytes() for file in model.iterdir()} == unbroken
    after = project.read_json("metrics/train_llama.json")["train_llama"]
    same = ("steps", "tokens", "padding_share", "flops", "first_loss", "last_loss", "recipe")
    assert [after[name] for name in same] == [before[name] for name in same]
    assert before["steps"] == 6
    assert "shown (" in project.first
    assert "learned (" in project.first
    again = broken.run(*command)
    assert "going on from step 6" in again, "a finished training is not repeated"
    assert {file.name: file.read_bytes() for file in model.iterdir()} == unbroken


@pytest.mark.usefixtures("undo")
def test_the_openai_arm_from_tuning_to_the_bill_without_leaking_its_key(project):
    """Against a local server: every row answered, every row and the tuning billed once, the key in no file or log."""
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet")
    labels = {row.description: f"{row.module} | {row.brand}" for row in rows.itertuples()}

    def answer(body):
        return labels.get(body["messages"][-1]["content"].split(" | ")[0], "no idea")

    off = {"nearest": True, "rag": False, "llama": False}
    with LocalOpenAI(answer) as service:
        project.set_params(
            {
                "run": off | {"openai": True},
                "openai": {"held_out_rows": 2, "sample_rows": 30},
                "provider": {"base_url": service.base_url, "poll_seconds": 0.01, "settle_seconds": 0.1, "requests": 20},
            }
        )
        before = project.dvc("repro", ok=False)
        assert "OPENAI_API_KEY" in before
        assert "Traceback" not in before
        assert not service.jobs
        project.env["OPENAI_API_KEY"] = KEY
        try:
            output = project.dvc("repro")
            assert stages_run(project.dvc("repro")) == []
        finally:
            del project.env["OPENAI_API_KEY"]
        assert len(service.jobs) == 1
        assert len(service.batches) == 3
        assert set(service.billed.values()) == {1}
        assert not service.violations
    predictions = pd.read_parquet(project.folder / "data/predictions/openai.parquet")
    assert len(predictions) == 42
    assert project.read_json("metrics/evaluate.json")["openai"]["item_accuracy"] > 0.5
    costs = project.read_json("metrics/costs.json")["costs"]
    assert set(costs) == {"nearest", "linear", "openai", "vote"}
    job = project.read_json("models/openai/job.json")
    assert costs["openai"]["trained_tokens"] == job["trained_tokens"] > 0
    assert costs["openai"]["usd"] == pytest.approx(
        costs["openai"]["training_usd"] + costs["openai"]["inference_usd"], abs=0.011
    )
    written = [file for root in (project.folder, project.folder.parent / "state") for file in root.rglob("*")]
    files = [file for file in written if file.is_file() and ".git/" not in str(file)]
    assert KEY not in before + output
    assert not [file for file in files if KEY.encode() in file.read_bytes() and file.name != "openai_server.py"]


def test_prompts_made_here_are_answered_elsewhere(project, tmp_path):
    """`dvc push` after `prompts`; a second clone pulls, and runs `infer` alone."""
    remote = tmp_path / "remote"
    project.dvc("remote", "add", "--local", "--force", "--default", "storage", str(remote))
    project.dvc("push", "prompts@rag", "base_model@rag", "index", "retrieve", "stratify")
    project.run("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", tmp_path / "state")
    clone.dvc("remote", "add", "--local", "--default", "storage", str(remote))
    clone.dvc("pull", "prompts@rag", "base_model@rag")
    clone.dvc("repro", "--force", "--single-item", "infer@rag")
    name = "data/completions/rag.jsonl"
    assert (clone.folder / name).read_bytes() == (project.folder / name).read_bytes()
