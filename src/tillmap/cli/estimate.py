"""`tillmap estimate`: hours and dollars of the local language models on a GPU, before you rent it."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import pandas as pd
import typer

from tillmap.arms import ARMS, schema
from tillmap.arms._llm import LocalModelArm
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError, ParamsError
from tillmap.core.stored import amount, read_metrics
from tillmap.llm.limits import CARDS, SHAPES, Card, Shape, answering_seconds, tuning_seconds
from tillmap.tuning.recipes import RECIPES, choose_recipe

T = TypeVar("T")

# Of the limit. Tuning: an H100 reached a quarter of its datasheet with batches of 64. Answering: 0.35 with short free
# text, where the host held it up (below), more with long questions. GradientGurus' 30 minutes on an A40 are 0.77.
TRAINING_SHARE, ANSWERING_SHARE = 0.25, 0.4
# Rows per second of the host, whatever the GPU can do, as measured with vLLM beside an H100 (docs/gpu.md): free text is
# fed by one Python process, and allowed answers take 16 cores as long as this.
HOST_ROWS = {"off": 515.0, "tree": 190.0, "retrieved": 173.0}
_YOURS, _CONTEST = "your run", "contest"  # where the tokens are from


class Work(NamedTuple):
    """One thing that a GPU does: how many rows of how many tokens, and the least and the expected seconds."""

    arm: str
    recipe: str
    what: str
    rows: int
    tokens: str
    source: str
    seconds: float
    expected: float


def estimate(
    gpu: Annotated[str, typer.Option(help=f"The GPU: {', '.join(CARDS)}.")],
    model: Annotated[str, typer.Option(help=f"The model's shape: {', '.join(SHAPES)}.")] = "qwen3-4b",
    rows: Annotated[int | None, typer.Option(min=1, help="Rows to answer. As shipped, your test rows.")] = None,
    train_rows: Annotated[int | None, typer.Option(min=1, help="Training examples. As shipped, all you have.")] = None,
    usd_per_hour: Annotated[float | None, typer.Option(min=0, help="As shipped, costs.gpu_usd_per_hour.")] = None,
) -> None:  # fmt: skip
    """Estimate the hours and dollars of the local language models' arms on a GPU.

    The limit is what the GPU's operations and bytes per second allow. What to expect is a share of it. Rows, and the
    tokens of the recipe in params.yaml, are those of your last run (metrics/); other tokens are the contest's. The
    epochs are those of `train_llama`, for the recipe in params.yaml.
    """
    card, shape = _known(gpu.lower(), CARDS, "gpu"), _known(model, SHAPES, "model")
    params = read_params(paths.PARAMS, schema())
    arms = {name: arm for name, arm in ARMS.items() if isinstance(arm, LocalModelArm)}
    blocks = {name: params.block(name) for name in arms}
    usd = usd_per_hour if usd_per_hour is not None else params.costs.gpu_usd_per_hour or card.usd_per_hour
    if usd is None:
        raise ParamsError(f"no price of the {card.name} is known: add --usd-per-hour, or set costs.gpu_usd_per_hour")
    answered = rows or _count(paths.METRICS / "ingest.json", "ingest", "test_rows", "--rows")
    tuned = next(name for name, arm in arms.items() if arm.tuned)
    trained = train_rows or _count(
        paths.METRICS / "prompts" / f"{tuned}.json", "prompts", tuned, "all", "rows", "--train-rows"
    )
    typer.echo(f"{card.name}: {card.flops / 1e12:g} TFLOP/s, {card.bandwidth / 1e9:g} GB/s, {card.memory_gb} GB")
    typer.echo(f"{model}: {shape.gib:.1f} GiB in 16 bit")
    typer.echo(f"{answered:,} rows to answer, {trained:,} to train on, ${usd:.2f} an hour\n")
    works = _work(shape, card, arms, blocks, answered=answered, trained=trained, epochs=params.train_llama.epochs)
    typer.echo(_table(list(works), usd) + "\n")
    if usd == card.usd_per_hour:
        typer.echo(f"The price is RunPod's of {card.priced}; yours: --usd-per-hour.")
    if shape.gib * 2**30 > 0.9 * card.memory_gb * 1e9:
        typer.echo("The model does not fit on this GPU in 16 bit. In 4 bit it takes a quarter, and is not faster.")
    hosts = ", ".join(f"{rows:.0f} with `constrain: {name}`" for name, rows in HOST_ROWS.items())
    typer.echo(
        f"Expected: training at {TRAINING_SHARE} of the limit, answering at {ANSWERING_SHARE}, but no more rows "
        f"a second than a host with 16 cores: {hosts}.\nDownloading, loading and compiling come on top."
    )


def _known(name: str, known: Mapping[str, T], option: str) -> T:
    if name not in known:
        raise ParamsError(f"--{option} {name} is not known; expected one of {', '.join(known)}")
    return known[name]


def _count(file: Path, *keys: str) -> int:
    """A number of a metrics file. The last of `keys` is the option that replaces it."""
    *names, last, option = keys
    found = int(amount(read_metrics(file, *names), last))
    if not found:
        raise InputError(f"{file} does not say how many rows there are; run `dvc repro`, or add {option}")
    return found


def _work(
    shape: Shape,
    card: Card,
    arms: Mapping[str, LocalModelArm],
    blocks: Mapping[str, Any],
    *,
    answered: int,
    trained: int,
    epochs: float | None,
) -> Iterator[Work]:
    """The work of each arm with each recipe. `epochs` is for the recipe in params.yaml; None: as it has them itself."""
    for arm, recipe in ((arm, recipe) for arm in arms for recipe in RECIPES):
        contest = arms[arm].contest[recipe]
        chosen = blocks[arm].recipe == recipe
        pilot = _pilot(arm) if chosen else None
        if contest.example:
            times = choose_recipe(recipe, {"epochs": epochs} if chosen else {}).epochs
            tokens, source = (pilot["example"], _YOURS) if pilot and pilot["example"] else (contest.example, _CONTEST)
            seconds = tuning_seconds(shape, card, tokens * trained * times)
            name = f"training, {times:g} epoch{'s' * (times != 1)}"
            yield Work(arm, recipe, name, trained, f"{tokens:.0f}", source, seconds, seconds / TRAINING_SHARE)
        asked, told = (pilot["question"], pilot["answer"]) if pilot else (contest.question, contest.answer)
        seconds = answered * answering_seconds(shape, card, asked, told, cached=0 if pilot else contest.cached)
        source = _YOURS if pilot else _CONTEST
        expected = max(seconds / ANSWERING_SHARE, answered / HOST_ROWS[blocks[arm].constrain])
        yield Work(arm, recipe, "answering", answered, f"{asked:.0f} + {told:.0f}", source, seconds, expected)


def _pilot(arm: str) -> dict[str, float] | None:
    """Tokens per row of the last run, by the tokenizer of the model that it asked; None if the arm was off."""
    usage = read_metrics(paths.METRICS / "infer" / f"{arm}.json", "infer", arm)
    rows, asked, told = (amount(usage, name) for name in ("rows", "prompt_tokens", "completion_tokens"))
    if not rows or not asked:
        return None
    training, name = paths.METRICS / f"train_{arm}.json", f"train_{arm}"
    sample = read_metrics(paths.METRICS / "prompts" / f"{arm}.json", "prompts", arm, "sample")
    seen = amount(sample, "rows") * amount(read_metrics(training, name, "recipe"), "epochs")
    tokens = amount(read_metrics(training, name), "tokens")
    return {"question": asked / rows, "answer": told / rows, "example": tokens / seen if seen else 0.0}


def _table(works: list[Work], usd_per_hour: float) -> str:
    lines = []
    for work in works:
        least, likely = work.seconds / 3600, work.expected / 3600
        lines.append(
            {
                "arm": work.arm,
                "recipe": work.recipe,
                "work": work.what,
                "rows": f"{work.rows:,}",
                "tokens": work.tokens,
                "tokens of": work.source,
                "hours, least": _hours(least),
                "expected": _hours(likely),
                "dollars": f"{math.ceil(likely * usd_per_hour * 100) / 100:,.2f}",
            }
        )
    align = ["left", "left", "left", "right", "right", "left", "right", "right", "right"]
    table = pd.DataFrame(lines)
    return str(table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align))


def _hours(hours: float) -> str:
    return f"{hours:,.2f}" if hours >= 0.01 else f"{hours:.4f}"
