"""A few kills and a full disk in two stages; `make faults` does the same to all of them, as often as one likes."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from break_stages import break_stage, outputs_of


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stratify", "postprocess"])
def test_a_broken_stage_leaves_nothing_half_and_runs_again_to_the_same_bytes(project, stage):
    command, outs = outputs_of(project)[stage]
    try:
        break_stage(project, stage, command, outs, kills=1, rng=random.Random(stage))
    finally:
        project.git("checkout", "--quiet", ".")
        project.dvc("checkout", "--force")
