"""The `tillmap` command."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tillmap.errors import TillmapError
from tillmap.profiles import apply_profiles

app = typer.Typer(
    help="Till receipt lines to a product hierarchy. The pipeline itself runs with `dvc repro`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """Keeps `tillmap COMMAND` the form of the command line, however many commands there are."""


@app.command()
def profile(
    names: Annotated[list[str], typer.Argument(help="Profiles of profiles/, applied in this order: gpu, gpu-16gb.")],
) -> None:
    """Write the values of a profile into params.yaml."""
    changed = apply_profiles(names, Path("params.yaml"), Path("profiles"))
    for key, (old, new) in changed.items():
        typer.echo(f"{key}: {old} -> {new}")
    typer.echo(f"{len(changed)} values changed in params.yaml; `git checkout params.yaml` undoes it.")


def run() -> None:
    """The command line: 0 where all went well, 1 for a mistake that a user can mend, 2 for a wrong call."""
    try:
        app()
    except TillmapError as error:
        sys.exit(f"tillmap: {error}")


if __name__ == "__main__":
    run()
