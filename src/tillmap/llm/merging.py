"""Merges a LoRA adapter into its base, for engines and servers without support for adapters."""

from pathlib import Path

from tillmap.core.errors import model_errors

MERGED_DTYPES = {"fp32": "float32", "16bit": "bfloat16"}  # by the values of train_llama.merge


def merge_adapter(base: Path, adapter: Path, folder: Path, dtype: str) -> None:
    """Write base plus adapter to `folder` as a checkpoint with weights of a dtype: float32, bfloat16, float16 or auto.

    `auto` is the dtype that the base's weights have, or are unpacked to.

    A 4-bit base is unpacked first, because a sum in 4 bits would lose most of what was learned. In float32 the answers
    are those of base and adapter; 16 bit rounds the sum once more and changes an answer now and then.

    All of it is done in the host's memory, which holds the model once (16 GB for 8 billion parameters in 16 bit), so
    that the model need not fit on the GPU in this form.

    Raises ModelError if base and adapter do not fit together, or the merged model cannot be made or written.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wanted = None if dtype == "auto" else getattr(torch, dtype)
    with model_errors(f"{adapter} cannot be merged into {base}", "train it on this base"):
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=wanted or "auto", use_safetensors=True, device_map="cpu"
        )
        packed = getattr(model, "is_loaded_in_4bit", False)
        if packed:
            model = model.dequantize(dtype=wanted)
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
        # transformers would pack 4-bit weights again, which it cannot: they are written as they are.
        merged.save_pretrained(folder, save_original_format=not packed)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
