"""What an arm is: one way to answer, in one module of this package."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from tillmap.arms.context import Context
from tillmap.config.blocks import Section
from tillmap.core.completions import Completion, Message, Question
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import LabelPath, LabelTree

# What an arm may need to label new rows: the split with its rows, the retrievers' indexes, the arm's own model
# (models/ARM), and the checkpoint that it asks or that its model was tuned from (models/base/ARM).
Need = Literal["rows", "index", "model", "base"]


class Arm(ABC):
    """One way to answer. Subclass it in a module of `tillmap.arms`, and every command and stage knows it.

    Attributes:
        name: what params.yaml, dvc.yaml and the command line call it.
        Settings: its block of params.yaml.
        free: whether asking costs nothing. The confidences of all arms then lean on what it says, and a pilot
            (`run.pilot_rows`) does not hold it back.
        paid: whether asking costs money at a provider.
        tuned: whether its model is tuned on labelled rows (`training_examples`).
        reads: what it needs to label new rows.
        training_params: what `train` reads of params.yaml, beside the seed.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Section]]
    free: ClassVar[bool] = True
    paid: ClassVar[bool] = False
    tuned: ClassVar[bool] = False
    reads: ClassVar[tuple[Need, ...]]
    training_params: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """One completion for each of `rows` (split, id, subset, description, retailer, price), in order.

        The `infer` stage and `tillmap predict` both call this. What it noted on the way (seconds spent, tokens paid)
        goes into `context.notes`.
        """

    def check(self, context: Context) -> None:
        """Look whether the arm's files are whole before hours go into a run. Raises InputError or ModelError."""
        return None

    def known_paths(self, context: Context) -> LabelTree:
        """The label paths that the arm may answer with: those of the training subset, if it does not say otherwise."""
        return context.tree

    def training_paths(self, context: Context) -> LabelTree:
        """The label paths of the training subset, which confidences are fitted with."""
        return context.tree

    def answer_format(self, settings: Any) -> str:
        """How the arm writes a path down: the name of an answer format, `json`, `joined` or `short`."""
        return "json"

    def answers_unseen(self, settings: Any) -> bool:
        """Whether an answer may be a path that is not among the known ones."""
        return False

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        """Train the arm's model into an empty folder. Gives what it took and what came out, for a metrics file.

        `training` is the block of params.yaml named after the stage, None where there is none. Of what it gives,
        `train_seconds` and `device` ("cpu" or "gpu") go into the arm's bill.
        """
        raise ParamsError(f"the {self.name} arm has nothing to train")

    def questions(self, context: Context, rows: pd.DataFrame) -> Iterator[Question]:
        """One question for each of `rows`, in order, of an arm that asks a language model."""
        raise ParamsError(f"the {self.name} arm asks no language model")

    def training_examples(self, context: Context, sample: pd.DataFrame) -> Iterator[list[Message]]:
        """One conversation for each labelled row of `sample`, in order: its question, then its answer."""
        raise ParamsError(f"the {self.name} arm is not tuned")

    def allowed(self, context: Context) -> dict[str, Any] | None:
        """The answers that are allowed to every question, as JSON can write it; None where any text is."""
        return None


def answer_of(path: LabelPath) -> str:
    """A path as an arm that asks no model writes it down: the answer format `json`."""
    return json.dumps(path._asdict(), ensure_ascii=False)
