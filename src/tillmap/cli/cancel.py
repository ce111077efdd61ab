"""`tillmap cancel`: cancel tuning jobs and batches at a provider."""

from typing import Annotated

import typer


def cancel(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Keys of the runs to cancel. [default: all unfinished runs]")
    ] = None,
) -> None:
    """Cancel unfinished jobs at a provider.

    Cancels tuning jobs and batches. Finished answers are kept, and billed.
    """
    from tillmap.providers.cancel import cancel_runs

    typer.echo(f"{cancel_runs(runs or [])} cancelled")
