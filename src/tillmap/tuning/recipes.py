"""The values a model is tuned with: GradientGurus', ours, and what of them a machine without a GPU can do."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class TrainingRecipe:
    """How a LoRA adapter is trained. Names are those of PEFT and TRL where they have one.

    `batch_rows` examples go through the model at once and `accumulation` such batches make one step, so
    `batch_rows * accumulation` is the effective batch. `max_seq_length` is in tokens, question and answer together.
    `warmup_steps` below 1 is a share of all steps.
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

# Short answers leave most of a batch to padding unless like lengths go together, and a smaller batch takes more steps
# from the same rows.
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
    """The recipe of that name with `changes`; a change of None leaves the recipe's own value."""
    return replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})


def fit_to_machine(recipe: TrainingRecipe, cuda: bool) -> TrainingRecipe:
    """The recipe as this machine can run it: without CUDA neither 4-bit weights nor an 8-bit optimizer, in float32.

    float32 because a CPU trains no faster in bfloat16, and gives the same bytes each time. Gradient checkpointing
    saves the memory of a GPU; a CPU has enough for the models it can train, and it would cost a third of the time.
    """
    if cuda:
        return recipe
    return replace(recipe, load_in_4bit=False, dtype="float32", optimizer="adamw_torch", gradient_checkpointing=False)
