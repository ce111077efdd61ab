"""Push, fresh clone, pull: through a folder, S3 and SSH; a server killed in mid-push, wrong keys, tampered bytes."""

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from project import DVC, ROOT, Project, stages_run

from storage_servers import S3, SSH
from tillmap.cli.checks.sharing import without_git
from tillmap.cli.private import keep_private
from tillmap.core.errors import ParamsError

# Stands for the pipeline: the same outs, made in no time.
PIPELINE = """
artifacts:
  linear: {path: models/linear, type: model}
stages:
  ingest:
    cmd: mkdir -p data/raw && seq 2000 > data/raw/rows
    outs: [data/raw]
  train:
    cmd: mkdir -p models/linear && seq 300000 > models/linear/weights && echo {} > models/linear/recipe.json
    deps: [data/raw]
    outs: [models/linear]
  postprocess:
    cmd: mkdir -p data/predictions && tail -n ${rows} models/linear/weights > data/predictions/linear
    deps: [models/linear]
    params: [rows]
    outs: [data/predictions/linear]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small project with its outs made and committed, without a remote."""
    folder = tmp_path_factory.mktemp("made") / "project"
    folder.mkdir()
    project = Project(folder, folder.parent / "state")
    project.git("init", "--quiet", "--initial-branch", "main")
    project.dvc("init", "--quiet")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("rows: 5\n")
    (folder / ".gitignore").write_text("/data/\n/models/\n")
    project.dvc("repro", "--quiet")
    project.commit("start")
    return folder


@pytest.fixture
def small(made, tmp_path):
    """A copy of that project for one test."""
    return Project(Path(shutil.copytree(made, tmp_path / "project")), tmp_path / "state")


def clone(project, folder):
    """A fresh clone without data and without a cache."""
    project.run("git", "clone", "--quiet", str(project.folder), str(folder))
    copy = Project(folder, folder.parent / "state")
    copy.env |= {name: project.env[name] for name in project.env if name.startswith("AWS_")}
    return copy


def contents(project, *outs):
    files = [file for out in outs for file in sorted((project.folder / out).rglob("*")) if file.is_file()]
    return {str(file.relative_to(project.folder)): file.read_bytes() for file in files}


def use_s3(project, server):
    project.dvc("remote", "add", "--local", "--force", "--default", "team", f"s3://{server.bucket}/store")
    project.dvc("remote", "modify", "--local", "team", "endpointurl", f"http://127.0.0.1:{server.port}")
    project.env |= server.credentials


def test_the_remote_of_the_project_is_a_folder_beside_it(small, tmp_path):
    shutil.copy(ROOT / ".dvc/config", small.folder / ".dvc/config")
    small.commit("remote")
    small.dvc("push")
    assert (tmp_path / "tillmap-storage").is_dir()
    copy = clone(small, tmp_path / "clone")
    copy.dvc("pull")
    assert contents(copy, "data", "models") == contents(small, "data", "models")
    assert copy.dvc("status", "--cloud").strip().endswith("in sync.")


@pytest.mark.slow
def test_s3_push_clone_pull_and_no_key_in_git(small, tmp_path):
    with S3(tmp_path / "s3") as server:
        use_s3(small, server)
        small.dvc("push")
        copy = clone(small, tmp_path / "clone")
        use_s3(copy, server)
        copy.dvc("pull")
        assert contents(copy, "data", "models") == contents(small, "data", "models")
    tracked = small.git("ls-files").split()
    assert not [name for name in tracked if server.secret in (small.folder / name).read_text()]
    assert ".dvc/config.local" not in tracked


@pytest.mark.slow
def test_ssh_push_clone_pull(small, tmp_path):
    with SSH(tmp_path / "ssh") as server:
        for project in (small, clone(small, tmp_path / "clone")):
            url = f"ssh://{server.user}@127.0.0.1:{server.port}{tmp_path}/store"
            project.dvc("remote", "add", "--local", "--default", "box", url)
            project.dvc("remote", "modify", "--local", "box", "keyfile", str(server.key))
            project.dvc("push" if project is small else "pull")
        assert contents(project, "data", "models") == contents(small, "data", "models")


@pytest.mark.slow
def test_wrong_keys_are_refused_and_nothing_is_written(small, tmp_path):
    with S3(tmp_path / "s3") as server:
        use_s3(small, server)
        small.env["AWS_SECRET_ACCESS_KEY"] = "wrong"
        output = small.dvc("push", ok=False)
        assert "Forbidden" in output or "403" in output
        assert "Traceback" not in output
        assert not server.objects
        small.env |= server.credentials
        small.dvc("push")


@pytest.mark.slow
def test_a_server_killed_in_mid_push_loses_nothing(small, tmp_path):
    """`kill -9` once an object is there; a second push sends the rest, and every object is what its name says."""
    for number in range(30):  # enough objects to be in the middle of
        (small.folder / "data/raw" / f"part{number}").write_text(f"{number}\n" * 20_000)
    small.dvc("commit", "--force", "--quiet")
    with S3(tmp_path / "s3") as server:
        use_s3(small, server)
        pushing = subprocess.Popen(
            [*DVC, "push", "--jobs", "2"], cwd=small.folder, env=small.env | {"AWS_MAX_ATTEMPTS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while not server.objects:
            assert pushing.poll() is None, pushing.stdout.read()
            time.sleep(0.002)
        server.kill()
        output, _ = pushing.communicate()
        assert pushing.returncode != 0, "the push was over before the server was killed"
        assert "Traceback" not in output
        server.start()
        small.dvc("push")
        for name, file in server.objects.items():
            digest = hashlib.md5(file.read_bytes()).hexdigest()
            assert name.removeprefix("files/md5/").replace("/", "").removesuffix(".dir") == digest
        copy = clone(small, tmp_path / "clone")
        shutil.copy(small.folder / "dvc.lock", copy.folder / "dvc.lock")
        use_s3(copy, server)
        copy.dvc("pull")
    assert contents(copy, "data", "models") == contents(small, "data", "models")


def test_bytes_changed_at_the_remote_are_not_taken(small, tmp_path):
    shutil.copy(ROOT / ".dvc/config", small.folder / ".dvc/config")
    small.commit("remote")
    small.dvc("push")
    for file in (tmp_path / "tillmap-storage").rglob("*"):
        if file.is_file() and file.stat().st_size > 100_000:
            file.chmod(0o644)
            file.write_bytes(b"poison" + file.read_bytes())
    copy = clone(small, tmp_path / "clone")
    copy.dvc("pull", "models/linear", ok=False)
    assert not (copy.folder / "models/linear/weights").exists()


def test_licensed_rows_stay_while_models_and_predictions_travel(small, tmp_path):
    assert keep_private(small.folder / "dvc.yaml") == ["data/raw"]
    assert keep_private(small.folder / "dvc.yaml") == [], "a second time changes nothing"
    small.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    small.commit("private")
    small.dvc("push")
    pushed = {file.read_bytes() for file in (tmp_path / "remote").rglob("*") if file.is_file()}
    assert not pushed & set(contents(small, "data/raw").values())
    copy = clone(small, tmp_path / "clone")
    copy.dvc("pull", "models/linear", "data/predictions/linear")
    assert contents(copy, "models", "data/predictions") == contents(small, "models", "data/predictions")
    assert not (copy.folder / "data/raw").exists()


def test_every_output_with_descriptions_can_be_kept_private(tmp_path):
    shutil.copy(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    before = (tmp_path / "dvc.yaml").read_text()
    marked = keep_private(tmp_path / "dvc.yaml")
    assert {"data/raw", "data/split", "data/index", "data/prompts/${item}", "data/review"} <= set(marked)
    after = (tmp_path / "dvc.yaml").read_text()
    assert after.count("push: false") == len(marked)
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert [line for line in after.splitlines() if line.startswith("#")] == comments
    (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    cmd: ls\n")
    with pytest.raises(ParamsError, match="project's root"):
        keep_private(tmp_path / "dvc.yaml")


@pytest.mark.slow
def test_an_experiment_travels_through_a_bare_git_remote(small, tmp_path):
    bare = tmp_path / "team.git"
    small.run("git", "clone", "--quiet", "--bare", str(small.folder), str(bare))
    small.git("remote", "add", "origin", str(bare))
    small.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    small.commit("remote")
    small.git("push", "--quiet", "origin", "main")
    small.dvc("exp", "run", "--name", "more", "--set-param", "rows=9")
    small.dvc("exp", "push", "origin", "more")
    small.run("git", "clone", "--quiet", str(bare), str(tmp_path / "clone"))
    other = Project(tmp_path / "clone", tmp_path / "state")
    assert "more" in other.dvc("exp", "list", "origin")
    other.dvc("exp", "pull", "origin", "more")
    other.dvc("exp", "apply", "more")
    assert contents(other, "data/predictions") == contents(small, "data/predictions")
    assert (other.folder / "data/predictions/linear").read_text().count("\n") == 9


def test_a_named_version_of_a_model_is_fetched(small, tmp_path):
    small.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    small.commit("remote")
    small.dvc("push")
    small.git("tag", "--annotate", "linear@v1.0.0", "--message", "the first")
    elsewhere = Project(tmp_path, tmp_path / "state")
    fetch = ("artifacts", "get", str(small.folder), "linear", "--rev", "v1.0.0", "--out", "linear-v1")
    elsewhere.dvc(*fetch)
    assert (tmp_path / "linear-v1/weights").read_bytes() == (small.folder / "models/linear/weights").read_bytes()


# Scoring again from what was pulled


def rescore(clone, *changes, ok=True):
    return clone.run("make", "--old-file", "setup", "rescore", f"SET={' '.join(changes)}", ok=ok)


def clone_of(project, remote, folder):
    copy = clone(project, folder)
    copy.dvc("remote", "add", "--local", "--default", "storage", str(remote))
    return copy


@pytest.fixture(scope="module")
def remote(project, tmp_path_factory):
    """A remote with all of the small project's outputs."""
    folder = tmp_path_factory.mktemp("remote")
    project.dvc("remote", "add", "--local", "--force", "--default", "storage", str(folder))
    project.dvc("push", "--quiet")
    return folder


def accuracies(project):
    metrics = project.read_json("metrics/evaluate.json")
    return {arm: metrics[arm]["item_accuracy"] for arm in metrics if arm != "evaluate"}


def test_a_fresh_clone_is_rescored_to_the_same_table(project, remote, tmp_path):
    copy = clone_of(project, remote, tmp_path / "clone")
    output = rescore(copy, "review.target_accuracy=0.7")
    assert stages_run(output) == ["evaluate"]
    assert accuracies(copy) == accuracies(project)
    assert (copy.folder / "plots/table.txt").read_text() == (project.folder / "plots/table.txt").read_text()
    assert not list((copy.folder / "models").rglob("*.safetensors")), "no model was needed"
    for missing, stage in (
        ("data/completions/rag.jsonl", "postprocess"),
        ("data/answer_rules/llama/rules.json", "postprocess"),
        ("data/usage/train_llama.json", "evaluate"),
    ):
        (copy.folder / missing).rename(tmp_path / "aside")
        output = copy.stages(stage, ok=False)
        assert f"{stage}: {missing}: file not found" in output
        assert f"`dvc pull {missing}`" in output
        assert "Traceback" not in output
        (tmp_path / "aside").rename(copy.folder / missing)


@pytest.mark.slow
def test_a_clone_with_some_of_the_arms_is_rescored_whole_or_not_at_all(project, remote, tmp_path):
    copy = clone_of(project, remote, tmp_path / "clone")
    copy.env["TILLMAP_ONLY"] = "postprocess evaluate"
    again = ("exp", "run", "--allow-missing", "--set-param", "evaluate.resamples=150", "evaluate")
    assert "data/split" in copy.dvc(*again, ok=False), "nothing was pulled"
    free = ("infer@nearest", "infer@linear", "infer@rerank")
    copy.dvc("pull", "stratify", "retrieve", "candidates", *free, "infer@llama", "postprocess", "cascade", "audit")
    output = copy.dvc(*again, ok=False)
    assert "data/completions/rag.jsonl: file not found" in output
    assert "`dvc pull data/completions/rag.jsonl`" in output
    assert "Traceback" not in output
    assert stages_run(rescore(copy, "evaluate.resamples=150"))[-1] == "evaluate"
    assert accuracies(copy) == accuracies(project)


@pytest.mark.slow
def test_what_is_not_at_the_remote_and_what_needs_a_model_stops_a_rescore(project, remote, tmp_path):
    empty = clone_of(project, tmp_path / "nowhere", tmp_path / "empty")
    output = rescore(empty, "evaluate.resamples=150", ok=False)
    assert "data/completions/rag.jsonl" in output
    assert not (empty.folder / "plots").exists()
    copy = clone_of(project, remote, tmp_path / "clone")
    output = rescore(copy, "linear.epochs=6", ok=False)
    assert "only postprocess evaluate may run here (TILLMAP_ONLY)" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "content", [b"[", b"\xff\xfe", b"stages: 1", b"stages: {a: [x]}", b"", b"a: 1\na: 2", b"[" * 3000]
)
def test_a_pipeline_that_cannot_be_read_is_kept_as_it_is(tmp_path, content):
    (tmp_path / "dvc.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=r"dvc.yaml: not a pipeline \(.+\); run this from the project's root, or"):
        keep_private(tmp_path / "dvc.yaml")
    assert (tmp_path / "dvc.yaml").read_bytes() == content


@pytest.mark.parametrize("content", [b"[core\n", b"\xff", b"x", b"[core]\nno_scm\n"])
def test_settings_of_dvc_that_cannot_be_read_are_those_of_git(tmp_path, content):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_bytes(content)
    assert not without_git(tmp_path)
