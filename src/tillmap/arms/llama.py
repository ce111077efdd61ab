"""The `llama` arm: a language model tuned on labelled rows, to write a row's path or to choose it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pandas as pd
from pydantic import Field

from tillmap.arms._llm import LocalModelArm, Tokens
from tillmap.arms.base import Need
from tillmap.arms.context import TRAINING, Context
from tillmap.config.blocks import Count, LanguageModel, Layout, Policy, Section
from tillmap.core.errors import ParamsError
from tillmap.core.stored import read_conversations
from tillmap.core.taxonomy import KEY
from tillmap.llm.interface.prompting import GRADIENTGURUS_LLAMA, Recipe
from tillmap.retrieval import TRAINING_PATHS

_NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


class LlamaSettings(LanguageModel):
    sample_rows: Count
    sample_policy: Policy
    layout: Layout | None
    max_share: Annotated[float, Field(gt=0, le=1)]


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

    def lists_paths(self, settings: Any) -> bool:
        return settings.layout is not None

    def teaching(self, context: Context) -> pd.DataFrame:
        """For a model that learns to choose, the rows whose path is among their candidates, out of fold.

        With `max_share` below 1, only those of them that the free arm is not sure of. Raises ParamsError if no training
        row has candidates.
        """
        settings, training, names = context.settings, context.training, list(context.levels)
        if not self.lists_paths(settings):
            return training
        self.check_settings(settings, context.levels)
        found = context.neighbours(training, TRAINING_PATHS)
        if found.empty:
            raise ParamsError(
                "llama.layout: a model learns to choose from candidates of training rows, which only the rerank arm "
                "has, and only where it gains on linear; set `run.rerank: true`, or `llama.layout: null`"
            )
        unsure = found.loc[(found["rank"] == 0) & (found["score"] <= settings.max_share), KEY]
        listed = found[found["rank"] < settings.candidates].merge(unsure, on=KEY)
        return training.merge(listed[[*KEY, *names]], on=[*KEY, *names])

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
        conversations = list(read_conversations(examples))
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
