"""Trains a LoRA adapter with Unsloth and TRL. An interrupted training resumes at its last checkpoint."""

import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tillmap.core.completions import Message
from tillmap.core.errors import ModelError, ResourceError, first_line
from tillmap.core.files import read_json, write_json
from tillmap.core.machine import use_threads
from tillmap.tuning.examples import TokenisedExample, describe, tokenise_all
from tillmap.tuning.recipes import TrainingRecipe, fit_to_machine

logger = logging.getLogger(__name__)

PROGRESS = "progress.json"  # the last file of a checkpoint; without it the checkpoint is incomplete


@dataclass
class Progress:
    """What training has done so far, including interrupted runs.

    `tokens` are those of the examples, `padding` those that fill up batches. `peak_memory_mib` is the memory of the
    GPU, or that of the process on a CPU. `threads` are processor threads.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    padding: int = 0
    peak_memory_mib: int = 0
    threads: int = 0


@dataclass(frozen=True)
class Training:
    """A finished training: its progress, `losses` as (step, loss, learning rate), and its settings."""

    progress: Progress
    losses: list[tuple[int, float, float]]
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
            "tokens": done.tokens,
            "tokens_per_second": round(done.tokens / max(done.seconds, 1e-9), 1),
            "padding_share": round(done.padding / max(done.tokens + done.padding, 1), 4),
            "train_memory_mib": done.peak_memory_mib,
            "threads": done.threads,
            "flops": flops,
            "tflops_per_second": round(flops / max(done.seconds, 1e-9) / 1e12, 4),
            "first_loss": round(self.losses[0][1], 4),
            "last_loss": round(self.losses[-1][1], 4),
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

    Raises ResourceError, with what to change, if memory runs out, ModelError if the base cannot be loaded, and
    InputError if an example is too long.
    """
    unsloth, torch = _import_unsloth()
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    cuda = torch.cuda.is_available()
    recipe, state = fit_to_machine(recipe, cuda), state / ("cuda" if cuda else "cpu")
    last = last_checkpoint(state)
    progress = Progress(**read_json(last / PROGRESS)) if last else Progress()
    if last:
        logger.info("train: resuming at step %d", progress.step)
    # Sums of more threads differ in their last bits, so a resumed training keeps the number that it began with. It is
    # set before the model is loaded, because Unsloth keeps what it finds then.
    progress.threads = use_threads(progress.threads or None)
    logger.info("train: %d processor threads", progress.threads)
    model, tokenizer, targets = _load(unsloth, base, recipe, seed)
    examples = tokenise_all(conversations, tokenizer, recipe.max_seq_length)
    logger.info("train: %d examples, the first:\n%s", len(examples), describe(examples[0], tokenizer))
    pad = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)

    waiting: deque[tuple[int, int]] = deque()  # own tokens and padding; TRL makes batches ahead of their steps

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        inputs = pad([{name: row[name] for name in ("input_ids", "labels")} for row in batch])
        own = sum(len(row["input_ids"]) for row in batch)
        waiting.append((own, inputs["input_ids"].numel() - own))
        return dict(inputs)

    class Keeper(TrainerCallback):  # type: ignore[misc]
        """Counts tokens, and writes the progress into each checkpoint as its last file."""

        began = time.perf_counter()

        def on_substep_end(self, *_: Any, **__: Any) -> None:
            own, padding = waiting.popleft()
            progress.tokens += own
            progress.padding += padding

        on_step_end = on_substep_end  # the last batch of a step has no substep event

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            now = time.perf_counter()
            progress.step, progress.seconds, self.began = (
                state.global_step, round(progress.seconds + now - self.began, 3), now,
            )  # fmt: skip
            progress.peak_memory_mib = max(progress.peak_memory_mib, _peak_memory_mib(torch))
            write_json(asdict(progress), Path(args.output_dir) / f"checkpoint-{state.global_step}" / PROGRESS)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_dataset(examples),
        data_collator=collate,
        callbacks=[Keeper()],
        args=SFTConfig(
            output_dir=str(state),
            per_device_train_batch_size=recipe.batch_rows,
            gradient_accumulation_steps=recipe.accumulation,
            num_train_epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            optim=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            bf16=recipe.dtype == "bfloat16",
            fp16=recipe.dtype == "float16",
            gradient_checkpointing=recipe.gradient_checkpointing,
            use_cpu=not cuda,
            train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
            max_length=None,
            packing=False,
            padding_free=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            logging_steps=1,
            save_steps=checkpoint_steps,
            save_total_limit=2,
            seed=seed,
            data_seed=seed,
            report_to="none",
            disable_tqdm=not sys.stderr.isatty() or "TQDM_DISABLE" in os.environ,
        ),
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # the losses are written to a file
    with _explaining_memory(recipe, progress, torch):
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    _save(trainer.model, tokenizer, base, folder)
    trained, total = trainer.model.get_nb_trainable_parameters()
    return Training(
        progress=progress,
        losses=[
            (entry["step"], entry["loss"], entry["learning_rate"])
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
        recipe=recipe,
        parameters=total - trained,
        trained_parameters=trained,
        lora_targets=targets,
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )


def last_checkpoint(state: Path) -> Path | None:
    """The last complete checkpoint in `state`, or None. Incomplete ones, left by a killed run, are deleted."""
    complete = []
    for checkpoint in state.glob("checkpoint-*"):
        if (checkpoint / PROGRESS).is_file():
            complete.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(complete, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)


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


def _dataset(examples: Sequence[TokenisedExample]) -> Any:
    from datasets import Dataset

    columns = {
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
        "length": [len(example.input_ids) for example in examples],
    }
    return Dataset.from_dict(columns)


def _save(model: Any, tokenizer: Any, base: Path, folder: Path) -> None:
    """Save adapter and tokenizer. PEFT writes a set into its config in no fixed order; it is sorted here."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": str(base), "target_modules": sorted(config["target_modules"])}
    write_json(dict(sorted(config.items())), folder / "adapter_config.json")


def _peak_memory_mib(torch: Any) -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() // 2**20)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10))


@contextmanager
def _explaining_memory(recipe: TrainingRecipe, progress: Progress, torch: Any) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch raises RuntimeError when memory runs out
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise ResourceError(
            out_of_memory(recipe, _peak_memory_mib(torch), _memory_mib(torch), progress.step)
        ) from error


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
