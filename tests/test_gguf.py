"""GGUF files as bases: the same weights, tokens and answers as the checkpoint that they were made from."""

import json
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
from project import ROOT, Project, copy_project
from safetensors.numpy import load_file, save_file

from gguf_file import write_gguf
from tillmap.core.completions import Question
from tillmap.core.errors import ModelError, ResourceError
from tillmap.llm.checkpoints import SMOLLM2_PACKAGE, fetch_checkpoint, is_hub_id
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.gguf import _llama3_divisors, find_gguf
from tillmap.llm.interface.generation import Generation, Machine
from tiny import train_apart

GREEDY = Generation(max_new_tokens=8, temperature=0.0, seed=0)
SMALL = Machine("float32", 256, 8, kv_cache_gib=0.05, eager=True)
WORDS = ("butter", "gldn mdw bttr 250 g", "toothpaste 2x75ml", "café crème 1,5L", "猫 food 12.345")
QUESTIONS = [Question("test", number, [{"role": "user", "content": text}]) for number, text in enumerate(WORDS)]


@pytest.fixture(scope="module")
def rounded(tiny, tmp_path_factory):
    """The tiny checkpoint with weights that float16 can hold."""
    folder = tmp_path_factory.mktemp("rounded") / "model"
    shutil.copytree(tiny, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: each.astype("float16").astype("float32") for name, each in weights.items()},
              folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    return folder


@pytest.fixture
def fetch(tmp_path):
    def fetch(source):
        folder = tmp_path / "base"
        folder.mkdir()
        fetch_checkpoint(str(source), None, folder)
        return folder

    return fetch


def answers(folder, engine="transformers"):
    loaded = load_engine(engine, folder, SMALL, GREEDY)
    found = [(answer.text, answer.prompt_tokens) for answer in loaded.answer(QUESTIONS)]
    loaded.close()
    return found


@pytest.mark.parametrize(("weights", "whole_folder"), [("F16", False), ("F32", True)])
def test_a_gguf_file_is_the_checkpoint_that_it_was_made_from(weights, whole_folder, rounded, fetch, tmp_path):
    file = write_gguf(rounded, tmp_path / "model.gguf", weights)
    folder = fetch(tmp_path if whole_folder else file)
    expected, found = load_file(rounded / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(found) == set(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert answers(folder) == answers(rounded)


@pytest.mark.parametrize("weights", ["Q8_0", "Q4_0"])
def test_quantised_weights_are_unpacked_exactly(weights, rounded, fetch, tmp_path):
    folder = fetch(write_gguf(rounded, tmp_path / "model.gguf", weights))
    expected, found = (load_file(each / "model.safetensors") for each in (rounded, folder))
    kind = gguf.GGMLQuantizationType[weights]
    for name, tensor in expected.items():
        packed = gguf.dequantize(gguf.quantize(tensor, kind), kind) if tensor.ndim > 1 else tensor
        if not name.endswith(("q_proj.weight", "k_proj.weight")):  # whose rows are in another order in the file
            assert np.array_equal(found[name], packed), name
    assert len(answers(folder)) == len(WORDS)


def test_vllm_answers_a_gguf_base_as_it_answers_the_checkpoint(rounded, fetch, tmp_path):
    folder = fetch(write_gguf(rounded, tmp_path / "model.gguf"))
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tests')\n"
        "from test_gguf import answers\n"
        "print('found', answers(Path(sys.argv[1]), 'vllm'))"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], cwd=ROOT, text=True, capture_output=True, check=True)
    assert f"found {answers(rounded)}" in done.stdout


def test_the_rows_of_smollm2_are_split_as_its_own_tokenizer_does():
    """SmolLM2's tokenizer.json splits digits, and takes the special tokens as one; ids as published with the model."""
    from tillmap.llm.checkpoints import _smollm2_file
    from tillmap.llm.gguf import gguf_tokenizer

    tokenizer = gguf_tokenizer(_smollm2_file())
    assert tokenizer.tokenize("a 250 g") == ["a", "Ġ", "2", "5", "0", "Ġg"]
    assert tokenizer.encode("<|im_start|>user\n")[0] == 1
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    for word in WORDS:
        assert tokenizer.decode(tokenizer.encode(word)) == word


@pytest.mark.parametrize(
    ("split", "pieces"),
    [
        ("gpt-2", ["I", "'ll", " pay", " 1234", " €!"]),
        ("smollm", ["I", "'ll", " pay", " ", "1", "2", "3", "4", " €!"]),
        ("llama-bpe", ["I", "'ll", " pay", " ", "123", "4", " €!"]),
        ("qwen2", ["I", "'ll", " pay", " ", "1", "2", "3", "4", " €!"]),
    ],
)
def test_texts_are_split_as_the_models_were_trained(split, pieces, rounded, tmp_path):
    from tillmap.llm.gguf import gguf_tokenizer

    file = write_gguf(rounded, tmp_path / "model.gguf", split=split)
    backend = gguf_tokenizer(file).backend_tokenizer
    cut = backend.pre_tokenizer.pre_tokenize_str("I'll pay 1234 €!")
    text = "I'll pay 1234 €!"
    assert [text[start:end] for _, (start, end) in cut] == pieces


def test_qwen3_and_its_own_width_of_heads(tiny, fetch, tmp_path):
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    base = tmp_path / "qwen3"
    shutil.copytree(tiny, base)
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=48, max_position_embeddings=1024, initializer_range=0.3, bos_token_id=1,
            eos_token_id=2, tie_word_embeddings=True,
        )
    ).save_pretrained(base)  # fmt: skip
    folder = fetch(write_gguf(base, tmp_path / "model.gguf", "F32", architecture="qwen3"))
    assert json.loads((folder / "config.json").read_text())["head_dim"] == 48
    assert answers(folder) == answers(base)


def test_the_rope_scaling_of_llama_3_is_read(rounded, fetch, tmp_path):
    divisors = _llama3_divisors(10_000.0, 32, 32.0)
    file = write_gguf(rounded, tmp_path / "model.gguf", extra={"rope_freqs.weight": divisors})
    config = json.loads((fetch(file) / "config.json").read_text())
    assert config["rope_parameters"]["rope_type"] == "llama3" and config["rope_parameters"]["factor"] == 32

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    plain = 10_000.0 ** -(np.arange(0, 32, 2) / 32)
    assert np.allclose(model.model.rotary_emb.inv_freq.numpy(), plain / divisors, rtol=1e-4)


def test_tokenizer_files_beside_the_file_are_used(rounded, fetch, tmp_path):
    file = write_gguf(rounded, tmp_path / "model.gguf", split="tekken")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(rounded / name, tmp_path)
    assert answers(fetch(file)) == answers(rounded)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.pre": "tekken"}, r"its tokenizer \(gpt2, tekken\) .* put the model's tokenizer\.json"),
        ({"tokenizer.ggml.model": "llama"}, r"its tokenizer \(llama, smollm\)"),
        ({"tokenizer.chat_template": None}, "has no chat template; use the model's variant for instructions"),
        ({"tokenizer.chat_template": "{{ raise_exception('no system') }}"}, "takes no system and user message"),
        ({"tokenizer.chat_template": "hello"}, "leaves out what the user says"),
        ({"tokenizer.ggml.eos_token_id": None}, "lacks tokenizer.ggml.eos_token_id"),
        ({"tokenizer.ggml.merges": None}, "lacks tokenizer.ggml.merges"),
        ({"general.architecture": "mamba9"}, "mamba9"),
        ({"llama.block_count": 3}, "lacks .* of the model's weights"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(changes, message, rounded, fetch, tmp_path):
    file = write_gguf(rounded, tmp_path / "model.gguf", changes=changes)
    with pytest.raises(ModelError, match=message):
        fetch(file)


def test_a_file_or_folder_is_found_whatever_its_name(tmp_path):
    folder, file = tmp_path / "model.gguf", tmp_path / "model.gguf/Model-Q8.GGUF"
    folder.mkdir()
    file.touch()
    assert find_gguf(folder) == find_gguf(file) == file
    assert not is_hub_id("models/Model-Q8.GGUF")
    part = folder / "m-00001-of-00002.GGUF"
    with pytest.raises(ModelError, match="join the parts first"):
        find_gguf(part)


def test_files_that_are_no_model(rounded, fetch, tmp_path, monkeypatch):
    folder = tmp_path / "several"
    folder.mkdir()
    whole = write_gguf(rounded, folder / "a.gguf").read_bytes()
    (folder / "b.gguf").write_bytes(b"GGUF")
    for source, message in (
        (folder, r"several GGUF files \(a\.gguf, b\.gguf\); name one"),
        (folder / "b.gguf", "not a GGUF file, or a damaged one"),
        (folder / "none.gguf", "not found"),
        (folder / "m-00001-of-00002.gguf", "join the parts first"),
    ):
        with pytest.raises(ModelError, match=message):
            fetch_checkpoint(str(source), None, tmp_path)
    (folder / "a.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        fetch_checkpoint(str(folder / "a.gguf"), None, tmp_path)
    assert not is_hub_id("models/a.gguf")
    (folder / "a.gguf").write_bytes(whole)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 2**20}))
    with pytest.raises(ResourceError, match=r"take 0\.0 GiB of memory"):
        fetch(folder / "a.gguf")


@pytest.mark.slow
def test_the_stage_makes_a_base_of_it_that_is_trained_and_asked(rounded, tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    copy_project(folder)
    project = Project(folder, tmp_path / "state")
    file = write_gguf(rounded, folder / "own.gguf", "Q8_0")
    project.set_params({"llama": {"base": file.name}})
    assert "base_model/llama: model own.gguf" in project.stages("base_model llama")
    base = folder / "models/base/llama"
    recipe = {"batch_rows": 2, "epochs": 6, "learning_rate": 0.01}
    trained = train_apart(base, tmp_path, "milk", "milk | farm", recipe=recipe, checkpoint_steps=20)
    [plain, tuned] = (
        load_engine("transformers", base, SMALL, GREEDY, adapter).answer(QUESTIONS[:2]) for adapter in (None, trained)
    )
    assert [answer.text for answer in plain] != [answer.text for answer in tuned]


@pytest.mark.slow
def test_smollm2_still_answers(fetch):
    folder = fetch(SMOLLM2_PACKAGE)
    assert all(text for text, _ in answers(folder))
