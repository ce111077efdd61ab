"""Merges a LoRA adapter into its base, for engines and servers without support for adapters."""

from pathlib import Path
from typing import Literal

from tillmap.core.errors import ModelError, first_line

Merge = Literal["fp32", "16bit"]


def merge_adapter(base: Path, adapter: Path, folder: Path, merge: Merge) -> None:
    """Write base plus adapter to `folder` as a checkpoint, in float32 or rounded to bfloat16.

    A 4-bit base is dequantised first, because a sum in 4 bits would lose most of what was learned. With fp32 the
    answers are those of base and adapter; rounding to 16 bit changes an answer now and then.

    Raises ModelError if base and adapter do not fit together.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
        if getattr(model, "is_loaded_in_4bit", False):
            model = model.dequantize()
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{adapter} cannot be merged into {base} ({first_line(error)}); train it again") from error
    if merge == "16bit":
        merged = merged.to(torch.bfloat16)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
