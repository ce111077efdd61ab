"""A language model of seconds: Llama's architecture and SmolLM2's tokenizer, small random weights."""

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


if __name__ == "__main__":
    make_tiny(Path(sys.argv[1]))
