"""Training recipes: that of the team GradientGurus, our own, and their changes for a machine without a GPU."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal

from tillmap.core.machine import usable_dtype

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TrainingRecipe:
    """How a LoRA adapter is trained. The names are those of PEFT and TRL where they have one.

    The model processes `batch_rows` examples at a time, and `accumulation` such batches make one step; their product is
    the effective batch size. `max_seq_length` counts the tokens of question and answer. A `warmup_steps` below 1 is a
    share of all steps.
    """

    max_seq_length: int
    load_in_4bit: bool
    dtype: Dtype
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    batch_rows: int
    accumulation: int
    epochs: float
    learning_rate: float
    schedule: Literal["linear", "cosine"]
    warmup_steps: float
    optimizer: str
    weight_decay: float
    gradient_checkpointing: bool
    group_by_length: bool
    cpu_dtype: Dtype = "float32"  # instead of `dtype`, without a GPU

    def steps(self, examples: int) -> int:
        """The number of steps of a training on so many examples."""
        return ceil(round(examples * self.epochs) / (self.batch_rows * self.accumulation))


GRADIENTGURUS = TrainingRecipe(
    max_seq_length=512,
    load_in_4bit=True,
    dtype="bfloat16",
    lora_rank=16,
    lora_alpha=16,
    lora_dropout=0.0,
    batch_rows=16,
    accumulation=4,
    epochs=3,
    learning_rate=2e-4,
    schedule="linear",
    warmup_steps=5,
    optimizer="adamw_8bit",
    weight_decay=0.01,
    gradient_checkpointing=True,
    group_by_length=False,
)

# Examples are short and differ in length, so a random batch is mostly padding; grouping by length avoids that. A
# smaller effective batch makes more steps of the same rows.
OURS = replace(
    GRADIENTGURUS,
    max_seq_length=256,
    batch_rows=16,
    accumulation=1,
    epochs=1,
    schedule="cosine",
    warmup_steps=0.05,
    group_by_length=True,
)

RECIPES = {"ours": OURS, "gradientgurus": GRADIENTGURUS}


def choose_recipe(name: str, changes: dict[str, Any]) -> TrainingRecipe:
    """The recipe `name` with `changes`. A change of None keeps the recipe's value."""
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def fit_to_machine(recipe: TrainingRecipe, cuda: bool) -> TrainingRecipe:
    """The recipe for this machine. Without CUDA: no 4-bit weights, no 8-bit optimizer, no checkpointing, `cpu_dtype`.

    A GPU without bfloat16 gets float16. On a CPU without matrix units (AMX) float32 is as fast as bfloat16.
    Gradient checkpointing would take a third more time to save memory, of which a CPU has enough for the models that it
    can train.
    """
    if cuda:
        return replace(recipe, dtype=usable_dtype(recipe.dtype))
    return replace(
        recipe, load_in_4bit=False, dtype=recipe.cpu_dtype, optimizer="adamw_torch", gradient_checkpointing=False
    )
