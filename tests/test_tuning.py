"""Training: what the loss sees, the recipes, what a kill leaves, and any architecture; merging and pushing."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from project import ROOT, kill_when

from hub_server import serve_hub
from tillmap.core.errors import InputError, ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.prompting import GRADIENTGURUS_LLAMA, Item, Renderer, our_recipe
from tillmap.tuning.examples import IGNORED, describe, tokenise, tokenise_all
from tillmap.tuning.hub import require_token
from tillmap.tuning.lora import attention, lora_targets
from tillmap.tuning.memory import out_of_memory
from tillmap.tuning.progress import PROGRESS, Progress, last_checkpoint
from tillmap.tuning.recipes import GRADIENTGURUS, choose_recipe, fit_to_machine

PATH = LabelPath("food & drink", "dairy", "butter", "golden | meadow")
TREE = LabelTree(CONTEST, (PATH,), (1,))
ITEM = Item("gldn mdw bttr 250 g", "alder", 1.99)
# One template opens with a BOS, as Llama 3's does; one ends turns without eos; one adds a thought to the question, one
# only if it is told not to think, as Qwen3's does.
TEMPLATES = {
    "own": None,
    "llama3": (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "plain": (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    ),
    "may think": (
        "{% for m in messages %}<|{{ m.role }}|>\n{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n"
        "{% endif %}{{ m.content }}{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    "thinking": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think>\n\n</think>\n\n{% endif %}"
    ),
}


@pytest.fixture(scope="module")
def base(tiny):
    return tiny


@pytest.fixture(params=TEMPLATES)
def tokenizer(request, base):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(base)
    if TEMPLATES[request.param]:
        loaded.chat_template = TEMPLATES[request.param]
        loaded.bos_token = "<|endoftext|>"
    return loaded


@pytest.mark.parametrize("recipe", [GRADIENTGURUS_LLAMA, our_recipe(True, True)])
@pytest.mark.parametrize("answer_format", ["short", "joined", "json"])
def test_the_question_is_the_training_example_up_to_the_answer(recipe, answer_format, tokenizer):
    """Checked against the chat template and the tokenizer alone, as an engine uses them."""
    renderer = Renderer(recipe, make_answer_format(answer_format, TREE))
    asked = tokenizer.apply_chat_template(
        renderer.question(ITEM), add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    question = tokenizer.encode(asked, add_special_tokens=False)
    example = tokenise(renderer.training_example(ITEM, PATH), tokenizer)
    assert example.input_ids[: len(question)] == question
    assert example.question_tokens == len(question)
    answer = example.input_ids[len(question) :]
    assert tokenizer.decode(answer[:-1]).strip() == renderer.answer_format.encode(PATH)
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in answer[:-1]
    assert example.labels == [IGNORED] * len(question) + answer


def test_there_is_one_bos(tokenizer):
    renderer = Renderer(GRADIENTGURUS_LLAMA, make_answer_format("json", TREE))
    ids = tokenise(renderer.training_example(ITEM, PATH), tokenizer).input_ids
    if tokenizer.bos_token == "<|endoftext|>":
        expected = 1 if "bos_token" in tokenizer.chat_template else 0
        assert ids.count(tokenizer.bos_token_id) == expected
    else:  # SmolLM2 opens every turn with its BOS: system, user, assistant
        assert ids.count(tokenizer.bos_token_id) == 3
    assert ids[:2].count(tokenizer.bos_token_id) <= 1


def test_an_example_too_long_is_an_error_and_never_cut(tokenizer):
    conversation = Renderer(GRADIENTGURUS_LLAMA, make_answer_format("json", TREE)).training_example(ITEM, PATH)
    length = len(tokenise(conversation, tokenizer).input_ids)
    assert len(tokenise_all([conversation], tokenizer, length)) == 1
    with pytest.raises(InputError, match=rf"train_llama\.max_seq_length={length} or more"):
        tokenise_all([conversation], tokenizer, length - 1)
    with pytest.raises(InputError, match="no training examples"):
        tokenise_all([], tokenizer, 100)


def test_what_the_loss_sees_can_be_read(tokenizer):
    conversation = Renderer(our_recipe(False, False), make_answer_format("short", TREE)).training_example(ITEM, PATH)
    shown, learned = describe(tokenise(conversation, tokenizer), tokenizer).splitlines()
    assert shown.startswith("shown (") and ITEM.description in shown and "golden" not in shown
    assert learned.startswith("learned (") and "butter | golden" in learned and ITEM.description not in learned


def test_the_recipe_of_gradientgurus_has_every_value():
    assert asdict(GRADIENTGURUS) == {
        "max_seq_length": 512, "load_in_4bit": True, "dtype": "bfloat16", "lora_rank": 16, "lora_alpha": 16,
        "lora_dropout": 0.0, "batch_rows": 16, "accumulation": 4, "epochs": 3, "learning_rate": 2e-4,
        "schedule": "linear", "warmup_steps": 5, "optimizer": "adamw_8bit", "weight_decay": 0.01,
        "gradient_checkpointing": True, "group_by_length": False, "cpu_dtype": "float32",
    }  # fmt: skip


def test_a_param_changes_the_recipe_and_null_does_not():
    assert choose_recipe("gradientgurus", {"epochs": 1, "learning_rate": None}).epochs == 1
    assert (
        choose_recipe("gradientgurus", {"epochs": 1, "learning_rate": None}).learning_rate
        == GRADIENTGURUS.learning_rate
    )
    assert choose_recipe("ours", {"load_in_4bit": False}).load_in_4bit is False


def test_without_cuda_a_recipe_keeps_all_but_what_needs_one():
    fitted = asdict(fit_to_machine(GRADIENTGURUS, cuda=False))
    changed = {name for name, value in asdict(GRADIENTGURUS).items() if fitted[name] != value}
    assert changed == {"load_in_4bit", "dtype", "optimizer", "gradient_checkpointing"}
    assert fit_to_machine(GRADIENTGURUS, cuda=True) == GRADIENTGURUS


def test_memory_advice_has_numbers_and_keeps_the_effective_batch():
    said = out_of_memory(GRADIENTGURUS, peak_mib=15_360, total_mib=16_384, step=3)
    assert "15.0 GiB of 16.0 GiB" in said
    assert "-S train_llama.batch_rows=8 -S train_llama.accumulation=8" in said
    odd = out_of_memory(choose_recipe("gradientgurus", {"batch_rows": 11, "accumulation": 6}), 1, 1, 0)
    assert "batch_rows=5 -S train_llama.accumulation=14" in odd
    assert "smaller `base`" in out_of_memory(choose_recipe("ours", {"batch_rows": 1}), 1, 1, 0)
    assert "load_in_4bit=true" in out_of_memory(choose_recipe("ours", {"load_in_4bit": False}), 1, 1, 0)


def test_an_incomplete_checkpoint_is_not_used(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for step in (8, 16, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    for step in (8, 16):
        (tmp_path / f"checkpoint-{step}" / PROGRESS).write_text(json.dumps(asdict(Progress(step))))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-16"
    assert not (tmp_path / "checkpoint-100").exists()


ARCHITECTURES = {
    "Llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "Qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "Phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}  # fmt: skip


def tiny_model(architecture, vocabulary):
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(vocab_size=vocabulary, **TINY)
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_lora_goes_on_every_projection_of_an_architecture(architecture):
    assert set(lora_targets(tiny_model(architecture, 64))) == ARCHITECTURES[architecture]


TRAIN = """
import sys
from pathlib import Path
from tillmap.core.errors import TillmapError
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

conversation = [{"role": "user", "content": "milk"}, {"role": "assistant", "content": "milk | farm"}]
for name in sys.argv[2:]:
    folder = Path(sys.argv[1]) / name
    recipe = choose_recipe("ours", {"batch_rows": 2, "epochs": 2, "learning_rate": 0.01})
    try:
        done = train_adapter([conversation] * 4, folder / "base", recipe, folder / "state", folder / "adapter",
                             checkpoint_steps=10, seed=1)
    except TillmapError as error:
        sys.exit(str(error))
    print(name, done.progress.step, done.losses[-1][1] < done.losses[0][1])
"""


@pytest.mark.slow
def test_other_architectures_are_trained(base, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    names = ["Qwen2", "Phi3"]
    for name in names:
        tiny_model(name, len(tokenizer)).save_pretrained(tmp_path / name / "base")
        tokenizer.save_pretrained(tmp_path / name / "base")
    command = [sys.executable, "-c", TRAIN, str(tmp_path), *names]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert "Qwen2 4 True" in done.stdout, done.stderr[-3000:]
    assert "Phi3 4 True" in done.stdout
    for name in names:
        files = {file.name for file in (tmp_path / name / "adapter").iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= files
        assert not [file for file in files if file.endswith((".bin", ".pt", ".pkl"))]


ATTENDED = """
import os
import sys
from pathlib import Path
from tillmap.tuning import lora
from tillmap.tuning.recipes import choose_recipe

base, folder = map(Path, sys.argv[1:])
words = ["milk", "oat milk, barista", "rye bread and butter", "tea"] * 4
conversations = [[{"role": "user", "content": word}, {"role": "assistant", "content": word[:4]}] for word in words]
recipe = choose_recipe("ours", {"batch_rows": 4, "learning_rate": 0.002, "cpu_dtype": "bfloat16"})

def losses(name):
    done = lora.train_adapter(conversations, base, recipe, folder / name, folder / "adapter",
                              checkpoint_steps=10, seed=1)
    print("losses", *(loss.loss for loss in done.losses))

losses("products")
ours, lora.COMPILED_STEPS = lora.COMPILED_STEPS, 4
losses("compiled")
lora.COMPILED_STEPS, lora.attention = ours, lambda *_: {"attn_implementation": "sdpa"}
os.environ["UNSLOTH_CPU_COMPILE"] = "0"
losses("usual")
"""


@pytest.mark.slow
def test_what_makes_training_faster_on_a_cpu_leaves_the_losses_as_they_are(base, tmp_path):
    command = [sys.executable, "-c", ATTENDED, str(base), str(tmp_path)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("losses")]
    assert [len(losses) for losses in found] == [4, 4, 4], done.stderr[-3000:]
    products, compiled, usual = (np.array(losses, dtype=float) for losses in found)
    assert products == pytest.approx(usual, rel=0.02)
    assert compiled == pytest.approx(usual, rel=0.02)
    assert "torch.compile" in done.stdout, "the second training was compiled"
    assert np.ptp(usual) > 0.1 * usual.mean(), "or any losses would be equal"


def test_the_steps_of_a_training_are_those_of_its_batches():
    recipe = choose_recipe("ours", {"batch_rows": 16, "accumulation": 2, "epochs": 1.5})
    assert [recipe.steps(examples) for examples in (1, 21, 22, 64)] == [1, 1, 2, 3]


def test_only_bfloat16_on_a_cpu_needs_another_attention():
    on_cpu = fit_to_machine(choose_recipe("ours", {"cpu_dtype": "bfloat16"}), cuda=False)
    assert attention(on_cpu, cuda=False) == {"attn_implementation": "eager"}
    assert attention(fit_to_machine(choose_recipe("ours", {}), cuda=False), cuda=False) == {}
    assert attention(choose_recipe("ours", {"dtype": "bfloat16"}), cuda=True) == {}


KILLED = """
import sys
from pathlib import Path
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

base, folder = map(Path, sys.argv[1:])
words = ["milk", "oat milk", "rye bread and butter", "tea"] * 3
conversations = [[{"role": "user", "content": word}, {"role": "assistant", "content": word[:4]}] for word in words]
recipe = choose_recipe("ours", {"batch_rows": 2, "epochs": 3})
done = train_adapter(conversations, base, recipe, folder / "state", folder / "adapter", checkpoint_steps=1, seed=1,
                     curve=folder / "curve.csv")
print(done.progress.step, done.progress.tokens, done.progress.padding, done.losses)
"""


@pytest.mark.slow
def test_killed_in_its_second_epoch_it_ends_as_if_it_was_not(base, tmp_path):
    def command(name):
        return [sys.executable, "-c", KILLED, str(base), str(tmp_path / name)]

    def finished(name):
        return subprocess.run(command(name), text=True, capture_output=True, check=True).stdout.splitlines()[-1]

    unbroken = finished("unbroken")
    assert unbroken.startswith("18 ")
    kill_when(lambda: any((tmp_path / "killed").glob("state/*/checkpoint-8/progress.json")), command("killed"))
    curve = (tmp_path / "unbroken/curve.csv").read_text()
    grown = (tmp_path / "killed/curve.csv").read_text()
    assert curve.startswith(grown) and 8 <= len(grown.splitlines()) < 18
    assert finished("killed") == unbroken
    assert (tmp_path / "killed/curve.csv").read_text() == curve
    weights = [(tmp_path / name / "adapter/adapter_model.safetensors").read_bytes() for name in ("unbroken", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_base_that_cannot_be_read_is_one_clear_line(tmp_path):
    (tmp_path / "broken" / "base").mkdir(parents=True)
    (tmp_path / "broken" / "base" / "config.json").write_text('{"model_type": "abacus"}')
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path), "broken"], text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert "Unsloth cannot load this checkpoint" in done.stderr.splitlines()[-1]


def test_pushing_needs_a_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ParamsError, match=r"no key in the environment variable HF_TOKEN; .*llama\.hub_id to null"):
        require_token("shop/labels")


PUSH = """
from pathlib import Path
from tillmap.tuning.hub import push_model
print(push_model(Path({folder!r}), "shop/labels"))
"""


def test_a_model_is_pushed_to_a_hub(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\0" * 64)
    with serve_hub(token="hf_secret") as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        push = PUSH.format(folder=str(tmp_path))
        done = run_with(env, push)
        assert done.returncode == 0, done.stderr[-3000:]
        assert hub.files["shop/labels"] == {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        refused = run_with(env | {"HF_TOKEN": "hf_wrong"}, push)
        assert refused.returncode != 0
        assert "the upload to the hub failed" in refused.stderr
        assert "hf_wrong" not in refused.stderr + refused.stdout


def run_with(env, code):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, text=True, capture_output=True, check=False, cwd=ROOT
    )
