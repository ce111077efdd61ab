"""The memory that training takes, and what to change when it runs out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tillmap.core.errors import ResourceError
from tillmap.tuning.progress import Progress
from tillmap.tuning.recipes import TrainingRecipe


def peak_memory_mib(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10))


@contextmanager
def explaining_memory(recipe: TrainingRecipe, progress: Progress, torch: Any) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError when memory runs out
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise ResourceError(out_of_memory(recipe, peak_memory_mib(torch), _memory_mib(torch), progress.step)) from error


def _memory_mib(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory // 2**20)
    import psutil

    return int(psutil.virtual_memory().total // 2**20)


def out_of_memory(recipe: TrainingRecipe, peak_mib: int, total_mib: int, step: int) -> str:
    """The message when memory runs out, with changes that keep the effective batch size."""
    problem = (
        f"out of memory after step {step}: a batch of {recipe.batch_rows} examples of up to {recipe.max_seq_length} "
        f"tokens took {peak_mib / 1024:.1f} GiB of {total_mib / 1024:.1f} GiB"
    )
    if recipe.batch_rows == 1:
        return f"{problem}; choose a smaller `base` for the arm or a lower train_llama.max_seq_length"
    half = recipe.batch_rows // 2
    accumulation = -(-recipe.batch_rows * recipe.accumulation // half)
    return (
        f"{problem}; halve the batch and keep {recipe.batch_rows * recipe.accumulation} examples per step: "
        f"-S train_llama.batch_rows={half} -S train_llama.accumulation={accumulation}"
        + ("" if recipe.load_in_4bit or not recipe.gradient_checkpointing else ", or -S train_llama.load_in_4bit=true")
        + "; with changed settings training starts again from the first step"
    )
