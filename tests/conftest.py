"""Tests never touch the user's resume state or a hub."""

import os

import pytest
from hypothesis import HealthCheck, settings
from project import SMALL, Project, copy_project

from tiny import make_tiny

# No test fails on the clock, and a run repeats exactly.
settings.register_profile("tillmap", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tillmap")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The small project after its first `dvc repro`, committed: `rag` asks SmolLM2, `llama` tunes the tiny model."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    folder.mkdir()
    copy_project(folder)
    project = Project(folder, folder.parent / "state")
    project.set_params(SMALL)
    project.git("init", "--quiet")
    project.commit("start")
    project.first = project.dvc("repro", "base_model@rag")
    project.tiny = folder.parent / "tiny"
    make_tiny(folder / "models/base/rag", project.tiny)
    project.set_params({"llama": {"base": str(project.tiny)}})
    project.first += project.dvc("repro")
    project.commit("first run")
    return project
