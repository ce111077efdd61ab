"""A language model of seconds: Llama's architecture and a real tokenizer, small random weights."""

import shutil

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def make_tiny(tokenizer, folder):
    """Write it into a new folder, with a checkpoint's tokenizer and weights so large that it is never in doubt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir()
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=1024, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
        )
    ).save_pretrained(folder)  # fmt: skip
