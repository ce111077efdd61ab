"""The context of an arm: its settings, files and data. An arm itself knows no paths and does not read params.yaml."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from tillmap.config.blocks import Engine, Provider
from tillmap.core.completions import Question
from tillmap.core.files import read_table
from tillmap.core.stored import read_job, read_questions, read_rows
from tillmap.core.taxonomy import KEY, LabelTree, Levels

T = TypeVar("T")
FindNeighbours = Callable[[pd.DataFrame, str], pd.DataFrame]  # rows and a retriever's name to a neighbours table

QUESTIONS = "questions.jsonl"
ALLOWED = "answers.json"  # the answers that are allowed to all questions, if they are limited
TRAINING = "training.jsonl"  # what the arm's model is tuned on
JOB = "job.json"  # the record of a model at a provider: its name and what its tuning cost


@dataclass
class Context:
    """What an arm needs to train and to answer.

    Attributes:
        arm: the arm's name.
        settings: its block of params.yaml.
        seed: the random seed.
        engine, provider: these blocks of params.yaml; None in a stage that does not declare them.
        model, base: the folders of the arm's own model, and of the checkpoint that it asks or was tuned from.
        linear: the folder of the linear arm's model, for arms that build on it.
        rows_file, tree_file: the files with the split's rows, and with the label tree of the training subset.
        curve: the CSV file for the losses of a training that writes them (`Arm.curve`).
        about_file: the file with descriptions from outside, which prompts show; None if there are none.
        prompts: the folder with the questions that the `prompts` stage wrote; None if the arm writes them itself.
        neighbours: gives the neighbours table of some rows, by the name of a retriever.
        notes: filled by the arm while it answers, for the metrics: `seconds` (with those of resumed runs), `device`,
            and what `providers.inference.ask_provider` returns.
    """

    arm: str
    settings: Any
    seed: int
    model: Path
    base: Path
    linear: Path
    rows_file: Path
    tree_file: Path
    neighbours: FindNeighbours
    engine: Engine | None = None
    provider: Provider | None = None
    curve: Path | None = None
    about_file: Path | None = None
    prompts: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    _loaded: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """All rows of the split: split, id, subset, description, retailer, price, the levels and product."""
        return read_rows(self.rows_file)

    @property
    def asked(self) -> pd.DataFrame:
        """The rows to answer: those with a written question (split and id only), or all rows outside `train`."""
        if self.prompts is None:
            return self.rows[self.rows["subset"] != "train"]
        keys = [(question.split, question.id) for question in self.written_questions()]
        return pd.DataFrame(keys, columns=KEY)

    @cached_property
    def training(self) -> pd.DataFrame:
        """The rows of the training subset."""
        return self.rows[self.rows["subset"] == "train"]

    @cached_property
    def tree(self) -> LabelTree:
        """The label paths of the training subset."""
        return LabelTree.from_table(read_table(self.tree_file))

    @cached_property
    def about(self) -> dict[str, str]:
        """Descriptions from outside, by normalised text of a row."""
        if self.about_file is None:
            return {}
        table = read_table(self.about_file, ["text", "about"])
        return dict(zip(table["text"], table["about"], strict=True))

    @property
    def levels(self) -> Levels:
        """The levels of the taxonomy."""
        return self.tree.levels

    @cached_property
    def job(self) -> dict[str, Any]:
        """The record of the model at a provider, see `providers.tuned_model`."""
        return read_job(self.model / JOB)

    def written_questions(self) -> list[Question]:
        """The questions that the `prompts` stage wrote."""
        assert self.prompts is not None
        return list(read_questions(self.prompts / QUESTIONS))

    def load_once(self, name: str, load: Callable[[], T]) -> T:
        """The result of `load`, called only the first time: a model is loaded once for all batches of rows."""
        if name not in self._loaded:
            self._loaded[name] = load()
        return self._loaded[name]  # type: ignore[no-any-return]
