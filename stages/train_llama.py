"""Tunes the llama arm's base model on its sample of the training rows; killed, it goes on from a checkpoint."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from runner import Metrics, run

from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, read_jsonl, write_json
from tillmap.core.run_state import alone, run_key, state_folder
from tillmap.evaluation import charts
from tillmap.llm.checkpoints import check_checkpoint
from tillmap.llm.merging import merge_adapter
from tillmap.tuning.hub import push_model, require_token
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

PARAMS = ("seed", "run.llama", "run.cascade", "cascade.llm", "llama.recipe", "train_llama")
NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


def main(params: Params) -> Metrics:
    if not params.needs("llama"):
        with new_folder(paths.MODELS / "llama") as folder:
            write_json({"off": True}, folder / "off.json")
        return {"off": True}
    chosen, base = params.train_llama, paths.BASE / "llama"
    check_checkpoint(base)
    if chosen.hub_id:
        require_token(chosen.hub_id)
    recipe = choose_recipe(params.llama.recipe, chosen.model_dump(exclude=NOT_OF_THE_RECIPE))
    examples = paths.PROMPTS / "llama" / paths.TRAINING
    files = [examples, *(file for file in base.rglob("*") if file.is_file())]
    state = state_folder() / "train" / run_key({"recipe": asdict(recipe), "seed": params.seed}, files)
    conversations = [record["messages"] for record in read_jsonl(examples)]
    with alone(state), new_folder(paths.MODELS / "llama") as folder, TemporaryDirectory() as beside:
        adapter = Path(beside) if chosen.merge else folder
        training = train_adapter(
            conversations, base, recipe, state, adapter, checkpoint_steps=chosen.checkpoint_steps, seed=params.seed
        )
        if chosen.merge:
            merge_adapter(base, adapter, folder, chosen.merge)
        losses = pd.DataFrame(training.losses, columns=["step", "loss", "learning_rate"])
        charts.save(charts.draw_loss(losses), losses, folder, "loss")
    metrics = training.report() | {"examples": len(conversations), "seed": params.seed, "merge": chosen.merge}
    if chosen.hub_id:
        metrics["pushed"] = push_model(paths.MODELS / "llama", chosen.hub_id)
    return metrics


if __name__ == "__main__":
    run(main, PARAMS)
