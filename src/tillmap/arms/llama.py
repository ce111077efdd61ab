"""The `llama` arm: a language model tuned on labelled rows, asked without examples."""

from collections.abc import Iterator

import pandas as pd

from tillmap.config.params import Llama
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.answer_formats import Target, make_target
from tillmap.llm.few_shot import ITEM_COLUMNS, Evidence, labelled_items, make_item, widen_paths
from tillmap.llm.prompting import SEED_LLAMA, Message, Renderer, our_recipe
from tillmap.llm.questions import Question


def target_of(params: Llama, tree: LabelTree) -> Target:
    """The form of the arm's answers; the seed's recipe has its own."""
    return make_target("json" if params.recipe == "seed" else params.target, tree)


def write_questions(
    asked: pd.DataFrame, training: pd.DataFrame, neighbours: pd.DataFrame, tree: LabelTree, params: Llama
) -> Iterator[Question]:
    """One question for each row of `asked`, in order: the row, and nothing else.

    The tables are those of `rag.write_questions`; neighbours only say which answers `constrain: retrieved` allows.
    """
    renderer = renderer_of(params, tree)
    evidence = Evidence(training, neighbours) if params.constrain == "retrieved" else None
    for split, row_id, *shown in asked[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
        near = evidence.examples(split, row_id) if evidence else []
        found = widen_paths((example.path for example in near), tree, params.widen)
        answers = [renderer.target.encode(path) for path in found]
        yield Question(split, row_id, renderer.question(make_item(*shown)), answers or None)


def write_training(sample: pd.DataFrame, tree: LabelTree, params: Llama) -> Iterator[list[Message]]:
    """One conversation for each labelled row, in order: exactly its question, then its answer."""
    renderer = renderer_of(params, tree)
    for _, example in labelled_items(sample):
        yield renderer.training_example(example.item, example.path)


def renderer_of(params: Llama, tree: LabelTree) -> Renderer:
    """How the arm asks, in training and afterwards."""
    ours = our_recipe(params.show_retailer, params.show_price, params.show_numbers)
    return Renderer(SEED_LLAMA if params.recipe == "seed" else ours, target_of(params, tree))
