"""Trains a LoRA adapter with Unsloth and TRL. An interrupted training resumes at its last checkpoint."""

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tillmap.core.completions import Message
from tillmap.core.errors import ModelError, first_line
from tillmap.core.files import write_json
from tillmap.core.machine import use_threads
from tillmap.tuning.batches import order_of, padded_tokens
from tillmap.tuning.examples import TokenisedExample, describe, tokenise_all
from tillmap.tuning.memory import explaining_memory
from tillmap.tuning.progress import Loss, Progress, duration, last_checkpoint, load_progress, losses_of
from tillmap.tuning.recipes import TrainingRecipe, fit_to_machine
from tillmap.tuning.speed import expected_seconds
from tillmap.tuning.trainer import make_trainer

logger = logging.getLogger(__name__)

COMPILED_STEPS = 200  # from so many steps on, compiling the layers for a CPU takes less time than it saves


@dataclass(frozen=True)
class Training:
    """A finished training: its progress, its losses, and its settings."""

    progress: Progress
    losses: list[Loss]
    recipe: TrainingRecipe
    parameters: int
    trained_parameters: int
    lora_targets: list[str]
    device: str

    def report(self) -> dict[str, Any]:
        """The figures for the metrics file.

        `flops` is the estimate 6ND of Kaplan et al. (2020, arXiv:2001.08361): 6 x parameters x trained tokens. LoRA
        does fewer, because frozen weights need no gradients. So the rate can compare runs, but not devices.
        """
        done = self.progress
        flops = 6 * self.parameters * done.tokens
        return {
            "steps": done.step,
            "train_seconds": round(done.seconds, 1),
            "expected_seconds": round(done.expected_seconds, 1),
            "tokens": done.tokens,
            "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
            "padding_share": round(done.padding_share, 4),
            "train_memory_mib": done.peak_memory_mib,
            "threads": done.threads,
            "flops": flops,
            "tflops_per_second": round(flops / max(done.seconds, 1e-9) / 1e12, 4),
            "first_loss": round(self.losses[0].loss, 4),
            "last_loss": round(self.losses[-1].loss, 4),
            "parameters": self.parameters,
            "trained_parameters": self.trained_parameters,
            "lora_targets": self.lora_targets,
            "device": self.device,
            "recipe": asdict(self.recipe),
        }


def train_adapter(
    conversations: Sequence[Sequence[Message]],
    base: Path,
    recipe: TrainingRecipe,
    state: Path,
    folder: Path,
    *,
    checkpoint_steps: int,
    seed: int,
    curve: Path | None = None,
) -> Training:
    """Train a LoRA adapter and save it with the tokenizer in `folder`, as safetensors.

    Args:
        conversations: the examples. The last message of each is the answer to learn. The first example is logged.
        base: the folder of the checkpoint to tune.
        recipe: the hyperparameters.
        state: the folder for the checkpoints of exactly this training. Training resumes at the last complete one.
        folder: where the adapter goes.
        checkpoint_steps: steps between checkpoints; there is one more at the end.
        seed: for the order of the examples, the initial weights and dropout.
        curve: a CSV file that gets the loss of each step while training runs; None: no file.

    Raises ResourceError, with what to change, if memory runs out, ModelError if the base cannot be loaded, and
    InputError if an example is too long.
    """
    unsloth, torch = _import_unsloth()

    cuda = torch.cuda.is_available()
    recipe, state = fit_to_machine(recipe, cuda), state / ("cuda" if cuda else "cpu")
    last = last_checkpoint(state)
    progress = load_progress(last)
    if last:
        logger.info("train: resuming at step %d", progress.step)
    # Sums of more threads differ in their last bits, so a resumed training keeps the number that it began with. It is
    # set before the model is loaded, because Unsloth keeps what it finds then.
    progress.threads = use_threads(progress.threads)
    if recipe.steps(len(conversations)) >= COMPILED_STEPS:  # so a resumed training is compiled if it was before
        os.environ.setdefault("UNSLOTH_CPU_COMPILE", "1")  # without a C++ compiler Unsloth says so, and goes on
    model, tokenizer, targets = _load(unsloth, base, recipe, seed)
    examples = tokenise_all(conversations, tokenizer, recipe.max_seq_length)
    logger.info("train: %d examples, the first:\n%s", len(examples), describe(examples[0], tokenizer))
    lengths = [len(example.input_ids) for example in examples]
    order = order_of(lengths, recipe.batch_rows, recipe.epochs, grouped=recipe.group_by_length, seed=seed)
    ordered = [lengths[place] for place in order]
    tokens = sum(ordered)
    if not last:
        padded = padded_tokens(ordered, recipe.batch_rows)
        rows = round(recipe.batch_rows * tokens / len(order))
        progress.expected_seconds = round(expected_seconds(model, padded, rows), 1)
    logger.info(
        "train: %d tokens with %d processor threads, about %s at the machine's present speed",
        tokens, progress.threads, duration(progress.expected_seconds),
    )  # fmt: skip
    trainer = make_trainer(
        model, tokenizer, _dataset(examples, order), recipe, state,
        progress=progress, tokens=tokens, curve=curve, checkpoint_steps=checkpoint_steps, seed=seed,
    )  # fmt: skip
    with explaining_memory(recipe, progress, torch):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    _save(trainer.model, tokenizer, base, folder)
    trained, total = trainer.model.get_nb_trainable_parameters()
    return Training(
        progress=progress,
        losses=losses_of(trainer.state.log_history),
        recipe=recipe,
        parameters=total - trained,
        trained_parameters=trained,
        lora_targets=targets,
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )


def lora_targets(model: Any) -> list[str]:
    """The names of the linear layers of a model of any architecture, except its output layer.

    For Llama, Mistral and Qwen2 these are q, k, v, o, gate, up and down; for Phi-3 qkv, o, gate_up and down.
    """
    from torch import nn

    output = model.get_output_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not output
        }
    )


def attention(recipe: TrainingRecipe, cuda: bool) -> dict[str, str]:
    """How the model computes attention, as an argument of `from_pretrained`; empty: as transformers chooses.

    On a CPU torch's fused attention is fast forward, but in bfloat16 its backward takes a third of a whole training's
    time (torch 2.13, AMX). Plain matrix products take a tenth, and compute the same but for rounding.
    """
    return {"attn_implementation": "eager"} if recipe.dtype == "bfloat16" and not cuda else {}


def _import_unsloth() -> tuple[Any, Any]:
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    try:
        with _without_vllm():
            import unsloth  # before trl and transformers, which it changes
    except ImportError as error:
        raise ModelError(f"training needs Unsloth ({first_line(error)}); run `make setup` to install it") from error
    import torch

    return unsloth, torch


@contextmanager
def _without_vllm() -> Iterator[None]:
    """Keep Unsloth from importing vLLM's compiled module, which is not needed here.

    Of the builds in vLLM for CPUs, Unsloth imports the one for AVX-512. On other processors the process dies.
    """
    name, spec = "vllm._C", importlib.util.find_spec("vllm")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec else ())]
    for_cpus = any(next(folder.glob("_C_AVX2.*"), None) for folder in folders)
    if not for_cpus or name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes an import raise ModuleNotFoundError
    try:
        yield
    finally:
        del sys.modules[name]


def _load(unsloth: Any, base: Path, recipe: TrainingRecipe, seed: int) -> tuple[Any, Any, list[str]]:
    import torch
    from transformers import AutoTokenizer

    try:
        model, _ = unsloth.FastLanguageModel.from_pretrained(
            str(base),
            max_seq_length=recipe.max_seq_length,
            dtype=getattr(torch, recipe.dtype),
            load_in_4bit=recipe.load_in_4bit,
            local_files_only=True,
            trust_remote_code=False,
            **attention(recipe, torch.cuda.is_available()),
        )
        # Unsloth may change the tokenizer that it returns. Engines load the base's own, so train with that one.
        tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"{base}: Unsloth cannot load this checkpoint ({first_line(error)}); choose another `base` for the arm"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    targets = lora_targets(model)
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        bias="none",
        target_modules=targets,
        use_gradient_checkpointing="unsloth" if recipe.gradient_checkpointing else False,
        random_state=seed,
    )
    return model, tokenizer, targets


def _dataset(examples: Sequence[TokenisedExample], order: Sequence[int]) -> Any:
    """The examples in the order of training, those of all epochs."""
    from datasets import Dataset

    columns = {
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
    }
    return Dataset.from_dict(columns).select(order)


def _save(model: Any, tokenizer: Any, base: Path, folder: Path) -> None:
    """Save adapter and tokenizer. PEFT writes a set into its config in no fixed order; it is sorted here."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": str(base), "target_modules": sorted(config["target_modules"])}
    write_json(dict(sorted(config.items())), folder / "adapter_config.json")
