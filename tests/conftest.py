"""Tests never touch the user's resume state or a hub."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from small_project import small_project

# No test fails on the clock, and a run repeats exactly.
settings.register_profile("tillmap", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tillmap")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
# The same bytes whatever else the machine is doing, and no threads that wait for a busy core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `make test` runs the tests inside a make with --jobs. A make that a test starts is not a part of that one.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what needs the small project: the half of the tests that `make test` runs beside the other."""
    for item in items:
        if "project" in item.fixturenames:
            item.add_marker("pipeline")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The checkpoint of a language model with random weights: it is tiny, and says anything."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    subprocess.run([sys.executable, Path(__file__).with_name("tiny.py"), folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory, tiny):
    """The small project after its first `dvc repro`, see `small_project`. Its output is `project.first`."""
    with small_project(tmp_path_factory.mktemp("pipeline"), tiny) as project:
        yield project


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "there is no browser; `make servers` installs Chromium"
    sandbox = [] if os.getuid() else ["--no-sandbox"]  # which root cannot use
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()
