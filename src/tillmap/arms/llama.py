"""The `llama` arm: a language model tuned on labelled rows, asked without examples."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from tillmap.arms._llm import LocalModelArm, Tokens
from tillmap.arms.base import Need
from tillmap.arms.context import TRAINING, Context
from tillmap.config.blocks import Count, LanguageModel, Policy, Section
from tillmap.core.files import read_jsonl
from tillmap.llm.interface.prompting import GRADIENTGURUS_LLAMA, Recipe

_NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


class LlamaSettings(LanguageModel):
    sample_rows: Count
    sample_policy: Policy


class Llama(LocalModelArm):
    """A base model with a LoRA adapter that is tuned on `llama.sample_rows` rows, or both merged into one model."""

    name: ClassVar[str] = "llama"
    contest: ClassVar[Mapping[str, Tokens]] = {"ours": Tokens(47, 38, 9), "gradientgurus": Tokens(79, 42, 37)}
    Settings: ClassVar[type[Section]] = LlamaSettings
    tuned: ClassVar[bool] = True
    curve: ClassVar[bool] = True
    reads: ClassVar[tuple[Need, ...]] = ("rows", "index", "base", "model")
    training_params: ClassVar[tuple[str, ...]] = ("llama.recipe", "train_llama")

    def gradientgurus(self, settings: Any) -> tuple[Recipe, str]:
        return GRADIENTGURUS_LLAMA, "json"

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        """Tune an adapter. A killed training resumes from its last checkpoint.

        Raises InputError, ModelError, ParamsError or ResourceError.
        """
        from tillmap.core.run_state import alone, run_key, scratch, state_folder
        from tillmap.llm.checkpoints import check_checkpoint
        from tillmap.llm.merging import MERGED_DTYPES, merge_adapter
        from tillmap.tuning.batches import ORDER
        from tillmap.tuning.hub import push_model, require_token
        from tillmap.tuning.lora import train_adapter
        from tillmap.tuning.recipes import choose_recipe

        assert context.prompts is not None
        check_checkpoint(context.base)
        if training.hub_id:
            require_token(training.hub_id)
        recipe = choose_recipe(context.settings.recipe, training.model_dump(exclude=_NOT_OF_THE_RECIPE))
        examples = context.prompts / TRAINING
        files = [examples, *(file for file in context.base.rglob("*") if file.is_file())]
        settings = {"recipe": asdict(recipe), "seed": context.seed, "order": ORDER}
        state = state_folder() / "train" / run_key(settings, files)
        conversations = [record["messages"] for record in read_jsonl(examples)]
        with alone(state), scratch() as beside:
            adapter = beside if training.merge else folder
            trained = train_adapter(
                conversations,
                context.base,
                recipe,
                state,
                adapter,
                checkpoint_steps=training.checkpoint_steps,
                seed=context.seed,
                curve=context.curve,
            )
            if training.merge:
                merge_adapter(context.base, adapter, folder, MERGED_DTYPES[training.merge])
        found = trained.report() | {"examples": len(conversations), "seed": context.seed, "merge": training.merge}
        found["losses"] = trained.losses
        if training.hub_id:
            found["pushed"] = push_model(folder, training.hub_id)
        return found
