"""A small copy of the project that tests can run, change and clone."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
DVC = [sys.executable, "-m", "dvc"]
SMALL = {
    "run": {"openai": True, "pilot_rows": None},
    "demo": {"train_rows": 300, "test_rows": 40},
    "rerank": {"folds": 2, "trees": 10, "candidates": 20},
    "rag": {"held_out_rows": 2, "max_new_tokens": 12, "examples": 2},
    "llama": {"held_out_rows": 2, "sample_rows": 24, "engine": "transformers", "constrain": "tree"},
    "train_llama": {"batch_rows": 4, "checkpoint_steps": 2},
    "openai": {"held_out_rows": 2, "sample_rows": 30},
    "provider": {"poll_seconds": 0.01, "settle_seconds": 0.1, "requests": 20},
    "engine": {"batch_rows": 8, "save_rows": 8, "kv_cache_gib": 0.25, "max_model_len": 512},
    "evaluate": {"resamples": 100},
}
# Several stages in one process: a start-up takes longer than most of them.
RUN = """
import runpy, sys
for words in map(str.split, sys.argv[1:]):
    sys.argv = words
    runpy.run_module(f"stages.{words[0]}", run_name="__main__", alter_sys=True)
"""


class Project:
    """A copy of the project with its own params, git history, DVC cache and resume state.

    `own_code`: its stages import its own copy of the library. The copies are the same where a test changes neither, and
    numba has compiled the original already.
    """

    def __init__(self, folder, state, own_code=False):
        self.folder = folder
        code = folder if own_code else ROOT
        self.env = os.environ | {"PYTHONPATH": str(code / "src"), "TILLMAP_STATE": str(state)}
        self.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"

    def run(self, *command, ok=True):
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, capture_output=True, check=False, timeout=1200
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, output[-4000:]
        return output

    def dvc(self, *arguments, ok=True):
        return self.run(*DVC, *arguments, ok=ok)

    def stages(self, *stages, ok=True):
        """Run stages such as "prompts rag" one after the other, without DVC."""
        return self.run(sys.executable, "-c", RUN, *stages, ok=ok)

    def tillmap(self, *arguments, ok=True):
        return self.run("tillmap", *arguments, ok=ok)

    def git(self, *arguments):
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments)

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)

    def set_params(self, changes):
        yaml = YAML()
        path = self.folder / "params.yaml"
        params = yaml.load(path.read_text())
        for block, values in changes.items():
            params[block].update(values)
        with path.open("w") as file:
            yaml.dump(params, file)

    def read_json(self, name):
        return json.loads((self.folder / name).read_text())


def kill_when(ready, command, **options):
    """Run a command as `subprocess.Popen` would, and `kill -9` it as soon as `ready` says so."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        while not ready():
            assert child.poll() is None, f"{command[1:]} ended before it could be killed"
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def copy_project(folder):
    """The working tree's files, without what the pipeline wrote."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, text=True, capture_output=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data/corrections.jsonl").write_text("\n")  # as shipped, whatever people decided here


def stages_run(output):
    """The stages that a `dvc repro` or `dvc exp run` says it ran, or with `--dry` would run."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
