"""Engines on the real small model: vLLM and transformers say the same, and a bad question costs no other."""

from dataclasses import replace

import pytest

from tillmap.checkpoints import check_checkpoint, fetch_checkpoint
from tillmap.engines import Generation, Machine, Question
from tillmap.engines.loading import load_engine, require_memory
from tillmap.errors import ModelError, ParamsError, ResourceError

GREEDY = Generation(max_new_tokens=8, temperature=0.0, seed=0)
SMALL = Machine(dtype="float32", max_model_len=256, batch_rows=8, kv_cache_gib=0.25, eager=True)
WORDS = ("butter", "gldn mdw bttr 250 g", "toothpaste", "cat food", "shampoo")


def ask(number, text):
    turns = [("user", "apple juice"), ("assistant", "juice | orchard"), ("user", text)]
    return Question("test", number, [{"role": role, "content": content} for role, content in turns])


@pytest.fixture(scope="module")
def model(project):
    return project.folder / "models/base/rag"


@pytest.fixture(scope="module")
def vllm(model):
    return load_engine("vllm", model, SMALL, GREEDY)


def test_vllm_and_transformers_give_the_same_greedy_answers(model, vllm):
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    ours = load_engine("transformers", model, SMALL, GREEDY).answer(questions)
    theirs = vllm.answer(questions)
    exact = ("id", "text", "prompt_tokens", "completion_tokens")
    assert [[getattr(a, name) for name in exact] for a in ours] == [
        [getattr(a, name) for name in exact] for a in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_the_same_batch_gives_the_same_answers_whatever_came_before(vllm):
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    first = vllm.answer(questions)
    vllm.answer(list(reversed(questions)))
    assert vllm.answer(questions) == first


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_too_long_a_question_is_an_error_of_its_own(name, model, request):
    engine = request.getfixturevalue("vllm") if name == "vllm" else load_engine(name, model, SMALL, GREEDY)
    answers = engine.answer([ask(0, "milk"), ask(1, "milk " * 400), ask(2, "bread")])
    assert [answer.id for answer in answers] == [0, 1, 2]
    assert [answer.status == "error" for answer in answers] == [False, True, False]
    assert "max_model_len" in answers[1].error


def test_sampling_depends_on_the_row_alone(model):
    drawn = Generation(max_new_tokens=8, temperature=1.0, seed=3)
    engine = load_engine("transformers", model, SMALL, drawn)
    questions = [ask(number, "cat food") for number in range(3)]
    together = [answer.text for answer in engine.answer(questions)]
    alone = [engine.answer([question])[0].text for question in questions]
    assert together == alone
    assert len(set(together)) > 1


def constrained(own):
    """A question whose answers are limited to those of its own, or to those of the whole run."""
    return replace(ask(0, "cat food"), answers=["pet food | felixo", "cat litter | felixo"] if own else None)


@pytest.mark.parametrize("name", ["vllm", "transformers"])
@pytest.mark.parametrize("own", [True, False])
def test_only_allowed_answers_can_be_decoded(name, own, model, request):
    """Sampled wildly, from a model that was never tuned: still nothing but one of the answers."""
    wild = Generation(16, temperature=2.0, seed=1, answers=("juice | orchard", "bread | millo", "pet food | felixo"))
    engine = request.getfixturevalue("vllm") if name == "vllm" else load_engine(name, model, SMALL, wild)
    if name == "vllm":
        engine._generation, before = wild, engine._generation  # loading vLLM a second time would take half a minute
        request.addfinalizer(lambda: setattr(engine, "_generation", before))
    allowed = wild.allowed(constrained(own))
    answers = engine.answer([replace(constrained(own), id=number) for number in range(12)])
    assert {answer.text for answer in answers} <= set(allowed)
    assert len({answer.text for answer in answers}) > 1


def test_too_little_memory_says_how_much_and_what_to_do(model):
    huge = Machine("float32", 256, 8, kv_cache_gib=1e6, eager=True)
    with pytest.raises(ResourceError, match=r"needs 1000000\.\d GiB .* GiB are free; lower engine\.kv_cache_gib"):
        require_memory(model, huge)


def test_unknown_engine_is_named(model):
    with pytest.raises(ParamsError, match="no engine 'abacus'"):
        load_engine("abacus", model, SMALL, GREEDY)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/model", "nowhere"])
def test_a_model_folder_that_is_not_there(tmp_path, source):
    with pytest.raises(ModelError, match=r"model folder .*nowhere.* is not there; give a folder"):
        fetch_checkpoint(source, None, tmp_path)


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0"])
def test_a_hub_model_needs_a_pinned_revision(tmp_path, revision):
    with pytest.raises(ModelError, match="set its `revision` to a commit"):
        fetch_checkpoint("owner/name", revision, tmp_path)


def test_an_incomplete_checkpoint_names_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match="is not there"):
        check_checkpoint(tmp_path / "gone")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks tokenizer_config\.json, \*\.safetensors"):
        check_checkpoint(tmp_path)
