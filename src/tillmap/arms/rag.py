"""The `rag` arm: an untuned language model that sees the retrieved neighbours of each row with their labels."""

from collections.abc import Iterator

import pandas as pd

from tillmap.config.params import Rag
from tillmap.core.completions import Question
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.answer_formats import AnswerFormat, make_answer_format
from tillmap.llm.few_shot import ITEM_COLUMNS, FewShotExamples, make_item, widen_paths
from tillmap.llm.prompting import GRADIENTGURUS_RAG, Renderer, our_recipe


def answer_format_of(params: Rag, tree: LabelTree) -> AnswerFormat:
    """The form of the arm's answers; GradientGurus' recipe has its own."""
    return make_answer_format("json" if params.recipe == "gradientgurus" else params.answer_format, tree)


def write_questions(
    asked: pd.DataFrame, training: pd.DataFrame, neighbours: pd.DataFrame, tree: LabelTree, params: Rag
) -> Iterator[Question]:
    """One question for each row of `asked`, in order, with the nearest of its neighbours as examples.

    `asked` and `training` are rows tables, `neighbours` a neighbours table that covers `asked`. With `constrain:
    retrieved` a question allows only the answers that stand for some neighbour's path, widened as `widen` says, and
    any text where a row has no neighbours.
    """
    renderer = renderer_of(params, tree)
    target = renderer.answer_format
    evidence = FewShotExamples(training, neighbours)
    for split, row_id, *shown in asked[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
        examples = evidence.examples(split, row_id)
        found = widen_paths((example.path for example in examples), tree, params.widen)
        yield Question(
            split,
            row_id,
            renderer.question(make_item(*shown), examples[: params.examples]),
            [target.encode(path) for path in found] if params.constrain == "retrieved" and found else None,
        )


def renderer_of(params: Rag, tree: LabelTree) -> Renderer:
    """How the arm asks."""
    ours = our_recipe(params.show_retailer, params.show_price, params.show_numbers)
    return Renderer(GRADIENTGURUS_RAG if params.recipe == "gradientgurus" else ours, answer_format_of(params, tree))
