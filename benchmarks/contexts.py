"""The context of a project's arm, for the benchmarks that run in a project."""

from pathlib import Path
from typing import Any

from stages.context import neighbours
from tillmap.arms.context import Context

TREE = Path("data/split/tree.parquet")


def open_context(arm: str, settings: Any, seed: int = 0, tree: Path = TREE) -> Context:
    """The context of an arm with these settings, whose neighbours are those that the project retrieved."""
    return Context(
        arm,
        settings,
        seed,
        model=Path("models") / arm,
        base=Path("models/base") / arm,
        linear=Path("models/linear"),
        rows_file=Path("data/split/rows.parquet"),
        tree_file=tree,
        neighbours=lambda _, retriever: neighbours(retriever),
    )
