"""make: an environment that was moved is told, before anything fails in it."""

import shutil
import subprocess

import pytest
from project import ROOT


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
