"""`tillmap profile`: write the values of a profile into params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.profiles import apply_profiles


def profile(
    names: Annotated[list[str], typer.Argument(help="Files in profiles/, without .yaml. Later ones win.")],
) -> None:
    """Write the values of a profile into params.yaml."""
    changed = apply_profiles(names, paths.PARAMS, Path("profiles"), schema())
    for key, (old, new) in changed.items():
        typer.echo(f"{key}: {old} -> {new}")
    typer.echo(f"{len(changed)} values changed in params.yaml; `git checkout params.yaml` undoes it.")
