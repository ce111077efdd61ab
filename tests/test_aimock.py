"""The same client against a double that others wrote: aimock, from npm, which keeps Files, Batches and Fine-tuning.

Needs npm; where there is none, these are skipped (never in CI).
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from openai_client import RUN, TUNING, ask, connect, write_examples
from tillmap.providers.tuning_jobs import tune

PACKAGE = "@copilotkit/aimock"
VERSION = "1.43.0"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    npm = shutil.which("npm")
    if npm is None and not os.environ.get("CI"):
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("aimock")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), f"{PACKAGE}@{VERSION}"]
    subprocess.run(command, check=True, timeout=300)
    return folder / "node_modules" / PACKAGE / "dist" / "cli.js"


@pytest.fixture(params=["sound", "troubled"])
def double(package, request, tmp_path):
    """A server of its own; `troubled`, one call in five fails, is dropped, or is told to come later."""
    fixtures = tmp_path / "fixtures.json"
    fixtures.write_text('{"fixtures": [{"match": {"userMessage": "item"}, "response": {"content": "dairy__milk"}}]}')
    chaos = ["--chaos-drop", "0.1", "--chaos-disconnect", "0.1"] if request.param == "troubled" else []
    command = ["node", str(package), "--port", "0", "--fixtures", str(fixtures), *chaos]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            lines = iter(server.stdout.readline, "")
            [address] = next(found for line in lines if (found := re.findall(r"http://127\.0\.0\.1:\d+", line)))
            yield f"{address}/v1"
        finally:
            server.kill()


def test_a_model_is_tuned_and_a_run_answered_by_it(double, tmp_path):
    service = connect(double)
    examples = write_examples(tmp_path / "examples.jsonl")
    job = tune(service, examples, TUNING, tmp_path / "tune", RUN)
    assert job["model"].startswith(f"ft:{TUNING.model}")
    assert job["trained_tokens"] > 0
    answers = ask(service, 10, tmp_path / "ask")
    assert [answer.id for answer in answers] == list(range(10))
    assert {answer.status for answer in answers} == {"ok"}
    # Another machine, which has nothing but the key of the run, takes over what is there.
    elsewhere = Path(tmp_path / "elsewhere")
    assert tune(service, examples, TUNING, elsewhere / "tune", RUN) == job
    assert ask(service, 10, elsewhere / "ask") == answers
    jobs = service.read(lambda: list(service.client.fine_tuning.jobs.list()))
    batches = service.read(lambda: list(service.client.batches.list()))
    assert (len(jobs), len(batches)) == (1, 3)
