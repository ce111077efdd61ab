"""The `openai` arm: a model tuned at a provider and asked without examples, or an untuned one that sees neighbours."""

from collections.abc import Iterator

import pandas as pd

from tillmap.config.params import OpenAI
from tillmap.core.completions import Message, Question
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.answer_formats import AnswerFormat, make_answer_format
from tillmap.llm.few_shot import ITEM_COLUMNS, FewShotExamples, labelled_items, make_item, widen_paths
from tillmap.llm.prompting import GRADIENTGURUS_RAG, Recipe, Renderer, our_recipe

GRADIENTGURUS_OPENAI = Recipe(
    system="Your task is to classify the user text",
    item_format="line",
    examples="turns",
    show_retailer=True,
    show_price=True,
    item_end=" ->",
)


def answer_format_of(params: OpenAI, tree: LabelTree) -> AnswerFormat:
    """The form of the arm's answers; GradientGurus' recipes have their own."""
    seed = "joined" if params.mode == "tuned" else "json"
    return make_answer_format(seed if params.recipe == "gradientgurus" else params.answer_format, tree)


def stop_of(params: OpenAI) -> tuple[str, ...]:
    """Where an answer ends: GradientGurus' bar, which no joined label holds, or a line's end."""
    return ("|",) if params.mode == "tuned" and params.recipe == "gradientgurus" else ("\n",)


def write_questions(
    asked: pd.DataFrame, training: pd.DataFrame, neighbours: pd.DataFrame, tree: LabelTree, params: OpenAI
) -> Iterator[Question]:
    """One question for each row of `asked`, in order; the tables are those of `rag.write_questions`.

    A tuned model sees the row alone, an untuned one its nearest neighbours too. With `constrain: retrieved` a question
    allows only answers that stand for some neighbour's path, widened as `widen` says.
    """
    renderer = renderer_of(params, tree)
    untuned, bound = params.mode == "retrieved", params.constrain == "retrieved"
    evidence = FewShotExamples(training, neighbours) if untuned or bound else None
    for split, row_id, *shown in asked[["split", "id", *ITEM_COLUMNS]].itertuples(index=False, name=None):
        near = evidence.examples(split, row_id) if evidence else []
        found = widen_paths((example.path for example in near), tree, params.widen) if bound else []
        answers = [renderer.answer_format.encode(path) for path in found]
        seen = near[: params.examples] if untuned else []
        yield Question(split, row_id, renderer.question(make_item(*shown), seen), answers or None)


def write_training(sample: pd.DataFrame, tree: LabelTree, params: OpenAI) -> Iterator[list[Message]]:
    """One conversation for each labelled row, in order: exactly its question, then its answer."""
    renderer = renderer_of(params, tree)
    for _, example in labelled_items(sample):
        yield renderer.training_example(example.item, example.path)


def renderer_of(params: OpenAI, tree: LabelTree) -> Renderer:
    """How the arm asks, in training and afterwards."""
    seed = GRADIENTGURUS_OPENAI if params.mode == "tuned" else GRADIENTGURUS_RAG
    ours = our_recipe(params.show_retailer, params.show_price, params.show_numbers)
    return Renderer(seed if params.recipe == "gradientgurus" else ours, answer_format_of(params, tree))
