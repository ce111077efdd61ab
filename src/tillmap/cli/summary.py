"""`tillmap summary`: the results of the last run."""

from pathlib import Path

import pandas as pd
import typer

from tillmap.config import paths
from tillmap.core.errors import InputError
from tillmap.core.stored import amount, read_metrics

_MIN_SECONDS = 1.0  # faster stages share one line


def summary() -> None:
    """Show the results of the last run.

    Shows the scores of the arms, the time of each stage, and an estimate for all test rows. Reads the files that
    `dvc repro` wrote to plots/ and metrics/. A stage that did not run again shows the time of its last run.
    """
    for file in (paths.TABLE, paths.ESTIMATE):
        if not file.is_file():
            raise InputError(f"{file} is missing; `dvc repro` makes it, `dvc pull plots` fetches it")
    typer.echo(paths.TABLE.read_text(encoding="utf-8", errors="replace"))
    typer.echo("Time and memory of each stage, without imports and DVC:\n")
    typer.echo(stage_times(paths.METRICS) + "\n")
    typer.echo("Estimate for all test rows, at the speed and cost per row of this run:\n")
    typer.echo(paths.ESTIMATE.read_text(encoding="utf-8", errors="replace"))


def stage_times(metrics: Path) -> str:
    """A plain text table of each stage's seconds and peak memory, the slowest first, from the stages' metrics files."""
    found = []
    for file in sorted(metrics.rglob("*.json")):
        name = str(file.relative_to(metrics).with_suffix(""))
        block = read_metrics(file, *name.split("/"))
        if "seconds" in block:
            found.append((name.replace("/", "@"), amount(block, "seconds"), amount(block, "peak_memory_mib")))
    slow = sorted((line for line in found if line[1] >= _MIN_SECONDS), key=lambda line: -line[1])
    rest = [line for line in found if line[1] < _MIN_SECONDS]
    if rest:
        slow.append((f"{len(rest)} others", sum(line[1] for line in rest), max(line[2] for line in rest)))
    slow.append(("all", sum(line[1] for line in found), max((line[2] for line in found), default=0)))
    table = pd.DataFrame(
        [(name, f"{seconds:,.1f}", f"{memory:,.0f}") for name, seconds, memory in slow],
        columns=["stage", "seconds", "peak MiB"],
    )
    align = ("left", "right", "right")
    return str(table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=align))
