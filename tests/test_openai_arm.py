"""The openai arm: GradientGurus' texts to the letter, training examples that are the questions, and retrieved examples."""

from types import SimpleNamespace

import pandas as pd
import pytest

from openai_client import connect
from openai_server import LocalOpenAI
from tillmap.arms import openai, rag
from tillmap.core.files import write_jsonl
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.generation import Generation
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.requests import Asking
from tillmap.providers.tuning_jobs import Tuning, tune
from tillmap.splitting.samples import sample_for_training

BABY = LabelPath("baby care", "baby care detail unknown total", "baby care", "pure baby")
BUTTER = LabelPath("food", "dairy", "butter", "golden meadow")
ROWS = pd.DataFrame(
    [(1, "baby disposable bed mats 10 s", "herbgrove", 2.99, *BABY), (2, "gldn bttr", "alder", float("nan"), *BUTTER)],
    columns=["id", "description", "retailer", "price", *LEVELS],
).assign(split="train")
TREE = LabelTree.from_rows(ROWS)
NEIGHBOURS = pd.DataFrame([("train", 1, 0, 2, 0.5)], columns=["split", "id", "rank", "neighbour", "score"])


def settings(**changes):
    values = {
        "mode": "tuned", "recipe": "ours", "examples": 3, "show_retailer": True, "show_price": True,
        "show_numbers": True, "target": "short", "constrain": "off", "widen": None, "unseen_brand": False,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def asked(chosen):
    return list(openai.write_questions(ROWS, ROWS, NEIGHBOURS, TREE, chosen))


def test_the_seeds_texts_to_the_letter():
    chosen = settings(recipe="gradientgurus", answer_format="short")  # GradientGurus' recipe has a target of its own
    first, second = openai.write_training(ROWS, TREE, chosen)
    assert first == [
        {"role": "system", "content": "Your task is to classify the user text"},
        {"role": "user", "content": "baby disposable bed mats 10 s | herbgrove | 2.99 ->"},
        {"role": "assistant", "content": "baby care__baby care detail unknown total__baby care__pure baby"},
    ]
    assert second[1]["content"] == "gldn bttr | alder | ? ->"
    assert openai.stop_of(chosen) == ("|",)


@pytest.mark.parametrize("recipe", ["gradientgurus", "ours"])
def test_a_training_example_begins_with_exactly_its_question(recipe):
    chosen = settings(recipe=recipe)
    for question, example in zip(asked(chosen), openai.write_training(ROWS, TREE, chosen), strict=True):
        *shown, answer = example
        assert shown == question.messages
        assert openai.answer_format_of(chosen, TREE).decode(answer["content"]) in (BABY, BUTTER)


def test_no_answer_holds_what_ends_it():
    tricky = LabelPath("a|b", "c\nd", "e__f", "g | h")
    tree = LabelTree.from_rows(pd.DataFrame([tricky], columns=list(LEVELS)).assign(retailer="x"))
    for recipe, target in (("seed", "joined"), ("ours", "short"), ("ours", "joined"), ("ours", "json")):
        chosen = settings(recipe=recipe, target=target)
        written = openai.answer_format_of(chosen, tree).encode(tricky)
        assert not any(stop in written for stop in openai.stop_of(chosen))


@pytest.mark.parametrize("recipe", ["gradientgurus", "ours"])
def test_retrieved_asks_as_the_rag_arm_does(recipe):
    chosen = settings(mode="retrieved", recipe=recipe, constrain="retrieved")
    theirs = list(rag.write_questions(ROWS, ROWS, NEIGHBOURS, TREE, chosen))
    assert asked(chosen) == theirs
    assert theirs[0].answers == [openai.answer_format_of(chosen, TREE).encode(BUTTER)]
    assert openai.answer_format_of(chosen, TREE).name == ("json" if recipe == "gradientgurus" else "short")


def test_a_sample_keeps_every_path():
    rows = pd.concat([ROWS.iloc[[0]]] * 30 + [ROWS.iloc[[1]]]).assign(id=range(31))
    sample = sample_for_training(rows, 10, "stratified", seed=1)
    examples = list(openai.write_training(sample, TREE, settings()))
    assert len(examples) == 10
    assert {example[-1]["content"] for example in examples} == {
        "baby care | pure baby", "butter | golden meadow",
    }  # fmt: skip


def test_tuned_then_asked_in_batches(tmp_path):
    """From rows to completions, with a model tuned on the way."""
    chosen = settings(recipe="gradientgurus")
    examples = list(openai.write_training(ROWS, TREE, chosen))
    answers = {example[-2]["content"]: example[-1]["content"] for example in examples}
    with LocalOpenAI(lambda body: answers[body["messages"][-1]["content"]]) as server:
        service = connect(server.base_url)
        file = tmp_path / "training.jsonl"
        write_jsonl([{"messages": example} for example in examples] * 5, file)
        tuned = tune(service, file, Tuning("gpt-4o-mini-2024-07-18", "tillmap", 1, 2), tmp_path / "job", "a" * 32)
        asking = Asking(tuned["model"], Generation(64, 0.0, 0), stop=openai.stop_of(chosen))
        done = answer_by_batch(
            asked(chosen), service, asking, limits=Limits(), retries=1, folder=tmp_path / "run", run="b" * 32
        )
        assert server.violations == []
    target = openai.answer_format_of(chosen, TREE)
    assert [target.decode(answer.text) for answer in done] == [BABY, BUTTER]
