"""The `openai` arm: a model of a provider, either tuned, or untuned with neighbours as few-shot examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tillmap.arms._llm import LanguageModelArm
from tillmap.arms.base import Need
from tillmap.arms.context import JOB, TRAINING, Context
from tillmap.config.blocks import Count, Layout, Policy, Questions, Section
from tillmap.core.completions import Completion, Question
from tillmap.core.files import write_json
from tillmap.llm.interface.prompting import GRADIENTGURUS_RAG, Recipe

GRADIENTGURUS_OPENAI = Recipe(
    system="Your task is to classify the user text",
    item_format="line",
    examples="turns",
    show_retailer=True,
    show_price=True,
    item_end=" ->",
)


class OpenAISettings(Questions):
    mode: Literal["tuned", "retrieved"]
    model: Annotated[str, Field(min_length=1)]
    sample_rows: Count
    sample_policy: Policy
    examples: Annotated[int, Field(ge=0, le=100)]
    definitions: Annotated[int, Field(ge=0, le=100)]
    usual_price: bool
    layout: Layout
    constraint: Literal["off", "structured_outputs", "json_schema"]
    unseen_brand: Literal[False]
    engine: Literal["openai_batch", "openai_server"]
    request: dict[str, Any]


class OpenAI(LanguageModelArm):
    """A model of OpenAI or of any service with the same API, such as a local server."""

    name: ClassVar[str] = "openai"
    Settings: ClassVar[type[Section]] = OpenAISettings
    paid: ClassVar[bool] = True
    tuned: ClassVar[bool] = True
    reads: ClassVar[tuple[Need, ...]] = ("rows", "index", "model")
    training_params: ClassVar[tuple[str, ...]] = ("openai.mode", "openai.model", "train_openai", "provider")

    def is_tuned(self, settings: Any) -> bool:
        return bool(settings.mode == "tuned")

    def gradientgurus(self, settings: Any) -> tuple[Recipe, str]:
        return (GRADIENTGURUS_OPENAI, "joined") if self.is_tuned(settings) else (GRADIENTGURUS_RAG, "json")

    def stop(self, settings: Any) -> tuple[str, ...]:
        """The text that ends an answer: a newline, or for GradientGurus' tuned model a bar, which no label has."""
        return ("|",) if self.is_tuned(settings) and settings.recipe == "gradientgurus" else ("\n",)

    def answers_to(
        self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None
    ) -> list[Completion]:
        from tillmap.llm.interface.inference import plan_generation
        from tillmap.providers.inference import ask_provider

        assert context.provider is not None
        settings = context.settings
        generation = plan_generation(settings, context.seed, allowed)
        answers, spent = ask_provider(
            context.provider,
            settings,
            context.job,
            questions,
            generation=generation,
            stop=self.stop(settings),
            desc=context.arm,
        )
        context.notes |= {"seconds": answers.seconds, **spent}
        return answers.completions

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        """Tune a model, or take one that was tuned before or is untuned, and write its record into `folder`.

        Raises ParamsError, ProviderError, InputError or ResourceError.
        """
        from tillmap.providers.tuned_model import tune_model, untuned_record

        settings = context.settings
        if settings.mode == "retrieved":
            job = untuned_record("retrieved", settings.model)
        elif training.tuned_model:
            job = untuned_record("tuned", training.tuned_model)
        else:
            assert context.provider is not None
            assert context.prompts is not None
            job = tune_model(context.provider, training, settings.model, context.prompts / TRAINING, context.seed)
        write_json(job, folder / JOB)
        return job
