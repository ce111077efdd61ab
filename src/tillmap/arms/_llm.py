"""What the arms that ask a language model share: how they ask, what is allowed, and the asking itself."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from tillmap.arms.base import Arm
from tillmap.arms.context import ALLOWED, Context
from tillmap.config.blocks import Questions
from tillmap.core.completions import Completion, Message, Question
from tillmap.core.files import read_json
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.interface.answer_formats import AnswerFormat, make_answer_format
from tillmap.llm.interface.few_shot import ITEM_COLUMNS, FewShotExamples, labelled_items, make_item, widen_paths
from tillmap.llm.interface.prompting import Recipe, Renderer, our_recipe


class LanguageModelArm(Arm):
    """Asks a language model one question a row. A subclass says which model, and what it is shown."""

    free: ClassVar[bool] = False

    def is_tuned(self, settings: Any) -> bool:
        """Whether the model that answers was tuned on this arm's training examples: it is asked without examples."""
        return self.tuned

    def examples_shown(self, settings: Any) -> int:
        """How many of a row's neighbours the model sees with their labels."""
        return 0 if self.is_tuned(settings) else int(settings.examples)

    @abstractmethod
    def gradientgurus(self, settings: Any) -> tuple[Recipe, str]:
        """The recipe of the contest's team of that name, and its answer format."""

    @abstractmethod
    def ask(self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None) -> list[Completion]:
        """One completion for each question, in order; a run that was cut off goes on.

        `allowed` is that of `Arm.allowed`. Raises ModelError, ParamsError, ProviderError or ResourceError.
        """

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """The questions that the `prompts` stage wrote are asked as they are; for new rows they are written now."""
        if context.prompts is None:
            questions, allowed = list(self.questions(context, rows)), self.allowed(context)
        else:
            questions = context.written_questions()
            allowed = read_json(context.prompts / ALLOWED) if context.settings.constrain != "off" else None
        yield from self.ask(context, questions, allowed)

    def answer_format(self, settings: Any) -> str:
        return self.gradientgurus(settings)[1] if settings.recipe == "gradientgurus" else str(settings.answer_format)

    def answers_unseen(self, settings: Questions) -> bool:
        return settings.unseen_brand

    def format_for(self, settings: Any, tree: LabelTree) -> AnswerFormat:
        """The answer format with the paths of a tree."""
        return make_answer_format(self.answer_format(settings), tree)

    def renderer(self, settings: Any, tree: LabelTree) -> Renderer:
        """How the arm asks, the same in training and afterwards."""
        recipe = our_recipe(settings.show_retailer, settings.show_price, settings.show_numbers)
        if settings.recipe == "gradientgurus":
            recipe = self.gradientgurus(settings)[0]
        return Renderer(recipe, self.format_for(settings, tree))

    def allowed(self, context: Context) -> dict[str, Any] | None:
        settings = context.settings
        if settings.constrain == "off":
            return None
        return self.format_for(settings, self.known_paths(context)).allowed_to_all(settings)

    def questions(self, context: Context, rows: pd.DataFrame) -> Iterator[Question]:
        """With `constrain: retrieved` a question allows only its neighbours' paths, widened as `widen` says.

        A row without neighbours allows any text.
        """
        settings, tree = context.settings, self.known_paths(context)
        renderer, shown = self.renderer(settings, tree), self.examples_shown(settings)
        bound = settings.constrain == "retrieved"
        few_shot = None
        if shown or bound:
            few_shot = FewShotExamples(context.training, context.neighbours(rows, settings.retriever))
        for split, row_id, *item in rows[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
            near = few_shot.examples(split, row_id) if few_shot else []
            found = widen_paths((example.path for example in near), tree, settings.widen) if bound else []
            answers = [renderer.answer_format.encode(path) for path in found]
            yield Question(split, row_id, renderer.question(make_item(*item), near[:shown]), answers or None)

    def training_examples(self, context: Context, sample: pd.DataFrame) -> Iterator[list[Message]]:
        renderer = self.renderer(context.settings, self.known_paths(context))
        for _, example in labelled_items(sample):
            yield renderer.training_example(example.item, example.path)


class LocalModelArm(LanguageModelArm):
    """Asks a model on this machine: the checkpoint in `context.base`, with the arm's own adapter if it is tuned."""

    def ask(self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None) -> list[Completion]:
        from tillmap.llm.interface.generation import Machine
        from tillmap.llm.interface.inference import LocalModel, ask_model, plan_generation

        assert context.engine is not None
        checkpoint, adapter = self.find_model(context)
        model = LocalModel(
            context.settings.engine,
            checkpoint,
            adapter,
            Machine(**context.engine.model_dump()),
            plan_generation(context.settings, context.seed, allowed),
        )
        answers = ask_model(model, questions, context.arm)
        context.notes |= {"seconds": answers.seconds, "device": _device()}
        return answers.completions

    def check(self, context: Context) -> None:
        self.find_model(context)

    def find_model(self, context: Context) -> tuple[Path, Path | None]:
        """The checkpoint that is asked, and the adapter on top of it where a tuned model was not merged.

        Raises ModelError where one is missing or incomplete.
        """
        from tillmap.llm.checkpoints import check_adapter, check_checkpoint

        base, tuned = context.base, context.model
        if not self.tuned:
            check_checkpoint(base)
            return base, None
        if (tuned / "config.json").is_file():
            check_checkpoint(tuned)
            return tuned, None
        check_checkpoint(base)
        check_adapter(tuned)
        return base, tuned


def _device() -> str:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"
