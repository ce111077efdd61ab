"""How engines load and end: 4-bit bases, adapters that are merged into them, and memory that is free again."""

import json
import os
import subprocess
import sys
import weakref
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from hub_server import serve_hub
from tillmap.arms import ARMS
from tillmap.arms.context import Context
from tillmap.config.blocks import Engine
from tillmap.core.completions import Question
from tillmap.core.errors import ModelError, ResourceError
from tillmap.core.machine import usable_dtype
from tillmap.llm.checkpoints import check_checkpoint
from tillmap.llm.engines import loading
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.engines.vllm import _unable
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.llm.interface.inference import KeptEngine, LocalModel, ask_model
from tillmap.llm.merging import merge_adapter
from tiny import make_adapter, make_tiny_4bit, train_apart

GREEDY = Generation(max_new_tokens=8, temperature=0.0, seed=0)
SMALL = Machine("float32", 256, 8, kv_cache_gib=0.05, eager=True)
MERGING = replace(SMALL, lora="merge")
QUESTIONS = [
    Question("test", number, [{"role": "user", "content": text}])
    for number, text in enumerate(("butter", "gldn mdw bttr 250 g", "toothpaste", "cat food"))
]


@pytest.fixture(scope="module")
def four_bit(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("four-bit") / "model"
    make_tiny_4bit(tiny, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(tiny, folder)
    return folder


def tensors(folder):
    from safetensors.torch import load_file

    return {name: weights for file in folder.glob("*.safetensors") for name, weights in load_file(file).items()}


def unpacked(four_bit, name):
    """A weight of the 4-bit checkpoint, read from its file and unpacked without transformers."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    found = tensors(four_bit)
    beside = {key.removeprefix(f"{name}."): value for key, value in found.items() if key.startswith(f"{name}.")}
    return dequantize_4bit(found[name], QuantState.from_dict(beside, device="cpu"))


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 1e-6), ("bfloat16", 2**-7), ("float16", 2**-10)])
def test_a_merged_4_bit_base_is_the_unpacked_base_plus_the_adapter(dtype, rounding, four_bit, adapter, tmp_path):
    import torch

    merge_adapter(four_bit, adapter, tmp_path, dtype)
    check_checkpoint(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    merged, lora = tensors(tmp_path), tensors(adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    name = "model.layers.1.mlp.down_proj.weight"
    first, second = (lora[f"base_model.model.{name[:-7]}.lora_{side}.weight"] for side in "AB")
    base, change = unpacked(four_bit, name), config["lora_alpha"] / config["r"] * second @ first
    assert merged[name].dtype == getattr(torch, dtype)
    assert torch.allclose(merged[name].float(), base + change, rtol=0, atol=rounding * float(base.abs().max()))
    assert float(change.abs().max()) > rounding * float(base.abs().max())
    assert not [name for name in merged if "quant" in name or "absmax" in name]


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_an_engine_that_merges_answers_as_the_merged_model(name, four_bit, adapter, tmp_path):
    merge_adapter(four_bit, adapter, tmp_path, "float32")
    engine = load_engine(name, four_bit, MERGING, GREEDY, adapter)
    answers = [answer.text for answer in engine.answer(QUESTIONS)]
    engine.close()
    merged = load_engine("transformers", tmp_path, MERGING, GREEDY)
    assert answers == [answer.text for answer in merged.answer(QUESTIONS)]


def test_transformers_serves_the_adapter_on_4_bit(four_bit, adapter):
    engine = load_engine("transformers", four_bit, MERGING, GREEDY)
    plain = [answer.text for answer in engine.answer(QUESTIONS)]
    served = load_engine("transformers", four_bit, SMALL, GREEDY, adapter)
    assert [answer.text for answer in served.answer(QUESTIONS)] != plain


def test_vllm_says_why_it_does_not_take_4_bit_and_what_to_do(four_bit):
    with pytest.raises(ModelError) as told:
        load_engine("vllm", four_bit, MERGING, GREEDY)
    assert "Unknown quantization method: bitsandbytes" in str(told.value)
    assert "set the arm's engine to transformers" in str(told.value)
    assert "kv_cache_gib" not in str(told.value)


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("No available memory for the cache blocks", ResourceError, "lower engine.max_model_len"),
        ("Free memory on device cuda:0 is less than desired", ResourceError, "raise engine.gpu_memory_utilization"),
        (
            "CUDA driver version is insufficient",
            ModelError,
            "set the arm's engine to transformers, or remove the cause",
        ),
    ],
)
def test_what_to_do_fits_what_vllm_says(said, kind, advice):
    error = _unable(Path("models/base/rag"), RuntimeError(said))
    assert type(error) is kind
    assert str(error).startswith(f"models/base/rag: vLLM could not start ({said}); ")
    assert advice in str(error)


@pytest.mark.slow
def test_a_4_bit_base_is_trained_and_answers_merged_and_apart(four_bit, tmp_path):
    """As the stages go: Unsloth trains, in a process of its own, then both engines answer."""
    recipe = {"batch_rows": 4, "epochs": 40, "learning_rate": 0.02}
    adapter = train_apart(four_bit, tmp_path, "butter", "dairy | farm", recipe=recipe, checkpoint_steps=100)
    said = {}
    for name, machine in (("vllm", MERGING), ("transformers", MERGING), ("transformers", SMALL)):
        engine = load_engine(name, four_bit, machine, GREEDY, adapter)
        said[name, machine.lora] = engine.answer(QUESTIONS)[0].text
        engine.close()
    assert set(said.values()) == {"dairy | farm"} and len(said) == 3


def test_what_cannot_be_merged_is_an_error_of_one_line(four_bit, adapter, tmp_path):
    import torch
    from safetensors.torch import save_file

    other = tmp_path / "other"
    other.mkdir()
    (other / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    save_file({name: torch.ones(3, 3) for name in tensors(adapter)}, other / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="cannot be merged into") as told:
        merge_adapter(four_bit, other, tmp_path / "merged", "float32")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["vllm", "transformers"])
def test_a_closed_engine_is_gone_and_a_second_one_answers_the_same(name, tiny):
    """More rows at once than the engine takes are no different, either."""
    texts = []
    for batch_rows in (8, 2):
        engine = load_engine(name, tiny, replace(SMALL, batch_rows=batch_rows), GREEDY)
        texts.append([answer.text for answer in engine.answer(QUESTIONS)])
        model = weakref.ref(model_of(engine))
        engine.close()
        assert model() is None, "something still holds the weights"
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_rows_are_answered_after_a_step_of_vllm_failed(tiny, tmp_path, monkeypatch):
    """What the failed step left in vLLM is never finished: it would wait forever, with every batch after it."""
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    works, calls = UniProcExecutor.execute_model, count(1)

    def fails_once(*arguments, **options):
        if next(calls) == 3:
            raise RuntimeError("a step failed")
        return works(*arguments, **options)

    model, texts = LocalModel("vllm", tiny, None, SMALL, GREEDY), []
    for name in ("sound", "failing"):
        monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / name))
        kept = KeptEngine()
        texts.append([answer.text for answer in ask_model(model, QUESTIONS, name, kept).completions])
        kept.close()
        monkeypatch.setattr(UniProcExecutor, "execute_model", fails_once)
    assert texts[0] == texts[1]
    assert next(calls) > 3


def model_of(engine):
    if hasattr(engine, "_model"):
        return engine._model
    return engine._llm.llm_engine.model_executor.driver_worker.worker.model_runner.model


@pytest.mark.parametrize(("cuda", "has_it", "used"), [(False, False, "bfloat16"), (True, True, "bfloat16"),
                                                     (True, False, "float16")])  # fmt: skip
def test_a_gpu_without_bfloat16_gets_float16(cuda, has_it, used, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation)
    assert usable_dtype("bfloat16") == used
    assert usable_dtype("float32") == "float32"


def test_what_asks_twice_as_a_cascade_does_loads_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    loads, load = [], loading.load_engine
    monkeypatch.setattr(loading, "load_engine", lambda *model: loads.append(model) or load(*model))
    engine = Engine(dtype="float32", max_model_len=256, batch_rows=8, save_rows=8, threads=1, kv_cache_gib=0.05,
                    gpu_memory_utilization=0.9, eager=True, lora="merge")  # fmt: skip
    chosen = SimpleNamespace(engine="transformers", max_new_tokens=4, temperature=0.0)
    files = dict.fromkeys(("model", "linear", "rows_file", "tree_file"), tmp_path)
    context = Context("rag", chosen, 1, base=tiny, neighbours=lambda rows, _: rows, engine=engine, **files)
    trial, rest = (ARMS["rag"].ask(context, some, None) for some in (QUESTIONS[:2], QUESTIONS[2:]))
    assert [answer.id for answer in (*trial, *rest)] == [0, 1, 2, 3]
    assert len(loads) == 1


DOWNLOAD = """
import sys
from pathlib import Path
from tillmap.core.errors import ModelError, ResourceError
from tillmap.llm.checkpoints import fetch_checkpoint
try:
    fetch_checkpoint("shop/base", "0" * 40, Path(sys.argv[1]))
except ModelError as error:
    sys.exit(str(error))
"""


def test_an_interrupted_download_goes_on_with_the_files_that_are_missing(tiny, tmp_path):
    with serve_hub(token="") as hub:
        hub.files["shop/base"] = {file.name: file.read_bytes() for file in tiny.iterdir()}
        env = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        env |= {"TILLMAP_STATE": str(tmp_path / "state")}

        def download(folder):
            folder.mkdir()
            command = [sys.executable, "-c", DOWNLOAD, str(folder)]
            return subprocess.run(command, env=os.environ | env, text=True, capture_output=True, check=False)

        hub.refused.add("tokenizer.json")
        done = download(tmp_path / "first")
        assert done.returncode == 1
        assert "model shop/base could not be downloaded" in done.stderr
        assert "model.safetensors" in hub.given
        hub.refused.clear()
        done = download(tmp_path / "second")
        assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(hub.given) == sorted(hub.files["shop/base"]), "each file once"
    assert {file.name: file.read_bytes() for file in (tmp_path / "second").iterdir()} == hub.files["shop/base"]
    assert not list((tmp_path / "state/downloads").iterdir()), "no second copy is kept"
