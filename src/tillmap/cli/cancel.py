"""`tillmap cancel`: cancel what is under way at a provider."""

from typing import Annotated

import typer


def cancel(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Keys of runs; none: all that have something under way.")
    ] = None,
) -> None:
    """Cancel tuning jobs and batches that are under way at a provider. What is answered stays, and is billed."""
    from tillmap.providers.cancel import cancel_runs

    typer.echo(f"{cancel_runs(runs or [])} cancelled")
