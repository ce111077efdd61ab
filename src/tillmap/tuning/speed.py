"""How long a training will take, from the speed of one matrix product on this machine."""

import time
from statistics import median
from typing import Any

_OPERATIONS = 4  # per weight and token, as in `llm/limits.py`
_TRIAL_SECONDS = 0.3
# Training's share of the product's operations per second: SmolLM2 on a CPU (benchmarks/training.py), Llama 3 8B on an
# H100 in batches of 64 (docs/gpu.md). With AMX products in bfloat16 are seven times as fast; the rest of a step is not.
CPU_SHARES, GPU_SHARE = {"float32": 0.7, "bfloat16": 0.3}, 0.35


def expected_seconds(model: Any, tokens: int, rows: int) -> float:
    """Estimate the seconds of a training, without loading and compiling.

    Args:
        model: with its LoRA. The weights that are frozen count.
        tokens: of all batches, padding included.
        rows: tokens of one batch; its matrix products have so many rows.
    """
    import torch

    trained, total = model.get_nb_trainable_parameters()
    embedding, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    only_looked_up = 0 if embedding is output else embedding.numel()
    share = GPU_SHARE if torch.cuda.is_available() else CPU_SHARES[str(model.dtype).removeprefix("torch.")]
    speed = product_speed(rows, model.config.hidden_size, model.dtype)
    return float(_OPERATIONS * (total - trained - only_looked_up) * tokens / (share * speed))


def product_speed(rows: int, hidden: int, dtype: Any) -> float:
    """The operations per second of a product of rows x hidden with hidden x 4 hidden numbers."""
    import torch

    cuda = torch.cuda.is_available()
    # No random numbers: those of training stay as they are.
    first, second = (
        torch.ones(shape, dtype=dtype, device="cuda" if cuda else "cpu")
        for shape in ((rows, hidden), (hidden, 4 * hidden))
    )

    def seconds() -> float:
        began = time.perf_counter()
        first @ second
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds()  # the first one is slower
    spent: list[float] = []
    began = time.perf_counter()
    while not spent or time.perf_counter() - began < _TRIAL_SECONDS:
        spent.append(seconds())
    return 8 * rows * hidden**2 / median(spent)
