"""What the project's own code reaches on this machine's GPU, against what the GPU can do.

    python benchmarks/gpu.py [--base FOLDER | --shape qwen3-4b] [--steps train embed answer] [--json FILE]
    python benchmarks/gpu.py --limits [--shape llama3-8b]

`--base` takes a checkpoint, such as models/base/llama; `--shape` writes one with random weights, so that speed and
memory are real and answers are not. Without a GPU the shape is tiny, to try the script itself. Rows are the demo's.
`--recipe gradientgurus` has the contest team's texts. Each step is a process of its own. Its limit follows from a
matrix product and a copy that are measured first.

`--limits` needs no GPU. It prints the operations and bytes of the contest's rows, and the minutes that cards need for
them at the least.
"""

import argparse
import importlib.metadata
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms._llm import LocalModelArm
from tillmap.arms.llama import GRADIENTGURUS_LLAMA
from tillmap.catalogue.demo.catalogue import make_demo
from tillmap.core.completions import Message, Question
from tillmap.core.files import write_json
from tillmap.core.taxonomy import CONTEST, LabelTree
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.llm.interface.few_shot import labelled_items
from tillmap.llm.interface.prompting import Renderer, our_recipe
from tillmap.llm.limits import CARDS, SHAPES, Card, Shape, answering_seconds, tuning_seconds
from tillmap.tuning.recipes import RECIPES

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "trl",
    "unsloth",
    "bitsandbytes",
    "vllm",
    "sentence-transformers",
)
STEPS = ("train", "embed", "answer")
ONE_OPERATION = Card("one operation a second", 1.0, float("inf"), 0)
CONTEST_ROWS = 184_664  # to answer
CONTEST_EXAMPLES = 100_000  # to tune on, once
WARM = 6  # steps that are not counted: kernels are compiled in them
ANSWER_TOKENS = {"ours": 10, "gradientgurus": 37}  # a mean answer's; random weights never end one


def ceilings(side: int, block: int) -> Card:
    """This machine as a card: the operations of a product of `side` cubed, and the bytes of a copy.

    The numbers are of the type that the steps compute in: a CPU without bfloat16 takes tens of times as long with it.
    """
    import torch

    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)

    def seconds(work: Callable[[], Any]) -> float:
        spent = []
        for _ in range(8):
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - began)
        return statistics.median(spent[3:])

    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    target, source = torch.empty(2, block, dtype=torch.uint8, device=device)
    # A copy reads and writes every byte.
    flops, bandwidth = 2 * side**3 / seconds(lambda: first @ second), 2 * block / seconds(lambda: target.copy_(source))
    if device == "cpu":
        return Card(platform.processor() or "cpu", flops, bandwidth, 0)
    memory = torch.cuda.get_device_properties(0).total_memory
    return Card(torch.cuda.get_device_name(), flops, bandwidth, round(memory / 1e9))


def write_base(shape: Shape, folder: Path) -> None:
    """Write a checkpoint of this shape: random weights in 16 bit on a GPU, else in 32, and SmolLM2's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tillmap.llm.checkpoints import save_smollm2_tokenizer

    folder.mkdir(parents=True)
    save_smollm2_tokenizer(folder)
    cuda = torch.cuda.is_available()
    config = AutoConfig.for_model(
        "llama" if shape.head_dim is None else "qwen3", vocab_size=shape.vocabulary, hidden_size=shape.hidden,
        intermediate_size=shape.intermediate, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim or shape.hidden // shape.heads,
        max_position_embeddings=8192, bos_token_id=1, eos_token_id=2, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if cuda else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if cuda else torch.float32)
    model.save_pretrained(folder)


def shape_of(base: Path) -> Shape:
    """The shape that a checkpoint's config.json states."""
    config = json.loads((base / "config.json").read_text())
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return Shape(
        *(config[name] for name in (*names, "vocab_size")), config.get("head_dim"), config["tie_word_embeddings"]
    )


def conversations(count: int, recipe: str = "ours") -> list[list[Message]]:
    """Training examples of the demo's rows, as the `llama` arm writes them. Without its last message, a question."""
    rows = make_demo(max(count, 1000), 20, seed=5).train.rename(columns={"indoml_id": "id"})
    prompt, answer_format = (our_recipe(True, True), "short") if recipe == "ours" else (GRADIENTGURUS_LLAMA, "json")
    renderer = Renderer(prompt, make_answer_format(answer_format, LabelTree.from_rows(rows, CONTEST)))
    examples = [example for _, example in labelled_items(rows, CONTEST)][:count]
    return [renderer.training_example(example.item, example.path) for example in examples]


def train(base: Path, card: Card, name: str, steps: int, batch_rows: int) -> dict[str, Any]:
    """Tune a LoRA as the `llama` arm does, one epoch with one batch per step."""
    from tillmap.tuning import lora
    from tillmap.tuning.recipes import RECIPES

    _, torch = lora._import_unsloth()  # before transformers
    from transformers import TrainerCallback, trainer

    ends = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    trainer.DEFAULT_CALLBACKS.append(Clock)
    recipe = replace(RECIPES[name], batch_rows=batch_rows, accumulation=1, epochs=1)
    with TemporaryDirectory() as folder:
        done = lora.train_adapter(
            conversations(steps * batch_rows, name), base, recipe, Path(folder) / "state", Path(folder) / "adapter",
            checkpoint_steps=steps, seed=1,
        )  # fmt: skip
    took = statistics.median([after - before for before, after in pairwise(ends)][min(WARM, steps - 2) :])
    tokens = done.progress.tokens / done.progress.step
    least = tuning_seconds(shape_of(base), card, tokens)
    return {"speed": tokens / took, "unit": "tokens/s", "of_limit": least / took, "rows": batch_rows, "gib": _gib()}


def embed(base: Path, card: Card, rows: int) -> dict[str, Any]:
    """Embed the demo's lines with the packaged model, as `index` does. Its limit is not known: the tokenizer's."""
    from tillmap.retrieval.embedding import PACKAGED, Embedder, find_model

    texts = [messages[-2]["content"] for messages in conversations(rows)]
    embedder = Embedder(find_model(PACKAGED), batch_size=512)
    embedder.encode(texts[:8])
    began = time.perf_counter()
    embedder.encode([f"{text} x" for text in texts])
    speed = rows / (time.perf_counter() - began)
    return {"speed": speed, "unit": "rows/s", "of_limit": None, "rows": rows, "gib": _gib()}


def answer(base: Path, card: Card, recipe: str, rows: int, engine: str) -> dict[str, Any]:
    """Answer the demo's lines with free text, as the `llama` arm does, 256 rows at once."""
    import torch

    from tillmap.llm.engines.loading import load_engine
    from tillmap.llm.interface.generation import Generation, Machine

    cuda = torch.cuda.is_available()
    batch = min(rows, 256)
    machine = Machine("bfloat16" if cuda else "float32", 512, batch, None if cuda else 0.25, eager=not cuda)
    loaded: Any = load_engine(engine, base, machine, Generation(ANSWER_TOKENS[recipe], 0.0, 1))
    questions = [
        Question("test", number, messages[:-1]) for number, messages in enumerate(conversations(2 * rows, recipe))
    ]
    loaded.answer(questions[:batch])  # compiled, and warm
    began = time.perf_counter()
    answers = [
        each for start in range(rows, 2 * rows, batch) for each in loaded.answer(questions[start : start + batch])
    ]
    took = (time.perf_counter() - began) / len(answers)
    prompt, said, cached = (
        sum(getattr(each, name) for each in answers) / len(answers)
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens")
    )
    least = answering_seconds(shape_of(base), card, prompt, said, cached=cached, batch=batch)
    return {"speed": 1 / took, "unit": "rows/s", "of_limit": least / took, "rows": batch, "gib": _gib()}


def _gib() -> float:
    """Peak memory of this process in GiB: of the GPU, or of the host where there is none."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process, which gives all memory back and imports what it needs first."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _versions() -> dict[str, str]:
    found = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {name: found[name] for name in PACKAGES if name in found}


def limits(shape: Shape) -> pd.DataFrame:
    """What the contest's rows take at the least: tokens and TFLOP of each, and minutes of each card for all of them."""
    lines = []
    for arm, recipe in product([name for name, arm in ARMS.items() if isinstance(arm, LocalModelArm)], RECIPES):
        tokens = ARMS[arm].contest[recipe]
        asked = {"prompt": tokens.question, "answer": tokens.answer}
        least = partial(answering_seconds, shape, **asked, cached=tokens.cached)
        works = [("answering", CONTEST_ROWS, f"{tokens.question} + {tokens.answer}", least)]
        if tokens.example:
            least = partial(tuning_seconds, shape, tokens=tokens.example)
            works += [("tuning", CONTEST_EXAMPLES, f"{tokens.example}", least)]
        for work, rows, shown, seconds in works:
            told = {"arm": arm, "recipe": recipe, "work": work, "rows": f"{rows:,}", "tokens": shown}
            told["TFLOP per row"] = f"{seconds(ONE_OPERATION) / 1e12:.2f}"
            lines.append(told | {name: f"{rows * seconds(card) / 60:.1f}" for name, card in CARDS.items()})
    return pd.DataFrame(lines)


def main() -> None:
    import torch

    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--base", type=Path, help="the folder of a checkpoint")
    model.add_argument("--shape", choices=SHAPES, help="without a GPU tiny, else and for --limits qwen3-4b")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--recipe", choices=("ours", "gradientgurus"), default="ours")
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm" if cuda else "transformers")
    parser.add_argument("--rows", type=int, default=4096 if cuda else 16, help="rows to embed and to answer")
    parser.add_argument("--train-steps", type=int, default=24 if cuda else 3)
    parser.add_argument("--train-batch", type=int, default=64 if cuda else 4)
    parser.add_argument("--limits", action="store_true", help="only print what cards can do at the most")
    parser.add_argument("--json", type=Path, help="also writes the figures to this file")
    given = parser.parse_args()
    given.shape = given.shape or ("qwen3-4b" if cuda or given.limits else "tiny")
    if given.limits:
        shape = SHAPES[given.shape] if given.base is None else shape_of(given.base)
        print(f"{given.base or given.shape}: {shape.gib:.1f} GiB in 16 bit, read for each token; minutes by card:\n")
        print(limits(shape).to_markdown(index=False, tablefmt="simple", disable_numparse=True))
        return
    with TemporaryDirectory() as folder:
        base = given.base
        if base is None:
            base = Path(folder) / "base"
            apart(write_base, SHAPES[given.shape], base)
        card: Card = apart(ceilings, *((8192, 2**31) if cuda else (256, 2**24)))
        calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
            "train": (train, (given.recipe, given.train_steps, given.train_batch)),
            "embed": (embed, (given.rows,)),
            "answer": (answer, (given.recipe, given.rows, given.engine)),
        }
        found = {name: apart(calls[name][0], base, card, *calls[name][1]) for name in given.steps}
    print(f"{card.name}: product {card.flops / 1e12:.3g} TFLOP/s, copy {card.bandwidth / 1e9:.3g} GB/s")
    print(", ".join(f"{name} {version}" for name, version in _versions().items()) + "\n")
    lines = [
        {
            "step": name,
            "model": str(given.base or given.shape) if name != "embed" else "packaged MiniLM",
            "rows at once": each["rows"],
            "speed": f"{each['speed']:,.0f} {each['unit']}",
            "of the limit": f"{each['of_limit']:.3f}" if each["of_limit"] else "",
            "memory, GiB": each["gib"],
        }
        for name, each in found.items()
    ]
    print(pd.DataFrame(lines).to_markdown(index=False, tablefmt="simple", disable_numparse=True))
    if given.json:
        write_json(
            {"card": vars(card), "versions": _versions(), "model": str(given.base or given.shape)} | found, given.json
        )


if __name__ == "__main__":
    main()
