"""Any machine: odd folder names, no home, no name, a read-only project, a colleague's and another version's models."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from project import ROOT
from safetensors.numpy import load_file, save_file
from trained import make_trained, read_lines

from command import run_command
from stages import ingest
from tillmap.arms import schema
from tillmap.catalogue import source as sources
from tillmap.cli import stages
from tillmap.cli.checks import places
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError

ODD = 'it\'s "a" [project] (é) #1 = $x %s *?;&\\ ñ'
ROWS = '{"indoml_id": 1, "description": "milk 1l"}\n{"indoml_id": 2, "description": "bread"}\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    make_trained(folder)
    return folder


@pytest.fixture
def tillmap(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))

    def call(*words):
        code, out, err = run_command(monkeypatch, capfd, *words)
        return code, out + err

    return call


def test_a_project_in_a_folder_with_an_odd_name(project, tillmap, tmp_path, monkeypatch):
    """A moved project, too: it was trained in another folder."""
    moved = tmp_path / ODD
    shutil.copytree(project, moved)
    monkeypatch.chdir(moved)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / f"state of {ODD}"))
    feed = moved / f"feed {ODD}.jsonl"
    feed.write_text(ROWS)
    for arm in ("nearest", "linear"):
        for out in (moved / f"{arm} {ODD}.csv", Path(f"relative {ODD}") / "out.jsonl"):
            code, said = tillmap("predict", feed, "--arm", arm, "--out", out)
            assert code == 0, said
            assert len(out.read_text().splitlines()) in (2, 3)
    code, said = tillmap("submit", "--arm", "linear", "--name", "us", "--out", f"us {ODD}.zip")
    assert code == 0, said
    said = tillmap("doctor")[1]
    assert f"ok   project: {moved} may be written" in said


def test_models_have_the_mode_that_the_umask_says(project):
    mask = os.umask(0)
    os.umask(mask)
    files = [path for folder in ("models", "data/index") for path in (project / folder).rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~mask}


# Models of another version


def without(path, key):
    written = json.loads(path.read_text())
    del written[key]
    path.write_text(json.dumps(written))


def keys_of(path):
    written = json.loads(path.read_text())
    return list(written) if isinstance(written, dict) else []


def test_models_of_another_version_say_so(project, tillmap, tmp_path, monkeypatch):
    """Each value that a model's file holds is left out once, as a version that did not know it would."""
    mine = tmp_path / "mine"
    shutil.copytree(project, mine)
    monkeypatch.chdir(mine)
    feed, out = tmp_path / "feed.jsonl", tmp_path / "out.jsonl"
    feed.write_text(ROWS)
    told = 0
    for arm, folders in (("linear", ["models/linear", "models/confidence/linear", "models/seen.json"]),
                         ("nearest", ["data/index", "models/confidence/nearest"])):  # fmt: skip
        files = [file for name in folders for file in [Path(name), *Path(name).rglob("*")] if file.is_file()]
        for file in files:
            whole = file.read_bytes()
            for key in keys_of(file) if file.suffix == ".json" else ():
                without(file, key)
                code, said = tillmap("predict", feed, "--arm", arm, "--out", out)
                assert "Traceback" not in said, f"{file} without {key}"
                if code:
                    assert "version" in said or "dvc repro" in said, f"{file} without {key}: {said}"
                    told += 1
                file.write_bytes(whole)
            if file.suffix == ".safetensors":
                for name in load_file(file):
                    save_file({key: value for key, value in load_file(file).items() if key != name}, file)
                    code, said = tillmap("predict", feed, "--arm", arm, "--out", out)
                    assert "Traceback" not in said, f"{file} without {name}"
                    told += code  # new rows are labelled by one of the three fits
                    file.write_bytes(whole)
    assert told > 20
    assert tillmap("predict", feed, "--arm", "linear", "--out", out)[0] == 0


def test_a_model_that_is_too_new_says_so(project, tillmap, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    shutil.copytree(project, mine)
    monkeypatch.chdir(mine)
    (tmp_path / "feed.jsonl").write_text(ROWS)
    for file in mine.glob("models/linear/*/recipe.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    code, said = tillmap("predict", tmp_path / "feed.jsonl", "--arm", "linear", "--out", tmp_path / "out.csv")
    assert (code, "not a linear model of this version of tillmap; run `dvc repro`" in said) == (1, True)
    index = load_file(mine / "data/index/lexical.safetensors")
    save_file({name: value for name, value in index.items() if name != "rows"} | {"new": np.zeros(1)},
              mine / "data/index/lexical.safetensors")  # fmt: skip
    code, said = tillmap("predict", tmp_path / "feed.jsonl", "--arm", "nearest", "--out", tmp_path / "out.csv")
    assert (code, "another version of tillmap" in said) == (1, True)


# Stages


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Runs a stage's work in an empty folder; gives what it says as it ends with an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stages/test.py"])

    def run(work):
        monkeypatch.setattr(stages, "read_params", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            stages.run_stage(lambda _: work(), ())
        return ended.value.code

    return run


def test_a_stage_and_the_doctor_say_before_the_work_that_a_folder_may_not_be_written(stage, tmp_path, monkeypatch):
    def worked():
        raise AssertionError("the work began")

    (tmp_path / ".dvc").mkdir()
    for name in ("models", ".dvc/tmp", ".dvc/cache"):
        (tmp_path / name).write_text("a file in the place of the folder")
        said = f"test: {tmp_path}/{name}: this folder may not be written; run as its owner, or in a copy of the project"
        assert stage(worked).startswith(said)
        assert f"{tmp_path}/{name} may not be written" in places.folder(tmp_path).found
        (tmp_path / name).unlink()
    monkeypatch.setattr(stages, "may_write", lambda folder: False)
    assert stage(worked).startswith(f"test: {tmp_path}: this folder may not be written")


@pytest.mark.parametrize("number", [1, 13, 30])
def test_a_stage_that_may_not_do_something_says_so_in_one_line(stage, number):
    def denied():
        raise OSError(number, os.strerror(number), "data/index")

    assert stage(denied) == f"test: data/index: {os.strerror(number)}; correct that and run `dvc repro` again"


def test_a_stage_that_runs_out_of_room_says_so(stage):
    def full():
        raise OSError(28, os.strerror(28))

    assert stage(full) == "test: the disk is full; free some space and run `dvc repro` again"


def test_a_catalogue_that_changes_while_it_is_read_is_told(project, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    shutil.copytree(project, mine)
    monkeypatch.chdir(mine)
    before = (mine / "data/raw/rows.parquet").read_bytes()
    read = sources.read_source

    def changed(*arguments):
        found = read(*arguments)
        with (mine / "data/demo/test.features").open("a") as file:
            file.write("\n")
        return found

    monkeypatch.setattr(ingest, "read_source", changed)
    with pytest.raises(InputError, match=r"test\.features: it changed while it was read"):
        ingest.main(read_params(paths.PARAMS, schema(), ingest.PARAMS))
    assert (mine / "data/raw/rows.parquet").read_bytes() == before


# A container


STRANGER = (
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
)  # fmt: skip


def may_be_a_stranger():
    """Whether a process can be started as another user, who may read this environment wherever it is."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    done = subprocess.run([*STRANGER, sys.executable, "-c", "import tillmap"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "/usr"])
def test_a_containers_user_labels_rows_and_the_doctor_finishes(project, tmp_path, home):
    """A user id without a name, no folder but the one for temporary files that may be written, not even the code's."""
    if not may_be_a_stranger():
        pytest.skip("needs root and setpriv")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    for folder in (project, *project.parents[:2], tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    feed = tmp_path / "feed.jsonl"
    feed.write_text(ROWS)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary), "LANG": "C.UTF-8"}
    env |= {} if home is None else {"HOME": home}

    def call(*words):
        program = "import sys; sys.argv[0] = 'tillmap'; from tillmap.cli import run; run()"
        return subprocess.run(
            [*STRANGER, sys.executable, "-B", "-c", program, *words],
            cwd=project, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip

    before = sorted(project.rglob("*"))
    done = call("predict", str(feed), "--arm", "linear", "--out", str(temporary / "out.jsonl"))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert [row["indoml_id"] for row in read_lines(temporary / "out.jsonl")] == [1, 2]
    assert sorted(project.rglob("*")) == before
    kept = temporary / "tillmap-12345"
    assert any(kept.rglob("*.nbi")), "compiled code is kept for the next run"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    done = call("doctor")
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (1, False), done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].endswith("problems found")
    bad = [number for number, line in enumerate(lines) if line.startswith("BAD")]
    assert all(lines[number + 1].startswith("     -> ") and len(lines[number + 1]) > 12 for number in bad)
    named = {lines[number].split(":")[0].removeprefix("BAD  ") for number in bad}
    assert {"user", "project", "state"} <= named
