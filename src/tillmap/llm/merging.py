"""Merges a LoRA adapter into its base, as one model that needs no adapter support to be served."""

from pathlib import Path
from typing import Literal

from tillmap.core.errors import ModelError

Merge = Literal["fp32", "16bit"]


def merge_adapter(base: Path, adapter: Path, folder: Path, merge: Merge) -> None:
    """Write base plus adapter to `folder` as a checkpoint: in float32, or rounded to bfloat16 after the sum.

    A 4-bit base is put back to full weights first, for a sum in 4 bits would lose most of what was learned. Rounding
    to 16 bit moves the model's probabilities a little, and now and then an answer; the adapter and fp32 do not.

    Raises ModelError where base and adapter don't fit together.
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ModelError(f"{adapter} cannot be merged into {base} ({reason}); train it again") from error
    if merge == "16bit":
        merged = merged.to(torch.bfloat16)
    merged.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
