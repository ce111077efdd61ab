"""Breaks every stage: `kill -9` at random moments, and no room on the disk. Afterwards a rerun gives the same bytes.

    python tests/faults/break_stages.py [PROJECT] [--kills 3] [--stages catalogue infer@nearest] [--seed 0]

PROJECT is a folder in which `dvc repro` has run; without one, a small copy is made and run, without language models
unless `--models` is given. Each stage of it is run alone, `--kills` times, and killed at a random moment of the time
that it takes; an output is then as it was, or not there, and never in between. The stage is run once more, to its end,
and must leave the bytes of the unbroken run. Then the same with a disk on which no file may grow beyond a few bytes, or
with `--disk` on one in memory that is filled to its last byte (Linux, as root, for it is mounted).
"""

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from dvc.repo import Repo
from project import Project, copy_project

DISK_MIB = 2048
SMALLEST = 2048  # bytes that a file may have on the disk without room


def outputs_of(project):
    """The commands of all stages by name, each with its cached outputs."""
    with Repo(str(project.folder)) as repo:
        return {
            stage.name: (stage.cmd.split(), [out.def_path for out in stage.outs if out.use_cache])
            for stage in repo.index.stages
        }


def fingerprint_of(file):
    """A file's hash. Of what a run took, which differs from run to run, the names of the values."""
    if "usage" in (file.parent.name, file.stem):
        return sorted(json.loads(file.read_text()))
    return hashlib.sha256(file.read_bytes()).hexdigest()


def fingerprint(folder, outs):
    """Each output's files and their hashes; None for an output that is not there."""
    found = {}
    for out in outs:
        path = folder / out
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        prints = {str(file.relative_to(folder)): fingerprint_of(file) for file in files if file.is_file()}
        found[out] = prints or None
    return found


def remove(folder, outs):
    """As DVC does before it runs a stage."""
    for out in outs:
        path = folder / out
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def start(project, command, limit=None):
    limited = ["prlimit", f"--fsize={limit}"] if limit else []
    return subprocess.Popen(
        [*limited, sys.executable, *command[1:]], cwd=project.folder, env=project.env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def check_nothing_half(project, outs, whole, when):
    """An output is the whole one or none. (Where a stage has several, the last may be missing: DVC runs it again.)"""
    left = fingerprint(project.folder, outs)
    half = [out for out, prints in left.items() if prints not in (None, whole[out])]
    assert not half, f"{when} left half of {', '.join(half)}"


def run_whole(project, command, outs, when):
    remove(project.folder, outs)
    child = start(project, command)
    output, _ = child.communicate()
    assert child.returncode == 0, f"the run after {when} failed:\n{output}"


def check_whole(project, command, outs, whole, when):
    run_whole(project, command, outs, when)
    assert fingerprint(project.folder, outs) == whole, f"the run after {when} gave other bytes"
    hidden = [path for out in outs for path in (project.folder / out).parent.glob(".*.partial")]
    assert not hidden, f"the run after {when} left {hidden}"


@contextmanager
def disk_in_memory(folder, mib):
    """Mount a disk of that size on a folder for a while."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder):
    """The folder's disk without a free byte."""
    filler = folder / ".filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    try:
        yield
    finally:
        filler.unlink()


def run_without_room(project, command, outs, full):
    """What a stage says, and its exit status, on a full disk or with a limit on its files."""
    if full:
        remove(project.folder, outs)
        with filled(project.folder):
            child = start(project, command)
            return child.communicate()[0], child.returncode
    files = [file for out in outs for file in [project.folder / out, *(project.folder / out).rglob("*")]]
    limit = min(SMALLEST, max(1, max(file.stat().st_size for file in files) // 2))
    remove(project.folder, outs)
    child = start(project, command, limit)
    return child.communicate()[0], child.returncode


def break_stage(project, name, command, outs, *, kills, rng, full=False):
    """Kill a stage at random moments, then deny it room (`full`: on a full disk); give a line that says how it went."""
    before = fingerprint(project.folder, outs)
    assert None not in before.values(), f"{name} has not run: {before}"
    # `evaluate` shows how long other stages took, and the campaign has run these again.
    run_whole(project, command, outs, "the stages before")
    whole = fingerprint(project.folder, outs)
    began = time.perf_counter()
    check_whole(project, command, outs, whole, "nothing")
    seconds = time.perf_counter() - began
    killed = 0
    for number in range(kills):
        remove(project.folder, outs)
        child = start(project, command)
        moment = seconds * rng.uniform(0.3 if number % 2 else 0.7, 1.02)  # more often where files are written
        try:
            child.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            killed += 1
        check_nothing_half(project, outs, whole, f"kill {number + 1} of {name}")
    check_whole(project, command, outs, whole, f"{kills} kills of {name}")
    output, status = run_without_room(project, command, outs, full)
    assert status != 0, f"{name} needs no room at all?"
    assert "Traceback" not in output, f"{name} without room:\n{output}"
    check_nothing_half(project, outs, whole, f"a full disk in {name}")
    check_whole(project, command, outs, whole, f"a full disk in {name}")
    return f"{name}: {killed} kills and a full disk, the same bytes after each ({seconds:.1f} s a run)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--stages", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", action="store_true", help="language models, too: takes many minutes")
    parser.add_argument("--disk", action="store_true", help="a disk of 2 GiB in memory, filled; not of PROJECT")
    chosen = parser.parse_args()
    if chosen.disk and chosen.project:
        parser.error("--disk makes a project of its own: name none")
    with tempfile.TemporaryDirectory(prefix="tillmap-faults-") as name, ExitStack() as mounted:
        place = Path(name) / "disk"
        if chosen.disk:
            mounted.enter_context(disk_in_memory(place, DISK_MIB))
        else:
            place.mkdir()
        project = Project((chosen.project or place / "project").absolute(), place / "state")
        if chosen.project is None:
            project.folder.mkdir()
            copy_project(project.folder)
            project.set_params({"demo": {"train_rows": 600, "test_rows": 100}, "evaluate": {"resamples": 200}})
            if not chosen.models:
                project.set_params({"run": {"rag": False, "llama": False}})
            project.git("init", "--quiet")
            project.commit("start")
            project.dvc("repro", "--quiet")
        stages = outputs_of(project)
        rng = random.Random(chosen.seed)
        for stage in chosen.stages or stages:
            print(
                break_stage(project, stage, *stages[stage], kills=chosen.kills, rng=rng, full=chosen.disk), flush=True
            )


if __name__ == "__main__":
    main()
