"""TRL's trainer as training uses it: the examples in our order, and a record of what it has done."""

import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from tillmap.tuning.memory import peak_memory_mib
from tillmap.tuning.progress import LossCurve, Progress, TimeLeft, losses_of
from tillmap.tuning.recipes import TrainingRecipe


def make_trainer(
    model: Any,
    tokenizer: Any,
    dataset: Any,
    recipe: TrainingRecipe,
    state: Path,
    *,
    progress: Progress,
    tokens: int,
    curve: Path | None,
    checkpoint_steps: int,
    seed: int,
) -> Any:
    """TRL's trainer, which sees the dataset once, as it is ordered, and keeps `progress`."""
    import torch
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    pad = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)
    waiting: deque[tuple[int, int]] = deque()  # own tokens and padding; TRL makes batches ahead of their steps

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, Any]:
        inputs = pad([{name: row[name] for name in ("input_ids", "labels")} for row in batch])
        own = sum(len(row["input_ids"]) for row in batch)
        waiting.append((own, inputs["input_ids"].numel() - own))
        return dict(inputs)

    bars = sys.stderr.isatty() and "TQDM_DISABLE" not in os.environ
    time_left = None if bars else TimeLeft(tokens)  # a progress bar says so itself
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[_keeper(progress, waiting, LossCurve(curve) if curve else None, time_left)],
        args=SFTConfig(
            output_dir=str(state),
            per_device_train_batch_size=recipe.batch_rows,
            gradient_accumulation_steps=recipe.accumulation,
            num_train_epochs=1,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.schedule,
            warmup_steps=recipe.warmup_steps,
            optim=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            bf16=recipe.dtype == "bfloat16",
            fp16=recipe.dtype == "float16",
            gradient_checkpointing=recipe.gradient_checkpointing,
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="sequential",
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
            disable_tqdm=not bars,
        ),
    )
    trainer.remove_callback(PrinterCallback)  # the losses are written to a file
    return trainer


def _keeper(
    progress: Progress, waiting: deque[tuple[int, int]], curve: LossCurve | None, time_left: TimeLeft | None
) -> Any:
    """A callback that counts tokens, writes the loss curve, and saves the progress as a checkpoint's last file."""
    import torch
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]
        began = time.perf_counter()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.perf_counter()
            if curve:
                curve.start(losses_of(state.log_history))
            if time_left:
                time_left.start(progress.tokens)

        def on_substep_end(self, *_: Any, **__: Any) -> None:
            own, padding = waiting.popleft()
            progress.tokens += own
            progress.padding += padding

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.on_substep_end()  # the last batch of a step has no substep event
            if time_left:
                time_left.after(state.global_step, state.max_steps, progress.tokens)

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if curve:
                curve.add(losses_of(state.log_history[-1:]))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress.peak_memory_mib = max(progress.peak_memory_mib, peak_memory_mib(torch))
            before, self.began = self.began, time.perf_counter()
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            progress.save(state.global_step, self.began - before, checkpoint)

    return Keeper()
