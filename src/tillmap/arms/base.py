"""The base class of the arms."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from tillmap.arms.context import Context
from tillmap.config.blocks import Section
from tillmap.core.completions import Completion, Message, Question
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels

# What an arm can need to label new rows. rows: data/split. index: the retrievers' indexes. model: the arm's own model,
# models/ARM. fits: the linear model. base: the checkpoint that it asks, or that its model was tuned from,
# models/base/ARM.
Need = Literal["rows", "index", "model", "fits", "base"]


class Arm(ABC):
    """One way to label rows. A subclass in a module of `tillmap.arms` is known to every command and stage.

    CONTRIBUTING.md shows how to add one.

    Attributes:
        name: its name in params.yaml, dvc.yaml and on the command line.
        Settings: its block of params.yaml.
        free: whether it needs no language model. The confidences of all arms use the answers of free arms as signals,
            and a pilot (`run.pilot_rows`) does not limit them.
        paid: whether a provider charges for its answers.
        proposes: of the free arms that are on, the one with the highest number says which paths language models choose
            from, and answers the rows that a cascade does not route; one with 0 never does.
        tuned: whether its model is tuned on labelled rows (`training_examples`).
        curve: whether its training writes the loss of each step to `Context.curve`.
        reads: what it needs to label new rows.
        training_params: the params that `train` reads, beside the seed.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Section]]
    free: ClassVar[bool] = True
    paid: ClassVar[bool] = False
    proposes: ClassVar[int] = 0
    tuned: ClassVar[bool] = False
    curve: ClassVar[bool] = False
    reads: ClassVar[tuple[Need, ...]]
    training_params: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """One completion for each of `rows` (split, id, subset, description, retailer, price), in order.

        The `infer` stage and `tillmap predict` both call this method. An arm can write what its answers took (seconds,
        dollars) to `context.notes`.
        """

    def words(self, context: Context, rows: pd.DataFrame, paths: Sequence[LabelPath]) -> list[dict[str, float]] | None:
        """What each word of a new row's line adds to the score of its path; None if the arm has no such scores.

        `rows` has description, retailer and price; `paths` has the arm's answer to each. The values of a row sum to the
        score, see `linear.words`.
        """
        return None

    def check(self, context: Context) -> None:
        """Check the arm's files before a long run. Raises InputError or ModelError if one is missing or damaged."""
        return None

    def known_paths(self, context: Context) -> LabelTree:
        """The label paths that the arm can answer with. By default those of the training subset."""
        return context.tree

    def training_paths(self, context: Context) -> LabelTree:
        """The label paths of the training subset. The signals of confidences are computed with them."""
        return context.tree

    def answer_format(self, settings: Any) -> str:
        """The name of the answer format that the arm writes paths in: `json`, `joined` or `short`."""
        return "json"

    def answers_unseen(self, settings: Any) -> bool:
        """Whether an answer may be a path that is not a known one."""
        return False

    def is_calibrated(self, context: Context) -> bool:
        """Whether the share of an answer says how likely it is right, fitted on more rows than `calibration` has."""
        return False

    @property
    def trains(self) -> bool:
        """Whether the arm has a model of its own, trained by the stage `train_ARM`."""
        return type(self).train is not Arm.train

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        """Train the arm's model.

        Args:
            context: the arm's settings and files.
            training: the `train_ARM` block of params.yaml; None if there is none.
            folder: an empty folder for the model.

        Returns a block for the stage's metrics file. If it has `train_seconds` and `device` ("cpu" or "gpu"), the bill
        uses these instead of the stage's own time on a CPU. Raises what training raises.
        """
        raise ParamsError(f"the {self.name} arm has nothing to train")

    def questions(self, context: Context, rows: pd.DataFrame) -> Iterator[Question]:
        """One question for each of `rows`, in order. Only for arms that ask a language model."""
        raise ParamsError(f"the {self.name} arm asks no language model")

    def teaching(self, context: Context) -> pd.DataFrame:
        """The rows of the training subset that the training examples are drawn from. Only for tuned arms."""
        return context.training

    def training_examples(self, context: Context, sample: pd.DataFrame) -> Iterator[list[Message]]:
        """One conversation (question and answer) for each labelled row of `sample`, in order. Only for tuned arms."""
        raise ParamsError(f"the {self.name} arm is not tuned")

    def allowed(self, context: Context) -> dict[str, Any] | None:
        """The answers that are allowed to every question, as a JSON value; None allows any text."""
        return None


def answer_of(path: LabelPath, levels: Levels) -> str:
    """A path in the answer format `json`, which arms without a language model use."""
    return json.dumps(levels.of(path), ensure_ascii=False)
