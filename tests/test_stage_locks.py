"""Two at once, stages that may not run, and a disk without room: each is one line that says what to do."""

import fcntl
import os
import subprocess
import sys

import pytest
from project import Project, copy_project

CATALOGUE = (sys.executable, "-m", "stages.catalogue")


@pytest.fixture
def bare(tmp_path):
    """A copy of the project in which nothing has run."""
    folder = tmp_path / "project"
    folder.mkdir()
    copy_project(folder)
    return Project(folder, tmp_path / "state")


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_second_process_of_a_stage_is_refused_with_the_first_ones_number(bare):
    lock = bare.folder / ".dvc/tmp/tillmap/catalogue.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        output = bare.run(*CATALOGUE, ok=False)
        assert f"process {os.getpid()} is running this stage in this folder; wait for it" in output
        assert "Traceback" not in output
        assert [file.name for file in (bare.folder / "data").iterdir()] == ["corrections.jsonl"]
    bare.run(*CATALOGUE)  # the lock of a process that is gone holds nobody up


def test_two_at_once_leave_what_one_leaves(bare):
    """Both are started together; one may be refused, and what is there is whole either way."""
    bare.run(*CATALOGUE)
    whole = files_of(bare.folder / "data/demo")
    pair = [
        subprocess.Popen(CATALOGUE, cwd=bare.folder, env=bare.env, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [child.communicate()[1] for child in pair]
    codes = sorted(child.returncode for child in pair)
    assert codes in ([0, 0], [0, 1])
    assert "Traceback" not in "".join(said)
    assert files_of(bare.folder / "data/demo") == whole


def test_a_stage_that_may_not_run_does_nothing_and_says_why(bare):
    bare.env["TILLMAP_ONLY"] = "postprocess evaluate"
    output = bare.run(*CATALOGUE, ok=False)
    assert "only postprocess evaluate may run here (TILLMAP_ONLY)" in output
    assert "Traceback" not in output
    assert [file.name for file in (bare.folder / "data").iterdir()] == ["corrections.jsonl"]


def test_a_file_that_cannot_grow_is_one_line_and_leaves_no_output(bare):
    """RLIMIT_FSIZE stands for a full disk: a write ends with an error in the middle of a file."""
    output = bare.run("prlimit", "--fsize=4096", *CATALOGUE, ok=False)
    assert "a file would exceed the size limit; free some space and run `dvc repro` again" in output
    assert "Traceback" not in output
    assert not (bare.folder / "data/demo").exists()
    bare.run(*CATALOGUE)
    assert (bare.folder / "data/demo/train.features").stat().st_size > 4096
