"""What an arm is given to work with. An arm knows no path and no params.yaml."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from tillmap.config.blocks import Engine, Provider
from tillmap.core.completions import Question
from tillmap.core.files import read_json, read_jsonl, read_table
from tillmap.core.taxonomy import KEY, LabelTree

T = TypeVar("T")
Neighbours = Callable[[pd.DataFrame, str], pd.DataFrame]

QUESTIONS = "questions.jsonl"
ALLOWED = "answers.json"  # beside the questions, where the same answers are the only ones allowed to all
TRAINING = "training.jsonl"  # what the arm's model is tuned on
JOB = "job.json"  # of a model tuned at a provider: its name and what it cost


@dataclass
class Context:
    """One arm's settings, its files, and how it gets at labelled rows and their neighbours.

    Attributes:
        arm: the arm's name.
        settings: its block of params.yaml.
        seed: that of params.yaml.
        engine, provider: their blocks; None in a stage that declares no need of them.
        model, base: the folders of the arm's own model and of the checkpoint it asks.
        rows_file, tree_file: the split's rows and the label tree of its training subset.
        prompts: the folder of the questions written beforehand; None where they are to be written now.
        neighbours: gives the neighbours table of some rows by the retriever of that name.
        notes: filled by the arm while it answers: `seconds` it took where resumed work counts too, `device`, prices.
    """

    arm: str
    settings: Any
    seed: int
    model: Path
    base: Path
    rows_file: Path
    tree_file: Path
    neighbours: Neighbours
    engine: Engine | None = None
    provider: Provider | None = None
    prompts: Path | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Every row of the split: split, id, subset, description, retailer, price, the four labels, product."""
        return read_table(self.rows_file)

    @property
    def asked(self) -> pd.DataFrame:
        """The rows to answer: those that questions were written for (split and id), else all that do not train."""
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
    def job(self) -> dict[str, Any]:
        """The record of the model tuned at a provider, or of who is asked untuned."""
        return dict(read_json(self.model / JOB))

    def written_questions(self) -> list[Question]:
        """The questions that the `prompts` stage wrote."""
        assert self.prompts is not None
        return [Question(**record) for record in read_jsonl(self.prompts / QUESTIONS)]

    def keep(self, name: str, load: Callable[[], T]) -> T:
        """The same loaded thing, say a model, for every batch of rows."""
        if name not in self._kept:
            self._kept[name] = load()
        return self._kept[name]  # type: ignore[no-any-return]
