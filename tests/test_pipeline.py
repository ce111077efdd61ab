"""The whole pipeline, small, through DVC: what runs, what does not run again, and what survives a kill."""

import json
import shutil
import sys
from collections import Counter

import pandas as pd
import pytest
from dvc.repo import Repo
from project import Project, kill_when, stages_run

from openai_server import KEY
from tillmap.core.taxonomy import CONTEST

ARMS = ("nearest", "linear", "rerank", "rag", "llama", "openai", "vote")


@pytest.fixture
def undo(project):
    """Put the project back to its first run after a test that changes it."""
    yield
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout", "--force")


@pytest.fixture
def copy(project, tmp_path):
    """A copy of the project after its first run, for tests that run its stages without DVC."""
    left_out = shutil.ignore_patterns(".dvc", ".git", "base", "plots")
    copied = Project(tmp_path / "project", tmp_path / "state")
    shutil.copytree(project.folder, copied.folder, ignore=left_out)
    return copied


@pytest.fixture
def shop(project, tmp_path):
    """The demo's files as those of a user."""
    return shutil.copytree(project.folder / "data/demo", tmp_path / "shop")


def test_every_stage_runs_and_every_row_is_predicted(project):
    with Repo(str(project.folder)) as repo:
        assert sorted(stages_run(project.first)) == sorted(stage.name for stage in repo.index.stages)
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet")
    tree = pd.read_parquet(project.folder / "data/split/tree.parquet")
    labelled = rows[rows["split"] == "train"]  # linear is refitted on all of them, and vote may follow it
    known, refitted = (set(table[list(CONTEST)].itertuples(index=False, name=None)) for table in (tree, labelled))
    for arm in ARMS:
        completions = "predictions/vote" if arm == "vote" else f"completions/{arm}"
        answers = [json.loads(line) for line in (project.folder / f"data/{completions}.jsonl").open()]
        predictions = pd.read_parquet(project.folder / f"data/predictions/{arm}.parquet")
        keys = [(answer["split"], answer["id"]) for answer in answers]
        assert keys == list(predictions[["split", "id"]].itertuples(index=False, name=None))
        assert len(set(keys)) == len(keys)
        test = [key for key in keys if key[0] == "test"]
        assert test == [("test", number) for number in rows.loc[rows["split"] == "test", "id"]]
        answered = list(predictions[list(CONTEST)].itertuples(index=False, name=None))
        # rerank may pair a known chain with a known brand. rag and openai may answer so, and the vote may follow them.
        if arm in ("rerank", "rag", "openai", "vote"):
            assert {path[:3] for path in answered} <= {path[:3] for path in refitted}
            assert {path[3] for path in answered} <= {path[3] for path in refitted}
        else:
            assert set(answered) <= (refitted if arm == "linear" else known)
            assert predictions["in_tree"].all()
        if arm == "rerank":
            assert predictions["in_tree"].tolist() == [path in refitted for path in answered]


def test_metrics_agree_with_a_scorer_of_its_own(project):
    rows = pd.read_parquet(project.folder / "data/split/rows.parquet").query("split == 'test'")
    truth = {row.id: tuple(getattr(row, level) for level in CONTEST) for row in rows.itertuples()}
    metrics = project.read_json("metrics/evaluate.json")
    for arm in ARMS:
        predictions = pd.read_parquet(project.folder / f"data/predictions/{arm}.parquet").query("split == 'test'")
        right = [tuple(getattr(row, level) for level in CONTEST) == truth[row.id] for row in predictions.itertuples()]
        assert metrics[arm]["item_accuracy"] == pytest.approx(sum(right) / len(truth))
    recall = project.read_json("metrics/scores.json")["scores"]["recall"]
    assert set(recall) > {"dense", "lexical", "hybrid", "linear"}
    depths = {"at_1", "at_5", "at_10", "at_20"}
    assert all(set(recall[name]) == depths | {"levels"} for name in ("dense", "lexical", "hybrid"))
    assert set(recall["linear"]) == depths - {"at_20"} | {"levels"}  # it keeps 10 candidates
    assert set(recall["linear"]["levels"]) == set(CONTEST)
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
    repaired = scores["openai"]["repair"]  # whose answers are free
    assert repaired["without"] + repaired["gained"] == pytest.approx(scores["openai"]["item_accuracy"], abs=1e-5)


# What runs again


@pytest.mark.usefixtures("undo")
def test_only_what_a_change_concerns_runs_again(project):
    assert stages_run(project.dvc("repro")) == []
    project.set_params({"evaluate": {"resamples": 101}})
    assert stages_run(project.dvc("repro", "--dry")) == ["evaluate"]
    project.set_params({"nearest": {"k": 1}})
    rerun = stages_run(project.dvc("repro", "--dry"))
    assert "infer@nearest" in rerun
    assert not {"index", "retrieve", "prompts@rag", "infer@rag", "base_model@rag", "train_llama"} & set(rerun)


def test_of_edited_code_dvc_knows_which_stages_use_it(project):
    """tests/test_stages.py has the whole table; here is one row of it as DVC sees it."""
    path = project.folder / "src/tillmap/arms/linear.py"
    code = path.read_text()
    path.write_text(code + "# edited\n")
    try:
        changed = json.loads(project.dvc("status", "--json"))
    finally:
        path.write_text(code)
    assert set(changed) == {"train_linear", "infer@linear", "infer@rerank", "cascade"}


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
def test_a_changed_source_is_noticed(project, shop):
    project.set_params({"data": {"source": str(shop)}, "run": {"rag": False, "llama": False}})
    assert "ingest" in stages_run(project.dvc("repro", "ingest"))
    assert stages_run(project.dvc("repro", "ingest", "--dry")) == []
    features = shop / "test.features"
    features.write_text(features.read_text().replace('"description": "', '"description": "x', 1))
    assert stages_run(project.dvc("repro", "ingest", "--dry")) == ["ingest"]


# Other input, and mistakes


def test_without_test_labels_the_holdout_subset_is_scored(copy, shop):
    (shop / "test.labels").unlink()
    off = dict.fromkeys(("linear", "rag", "llama", "openai", "vote"), False)
    copy.set_params({"data": {"source": str(shop)}, "run": off})
    copy.stages("ingest", "stratify", "infer nearest", "postprocess", "cascade", "evaluate")  # the index is the same
    metrics = copy.read_json("metrics/evaluate.json")["evaluate"]
    rows = pd.read_parquet(copy.folder / "data/split/rows.parquet")
    assert (metrics["scored"], metrics["rows"]) == ("holdout", (rows["subset"] == "holdout").sum())
    predictions = pd.read_parquet(copy.folder / "data/predictions/nearest.parquet")
    assert (predictions["split"] == "test").sum() == 40


def test_all_arms_off_is_one_line(copy):
    copy.set_params({"run": dict.fromkeys(ARMS, False)})
    output = copy.stages("evaluate", ok=False)
    assert "every arm is off" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("undo")
def test_a_missing_source_says_what_to_set(project):
    project.set_params({"data": {"source": "nowhere/shop"}})
    output = project.dvc("repro", ok=False)
    assert "nowhere/shop: there is no such folder or file; set `data.source`" in output
    assert "Traceback" not in output


def test_bad_input_stops_with_one_line_and_no_traceback(copy, shop):
    with (shop / "test.features").open("a") as file:
        file.write("{not json\n")
    copy.set_params({"data": {"source": str(shop)}})
    output = copy.stages("ingest", ok=False)
    assert "test.features:41" in output
    assert "quarantine" in output
    assert "Traceback" not in output
    copy.set_params({"data": {"on_bad_row": "quarantine"}})
    copy.stages("ingest")
    assert copy.read_json("metrics/ingest.json")["ingest"]["quarantined"] == 1


# Kills


@pytest.mark.parametrize("arm", ["llama", pytest.param("rag", marks=pytest.mark.slow)])
def test_killed_in_infer_it_resumes_to_the_same_bytes(project, tmp_path, arm):
    """`kill -9` after the first batch; the resumed answers equal those of the unbroken first run."""
    target = project.folder / f"data/completions/{arm}.jsonl"
    unbroken = target.read_bytes()
    target.unlink()
    broken = Project(project.folder, tmp_path / "state")
    command = [sys.executable, "-m", "stages.infer", arm]
    logs = tmp_path / "state" / "infer"

    def answered():
        return any(b"\n" in file.read_bytes() for file in logs.glob("*/*.jsonl"))

    kill_when(answered, command, cwd=broken.folder, env=broken.env)
    assert not target.exists()
    (file,) = logs.glob("*/*.jsonl")
    batches = [json.loads(line) for line in file.read_text().split("\n")[:-1]]  # the last may be cut short
    kept = sum(len(batch["records"]) for batch in batches)
    output = broken.run(*command)
    assert f"{arm}: {kept} of 42 rows were answered before" in output
    assert target.read_bytes() == unbroken


@pytest.mark.slow
def test_killed_in_training_it_resumes_to_the_same_bytes(project, tmp_path):
    """`kill -9` after the first checkpoint; steps, tokens, losses and adapter equal those of the unbroken first run."""
    model, curve = project.folder / "models/llama", project.folder / "data/curves/llama.csv"
    unbroken, whole_curve = {file.name: file.read_bytes() for file in model.iterdir()}, curve.read_text()
    assert len(whole_curve.splitlines()) == 1 + 6, "a header, and a line for each step"
    shutil.rmtree(model)
    curve.unlink()  # as DVC does before a stage runs
    broken = Project(project.folder, tmp_path / "state")
    command = [sys.executable, "-m", "stages.train", "llama"]
    before = project.read_json("metrics/train_llama.json")["train_llama"]

    def checkpointed():
        return any((tmp_path / "state").glob("train/*/*/checkpoint-*/progress.json"))

    kill_when(checkpointed, command, cwd=broken.folder, env=broken.env)
    assert not model.exists()
    assert whole_curve.startswith(curve.read_text()), "it grows while training runs"
    curve.unlink()
    output = broken.run(*command)
    assert "train: resuming at step" in output
    assert curve.read_text() == whole_curve
    assert {file.name: file.read_bytes() for file in model.iterdir()} == unbroken
    after = project.read_json("metrics/train_llama.json")["train_llama"]
    same = ("steps", "tokens", "padding_share", "flops", "first_loss", "last_loss", "recipe")
    assert [after[name] for name in same] == [before[name] for name in same]
    again = broken.run(*command)
    assert "train: resuming at step 6" in again, "a finished training is not repeated"
    assert {file.name: file.read_bytes() for file in model.iterdir()} == unbroken


def test_training_says_what_the_loss_sees(project):
    assert project.read_json("metrics/train_llama.json")["train_llama"]["steps"] == 6
    assert "shown (" in project.first
    assert "learned (" in project.first


# The openai arm


def test_the_openai_arm_from_tuning_to_the_bill_without_leaking_its_key(project, tmp_path):
    """Against a local server: every row answered, every row and the tuning billed once, the key in no file or log."""
    service = project.provider
    assert len(service.jobs) == 1
    assert len(service.batches) == 3
    assert set(service.billed.values()) == {1}
    assert not service.violations
    without_key = Project(project.folder, tmp_path / "state").stages("train openai", ok=False)
    assert "OPENAI_API_KEY" in without_key
    assert "Traceback" not in without_key
    assert Counter(job["object"]["status"] for job in service.jobs.values()) == {"succeeded": 1}
    predictions = pd.read_parquet(project.folder / "data/predictions/openai.parquet")
    assert len(predictions) == 42
    assert project.read_json("metrics/evaluate.json")["openai"]["item_accuracy"] > 0.5
    costs = project.read_json("metrics/costs.json")["costs"]
    assert set(costs) == set(ARMS)
    job = project.read_json("models/openai/job.json")
    assert costs["openai"]["trained_tokens"] == job["trained_tokens"] > 0
    assert costs["openai"]["usd"] == pytest.approx(
        costs["openai"]["training_usd"] + costs["openai"]["inference_usd"], abs=0.011
    )
    written = [file for root in (project.folder, project.folder.parent / "state") for file in root.rglob("*")]
    files = [file for file in written if file.is_file() and ".git/" not in str(file)]
    assert KEY not in project.first
    assert not [file for file in files if KEY.encode() in file.read_bytes() and file.name != "openai_server.py"]


# Another machine


@pytest.mark.slow
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
