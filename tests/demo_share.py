"""`make share-demo`: what one machine pushes, another pulls, scores again and fetches by name."""

import os
import sys
import tempfile
from pathlib import Path

from project import Project, copy_project, stages_run

OFF = {"run": {"rag": False, "llama": False}, "demo": {"train_rows": 600, "test_rows": 100}}
LAPTOP = {"TILLMAP_ONLY": "postprocess evaluate"}


def say(text):
    print(f"\n# {text}", flush=True)


def do(project, *command, ok=True):
    print(f"$ {' '.join(command)}", flush=True)
    output = project.run(*command, ok=ok)
    lines = [line for line in output.strip().splitlines() if line.strip()]
    print("\n".join(f"  {line}" for line in lines[-6:]), flush=True)
    return output


def main():
    with tempfile.TemporaryDirectory(prefix="tillmap-") as name:
        here = Path(name)
        box = Project(here / "box", here / "state")
        box.folder.mkdir()
        copy_project(box.folder)
        box.set_params(OFF)
        box.git("init", "--quiet")
        box.commit("start")

        say("On the first machine: the pipeline, small, without language models; then everything to the remote")
        do(box, "dvc", "repro")
        box.commit("a run")
        do(box, "dvc", "push")

        say("On another one: a fresh clone has no data and no model")
        box.run("git", "clone", "--quiet", str(box.folder), str(here / "laptop"))
        laptop = Project(here / "laptop", here / "other-state")
        again = ("make", "--old-file", "setup", "rescore")  # the environment is there
        say("Another parameter of postprocess: what it needs is pulled, and only postprocess and evaluate run")
        output = do(laptop, *again, "SET=postprocess.min_similarity=0.4 evaluate.resamples=300")
        assert stages_run(output) == ["postprocess", "evaluate"]
        assert not list((laptop.folder / "models").rglob("*.safetensors")), "no model was needed"

        say("One of training is refused there")
        refused = do(laptop, *again, "SET=linear.epochs=6", ok=False)
        assert "may run here (TILLMAP_ONLY)" in refused

        say("A model by its name and version, into any folder")
        box.git("tag", "--annotate", "linear@v1.0.0", "--message", "the first")
        do(laptop, "dvc", "artifacts", "get", str(box.folder), "linear", "--rev", "v1.0.0", "--out", "linear-v1.0.0")
        print(f"  {sorted(file.name for file in (laptop.folder / 'linear-v1.0.0').iterdir())}")
        say("That was all; the folders are gone")


if __name__ == "__main__":
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    main()
