"""The `llama` arm: a language model tuned on labelled rows, asked without examples."""

from collections.abc import Iterator

import pandas as pd

from tillmap.config.params import Llama
from tillmap.core.completions import Message, Question
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.answer_formats import AnswerFormat, make_answer_format
from tillmap.llm.few_shot import ITEM_COLUMNS, FewShotExamples, labelled_items, make_item, widen_paths
from tillmap.llm.prompting import GRADIENTGURUS_LLAMA, Renderer, our_recipe


def answer_format_of(params: Llama, tree: LabelTree) -> AnswerFormat:
    """The form of the arm's answers; GradientGurus' recipe has its own."""
    return make_answer_format("json" if params.recipe == "gradientgurus" else params.answer_format, tree)


def write_questions(
    asked: pd.DataFrame, training: pd.DataFrame, neighbours: pd.DataFrame, tree: LabelTree, params: Llama
) -> Iterator[Question]:
    """One question for each row of `asked`, in order: the row, and nothing else.

    The tables are those of `rag.write_questions`; neighbours only say which answers `constrain: retrieved` allows.
    """
    renderer = renderer_of(params, tree)
    evidence = FewShotExamples(training, neighbours) if params.constrain == "retrieved" else None
    for split, row_id, *shown in asked[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
        near = evidence.examples(split, row_id) if evidence else []
        found = widen_paths((example.path for example in near), tree, params.widen)
        answers = [renderer.answer_format.encode(path) for path in found]
        yield Question(split, row_id, renderer.question(make_item(*shown)), answers or None)


def write_training(sample: pd.DataFrame, tree: LabelTree, params: Llama) -> Iterator[list[Message]]:
    """One conversation for each labelled row, in order: exactly its question, then its answer."""
    renderer = renderer_of(params, tree)
    for _, example in labelled_items(sample):
        yield renderer.training_example(example.item, example.path)


def renderer_of(params: Llama, tree: LabelTree) -> Renderer:
    """How the arm asks, in training and afterwards."""
    ours = our_recipe(params.show_retailer, params.show_price, params.show_numbers)
    return Renderer(GRADIENTGURUS_LLAMA if params.recipe == "gradientgurus" else ours, answer_format_of(params, tree))
