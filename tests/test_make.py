"""make: an environment that was moved is told, before anything fails in it; `compare` shows what one compares."""

import re
import shutil
import subprocess

import pytest
from project import ROOT
from ruamel.yaml import YAML


@pytest.fixture
def moved(tmp_path):
    """A project with an environment in a folder with an odd name; gives what `make` says of it, and its exit code."""
    folder = tmp_path / "it's a [project] (é)"
    (folder / ".venv").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)

    def make(made_as):
        lines = f"version = 3.11.7\n{made_as and f'command = /usr/bin/python3.11 -m venv {made_as}'}\n"
        (folder / ".venv/pyvenv.cfg").write_text(lines)
        done = subprocess.run(["make", "environment"], cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    return folder, make


def test_an_environment_that_was_moved_or_copied_is_told(moved, tmp_path):
    _, make = moved
    (tmp_path / "original" / ".venv").mkdir(parents=True)
    for made_as in (tmp_path / "gone" / ".venv", tmp_path / "original" / ".venv"):
        code, said = make(made_as)
        assert code != 0
        assert f".venv was made as {made_as} and does not work here; run `rm -rf .venv && make setup`" in said


def test_an_environment_in_its_place_is_well(moved, tmp_path):
    folder, make = moved
    (tmp_path / "link").symlink_to(folder)
    for made_as in (folder / ".venv", tmp_path / "link" / ".venv", ""):
        assert make(made_as) == (0, "")
    shutil.rmtree(folder / ".venv")
    assert subprocess.run(["make", "environment"], cwd=folder, check=False).returncode == 0, "there is none yet"


def test_compare_leaves_out_what_each_stage_counts():
    """Else a new stage adds a dozen columns to the table of experiments. Some of those of the cascade are shown."""
    left_out = re.search(r"^SHOWN_ELSEWHERE := \((.*)\)", (ROOT / "Makefile").read_text(), re.M)[1].split("|")
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert set(stages) - {"cascade"} <= set(left_out)
