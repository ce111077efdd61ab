"""A small share of the fault campaign (`make faults`): everyday in parts that take a second, more of it marked slow."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from fault_campaign import Campaign, give_servers, plan
from memory import hangs_in_a_library
from parts import Part, World, commands_of, stages_of
from runs import Run
from served import Repro, Review

QUICK = ["kill", "terminate", "full disk"]


@pytest.fixture
def broken(project, tmp_path):
    """Breaks parts of the small project, and gives the tally of what happened and what was wrong."""
    before = project.env

    def run(names, kinds, kills, feed_rows=40):
        project.env = before | {"TILLMAP_STATE": str(tmp_path / "state")}
        world = World(project, tmp_path)
        parts = [*stages_of(world), *commands_of(world, {"nearest": "jsonl"}, feed_rows), Review(world, "nearest")]
        if "dvc repro" in names:
            parts.append(Repro(world))
        campaign = Campaign("tests")
        chosen = [part for part in parts if part.name in names]
        assert len(chosen) == len(names)
        give_servers(chosen)
        campaign.run(plan(chosen, kinds, kills * len(chosen), 1))
        return campaign

    yield run
    project.env = before
    project.git("clean", "--quiet", "-d", "--force")
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout", "--force")


def test_a_broken_stage_and_a_broken_command_run_again_to_the_same_bytes(broken):
    campaign = broken(["stratify", "predict@nearest"], QUICK, kills=2)
    assert campaign.wrong == []
    assert sum(campaign.tally[part, "kill"]["killed"] for part in ("stratify", "predict@nearest")) > 0


HALF = """
import os
with open("labelled/out", "w") as file:
    file.write("one")
    file.flush()
    os.mkdir(os.environ["TMPDIR"] + "/stray")
    file.write("two")
os.rmdir(os.environ["TMPDIR"] + "/stray")
"""


def test_the_campaign_catches_a_program_that_does_all_of_it_wrong(tmp_path):
    project = Project(tmp_path / "project", tmp_path / "state")
    project.folder.mkdir()
    (project.folder / "half.py").write_text(HALF)
    part = Part(World(project, tmp_path), "wrong", [sys.executable, "-m", "half"], ["labelled/out"])
    give_servers([part])
    campaign = Campaign("tests")
    campaign.run(plan([part], ["kill"], 12, 1))
    found = "\n".join(what for *_, what in campaign.wrong)
    assert "half of labelled/out is left" in found
    assert "the run afterwards failed" in found and "FileExistsError" in found


LOOPS = "void PyInit_loops(void) { for (volatile int on = 1; on;) {} }"


@pytest.mark.parametrize(("program", "excused"), [("import loops", True), ("while True: pass", False)])
def test_a_run_that_hangs_is_wrong_unless_a_library_hangs_that_is_being_loaded(tmp_path, program, excused):
    (tmp_path / "loops.c").write_text(LOOPS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "loops.so", "loops.c"], cwd=tmp_path, check=True)
    (tmp_path / "begins.py").write_text(f"print('begun', flush=True)\n{program}\n")
    run = Run([sys.executable, "-X", "faulthandler", "begins.py"], tmp_path, dict(os.environ))
    while "begun" not in run.output:
        assert run.child.poll() is None, run.output
        time.sleep(0.01)
    run.wait(work=0.5)
    assert hangs_in_a_library(run) == excused
    assert run.left() == []
