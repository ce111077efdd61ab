"""What a GPU can do at most with a Llama-like model: operations and bytes, and the time that follows from them.

Counted are the matrix products with weights: 2 operations per weight and token. Attention over the few hundred tokens
of a receipt line adds about 1% and is left out, as are norms and LoRA's own products. The output layer is counted for
tokens whose next token is asked for. A frozen weight needs no gradient of its own, so tuning a LoRA costs 4 operations
per weight and token: forward, and back to the activations. Gradient checkpointing computes activations twice, which
makes it 6.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Shape:
    """A model's sizes, named as in its config.

    `head_dim` is None where it is `hidden / heads`, as in a Llama. `tied`: the output layer is the embedding.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int | None = None
    tied: bool = False

    @property
    def body(self) -> int:
        """Weights in the layers' matrices."""
        width = self.head_dim or self.hidden // self.heads
        attention = 2 * self.hidden * width * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        """Weights in the output layer. An embedding that is not tied to it has as many, and only looks them up."""
        return self.hidden * self.vocabulary

    @property
    def gib(self) -> float:
        """GiB of the weights in 16 bit, the embedding included."""
        return 2 * (self.body + (1 if self.tied else 2) * self.head) / 2**30


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: as its maker writes it.
        flops: dense operations per second in bfloat16 (T4: float16), without sparsity.
        bandwidth: bytes per second.
        memory_gb: GB of memory.
        usd_per_hour: what RunPod asked for it (Secure Cloud, on demand); None if we found no price.
        priced: the date of that price.
    """

    name: str
    flops: float
    bandwidth: float
    memory_gb: int
    usd_per_hour: float | None = None
    priced: str | None = None


# https://huggingface.co/meta-llama/Meta-Llama-3-8B, Qwen/Qwen3-4B and HuggingFaceTB/SmolLM2-135M: config.json.
SHAPES = {
    "llama3-8b": Shape(32, 4096, 14336, 32, 8, 128_256),
    "qwen3-4b": Shape(36, 2560, 9728, 32, 8, 151_936, head_dim=128, tied=True),
    "smollm2-135m": Shape(30, 576, 1536, 9, 3, 49_152, tied=True),
    "tiny": Shape(2, 128, 256, 2, 1, 49_152),
}

# Speeds as in NVIDIA's datasheets; those of H200, L4 and T4 are from sites that repeat them. Prices are from copies of
# https://www.runpod.io/pricing that others made: A40 by huggingface.co/datasets/privum/ai-compute-prices, H200 by
# api-evangelist/runpod, A100 and H100 by datareceipts/data-receipts (both on GitHub).
CARDS = {
    "a40": Card("NVIDIA A40", 149.7e12, 696e9, 48, 0.44, "2026-08-19"),
    "a100": Card("NVIDIA A100 80GB", 312e12, 2039e9, 80, 1.79, "2026-11-09"),
    "h100": Card("NVIDIA H100 SXM", 989e12, 3350e9, 80, 3.99, "2026-11-09"),
    "h200": Card("NVIDIA H200 SXM", 989e12, 4800e9, 141, 4.59, "2026-10-07"),
    "l4": Card("NVIDIA L4", 121e12, 300e9, 24),
    "t4": Card("NVIDIA T4", 65e12, 320e9, 16),
}


class Room(NamedTuple):
    """The GiB of a base's weights in 16 bit, and where this is known from."""

    gib: float
    known: str


_PARAMETERS = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])")  # 4b, 0.6b, 135m, 8x7b; not 4bit
_UNKNOWN = 8e9  # parameters


def room_of(name: str) -> Room:
    """The room that a base from a hub takes, by the parameters that its name has: 7.5 GiB for Qwen/Qwen3-4B.

    A base in 4 bit counts as one in 16, for it is unpacked to be merged.
    """
    found = _PARAMETERS.findall(name.rpartition("/")[2].lower())
    sizes = [int(experts or 1) * float(size) * (1e9 if unit == "b" else 1e6) for experts, size, unit in found]
    known = "by the parameters in its name" if sizes else "as 8 billion parameters, for its name does not say"
    return Room(2 * max(sizes, default=_UNKNOWN) / 2**30, known)


def answering_seconds(
    shape: Shape, card: Card, prompt: float, answer: float, *, cached: float = 0.0, batch: int = 256
) -> float:
    """The least seconds per row.

    Args:
        shape: of a model in 16 bit.
        card: the GPU.
        prompt: tokens of a question.
        answer: tokens of an answer, its end included. The first one comes with the prompt.
        cached: tokens of the prompt that are not computed anew.
        batch: rows that are answered at the same time. Every step reads all weights once for them.
    """
    weights = shape.body + shape.head
    prefill = 2 * ((prompt - cached) * shape.body + shape.head) / card.flops
    step = max(2 * batch * weights / card.flops, 2 * weights / card.bandwidth)
    return prefill + max(answer - 1, 0) * step / batch


def tuning_seconds(shape: Shape, card: Card, tokens: float, *, recomputed: bool = False) -> float:
    """The least seconds to tune a LoRA on so many tokens; `recomputed` counts gradient checkpointing."""
    return tokens * (6 if recomputed else 4) * (shape.body + shape.head) / card.flops
