"""The base classes of the arms that ask a language model: prompts, allowed answers and inference."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pandas as pd

from tillmap.arms.base import Arm
from tillmap.arms.context import ALLOWED, Context
from tillmap.config.blocks import Layout, Questions
from tillmap.core.completions import LETTERS, Completion, Message, Question, spell_out
from tillmap.core.errors import ParamsError
from tillmap.core.files import read_as, read_json
from tillmap.core.taxonomy import KEY, LabelTree, Levels
from tillmap.llm.interface.answer_formats import Allowed, AnswerFormat, make_answer_format
from tillmap.llm.interface.few_shot import (
    ITEM_COLUMNS,
    Candidates,
    FewShotExamples,
    described,
    labelled_items,
    make_item,
    widen_paths,
)
from tillmap.llm.interface.prompting import Candidate, Example, Recipe, Renderer, our_recipe
from tillmap.retrieval import PATHS, TRAINING_PATHS


class LanguageModelArm(Arm):
    """Asks a language model one question per row. A subclass defines the model and what the prompt shows."""

    free: ClassVar[bool] = False

    def is_tuned(self, settings: Any) -> bool:
        """Whether the model was tuned on this arm's training examples. Then it is asked without few-shot examples."""
        return self.tuned

    def examples_shown(self, settings: Any) -> int:
        """The number of few-shot examples in a prompt."""
        return 0 if self.is_tuned(settings) else int(settings.examples)

    def definitions_shown(self, settings: Any) -> int:
        """The number of labels that a prompt defines; none for a tuned model, which saw no definitions in training."""
        return 0 if self.is_tuned(settings) else int(settings.definitions)

    def usual_price_shown(self, settings: Any) -> bool:
        """Whether a prompt says what products of a candidate's labels usually cost; not for a tuned model."""
        return not self.is_tuned(settings) and bool(settings.usual_price)

    def lists_paths(self, settings: Any) -> bool:
        """Whether a prompt shows the paths to choose from; not for a tuned model, which saw none in training."""
        return not self.is_tuned(settings)

    def about_shown(self, context: Context) -> dict[str, str]:
        """The descriptions from outside in a prompt, by normalised text; none for a tuned model, as of definitions."""
        return {} if self.is_tuned(context.settings) else context.about

    @abstractmethod
    def gradientgurus(self, settings: Any) -> tuple[Recipe, str]:
        """The recipe of the contest team GradientGurus for this arm, and the name of its answer format."""

    def ask(self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None) -> list[Completion]:
        """One completion for each question, in order. A killed run resumes with the questions that have no answer.

        `allowed` is the result of `Arm.allowed`. Raises ModelError, ParamsError, ProviderError or ResourceError.
        """
        completions = self.answers_to(context, questions, allowed)
        return [spell_out(*each) for each in zip(completions, questions, strict=True)]

    @abstractmethod
    def answers_to(
        self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None
    ) -> list[Completion]:
        """As `ask`, with answers as the model gives them."""

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """Ask the questions that the `prompts` stage wrote. For new rows, which have none, write them first."""
        if context.prompts is None:
            questions, allowed = list(self.questions(context, rows)), self.allowed(context)
        else:
            questions = context.written_questions()
            allowed = _read_allowed(context.prompts / ALLOWED) if context.settings.constrain != "off" else None
        yield from self.ask(context, questions, allowed)

    def answer_format(self, settings: Any) -> str:
        return self.gradientgurus(settings)[1] if settings.recipe == "gradientgurus" else str(settings.answer_format)

    def answers_unseen(self, settings: Questions) -> bool:
        # Candidates may pair a known chain with a known brand anew. A free answer could invent a brand.
        return settings.unseen_brand or (settings.retriever == PATHS and settings.constrain != "off")

    def format_for(self, settings: Any, tree: LabelTree) -> AnswerFormat:
        """The arm's answer format for the paths of a tree."""
        return make_answer_format(self.answer_format(settings), tree)

    def renderer(self, settings: Any, tree: LabelTree) -> Renderer:
        """Makes the messages, the same in training and inference."""
        recipe = our_recipe(settings.show_retailer, settings.show_price, settings.show_numbers, settings.show_sizes)
        if settings.recipe == "gradientgurus":
            recipe = self.gradientgurus(settings)[0]
        layout: Layout = settings.layout or "list"
        answers = self.format_for(settings, tree)
        return Renderer(recipe, answers, self.definitions_shown(settings), layout, settings.ranking)

    def check_settings(self, settings: Questions, levels: Levels) -> None:
        """Raise ParamsError if a param names a level that there is not, or needs another param or level to be set."""
        if self.is_tuned(settings) and self.lists_paths(settings) and settings.retriever != PATHS:
            raise ParamsError(
                f"{self.name}.layout shows the paths to choose from, but {self.name}.retriever is "
                f"{settings.retriever}; set it to {PATHS}, or the layout to null"
            )
        if settings.widen is not None and settings.widen not in levels.chain:
            known = ", ".join(levels.chain)
            raise ParamsError(f"{self.name}.widen is {settings.widen!r}; expected null or one of the levels {known}")
        if settings.unseen_brand and levels.brand is None:
            raise ParamsError(
                f"{self.name}.unseen_brand is true, but the taxonomy has no brand level; set it to false, or name the "
                "level in `taxonomy.brand`"
            )

    def allowed(self, context: Context) -> dict[str, Any] | None:
        settings = context.settings
        if settings.constrain == "off":
            return None
        tree = self.known_paths(context)
        self.check_settings(settings, tree.levels)
        return self.format_for(settings, tree).allowed_to_all(settings)

    def questions(self, context: Context, rows: pd.DataFrame) -> Iterator[Question]:
        """One question for each of `rows`, in order, see `questions_for`."""
        yield from self.questions_for(
            context, rows, self.known_paths(context), list_paths=self.lists_paths(context.settings)
        )

    def questions_for(
        self, context: Context, rows: pd.DataFrame, tree: LabelTree, *, list_paths: bool
    ) -> Iterator[Question]:
        """One question for each of `rows`, in order.

        With `constrain: retrieved` a question allows only the row's candidate paths (`retriever: paths`) or the paths
        of its neighbours, widened by `widen`. For a row without any, all texts are allowed.

        Args:
            context: the settings, the training rows and what finds neighbours and candidates.
            rows: split, id, description, retailer and price.
            tree: the paths that may be answered. A candidate is left out if neither it nor its chain is one of them.
            list_paths: whether the prompt shows candidate paths.
        """
        settings, levels = context.settings, tree.levels
        self.check_settings(settings, levels)
        renderer, shown = self.renderer(settings, tree), self.examples_shown(settings)
        answers, about, bound = renderer.answer_format, self.about_shown(context), settings.constrain == "retrieved"
        evidence: Candidates | FewShotExamples | None = None
        if shown or bound or (list_paths and settings.retriever == PATHS):
            evidence = self._evidence(context, rows, levels)
        for split, row_id, *item in rows[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
            near: list[Example] = []
            candidates: list[Candidate] = []
            if isinstance(evidence, Candidates):
                candidates = evidence.of(split, row_id, settings.candidates, shown)
                candidates = renderer.ordered([each for each in candidates if answers.is_open_to(each.path)])
            elif evidence:
                near = evidence.examples(split, row_id)
            listed = candidates if list_paths else []
            messages = renderer.question(described(make_item(*item), about), near[:shown], listed)
            if listed and renderer.layout == "letters":
                choices = [answers.encode(each.path) for each in listed]
                yield Question(split, row_id, messages, list(LETTERS[: len(choices)]) if bound else None, choices)
                continue
            paths = [*(each.path for each in near), *(each.path for each in candidates)]
            texts = [answers.encode(path) for path in widen_paths(paths, tree, settings.widen)]
            yield Question(split, row_id, messages, (texts or None) if bound else None)

    def _evidence(self, context: Context, rows: pd.DataFrame, levels: Levels) -> "Candidates | FewShotExamples":
        """What the retriever found for some rows."""
        settings = context.settings
        found = context.neighbours(rows, settings.retriever).merge(rows[KEY], on=KEY)
        if settings.retriever == PATHS:
            return Candidates(context.training, found, levels, self.usual_price_shown(settings))
        return FewShotExamples(context.training, found, levels)

    def training_examples(self, context: Context, sample: pd.DataFrame) -> Iterator[list[Message]]:
        tree = self.known_paths(context)
        renderer = self.renderer(context.settings, tree)
        candidates = None
        if self.lists_paths(context.settings):
            found = context.neighbours(sample, TRAINING_PATHS).merge(sample[KEY], on=KEY)
            candidates = Candidates(context.training, found, tree.levels, usual=False)
        for row_id, example in labelled_items(sample, tree.levels):
            listed = candidates.of("train", row_id, context.settings.candidates, 0) if candidates else ()
            yield renderer.training_example(*example, candidates=renderer.ordered(listed))


def _read_allowed(file: Path) -> dict[str, Any]:
    """What `Arm.allowed` gave. Raises InputError or ModelError if the file is missing or damaged."""
    return asdict(read_as(Allowed, file, read_json(file)))


class Tokens(NamedTuple):
    """Tokens of a training example (0: the arm is not tuned), a question, and an answer with its end.

    `cached` of the question's are the same in all questions.
    """

    example: int
    question: int
    answer: int
    cached: int = 0


class LocalModelArm(LanguageModelArm):
    """Asks a model on this machine: the checkpoint in `context.base`, with the arm's adapter if it is tuned.

    Attributes:
        contest: the mean tokens of the contest's rows with Llama 3's tokenizer, by recipe, for an estimate.
    """

    contest: ClassVar[Mapping[str, Tokens]]

    def answers_to(
        self, context: Context, questions: Sequence[Question], allowed: dict[str, Any] | None
    ) -> list[Completion]:
        from tillmap.llm.interface.generation import Machine
        from tillmap.llm.interface.inference import KeptEngine, LocalModel, ask_model, plan_generation

        assert context.engine is not None
        checkpoint, adapter = self.find_model(context)
        model = LocalModel(
            context.settings.engine,
            checkpoint,
            adapter,
            Machine(**context.engine.model_dump()),
            plan_generation(context.settings, context.seed, allowed),
        )
        answers = ask_model(model, questions, context.arm, context.load_once("engine", KeptEngine))
        context.notes |= {"seconds": answers.seconds, "device": _device()}
        return answers.completions

    def check(self, context: Context) -> None:
        self.find_model(context)

    def find_model(self, context: Context) -> tuple[Path, Path | None]:
        """The folders of the checkpoint and of the adapter. There is no adapter if the model is untuned or merged.

        Raises ModelError if one is missing or incomplete.
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
