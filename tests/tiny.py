"""A language model of seconds: Llama's architecture and SmolLM2's tokenizer, small random weights. Also in 4 bit."""

import json
import subprocess
import sys
from pathlib import Path


def make_tiny(folder):
    """Write it into a new folder, with weights so large that it is never in doubt what to say."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tillmap.llm.checkpoints import save_smollm2_tokenizer

    folder.mkdir()
    save_smollm2_tokenizer(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=1024, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
        )
    ).save_pretrained(folder)  # fmt: skip


def make_tiny_4bit(base, folder):
    """Write a checkpoint's weights in bitsandbytes' 4 bit, in the form of the 4-bit models on the hub."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(base, quantization_config=packed).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


TRAIN = """
import json, sys
from pathlib import Path
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

base, folder = map(Path, sys.argv[1:3])
conversation, recipe, steps = map(json.loads, sys.argv[3:])
recipe, state = choose_recipe("ours", recipe), folder / "state"
train_adapter([conversation] * 4, base, recipe, state, folder / "adapter", checkpoint_steps=steps, seed=1)
"""


def train_apart(base, folder, asked, said, *, recipe, checkpoint_steps):
    """Tune a base in a process of its own: Unsloth changes the libraries that answer. Gives the adapter's folder."""
    conversation = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    command = [sys.executable, "-c", TRAIN, str(base), str(folder)]
    command += map(json.dumps, (conversation, recipe, checkpoint_steps))
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "adapter"


def make_adapter(base, folder, rank=4):
    """Write a LoRA that was never trained, and yet changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=8, target_modules=linear, task_type="CAUSAL_LM"))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_" in name:
                scale = 0.02 if "lora_B" in name else weights.shape[1] ** -0.5
                weights.copy_(torch.randn(weights.shape, generator=draw) * scale)
    adapted.save_pretrained(folder)


if __name__ == "__main__":
    make_tiny(Path(sys.argv[1]))
