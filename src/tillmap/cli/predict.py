"""`tillmap predict`: label new rows with a trained arm."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.files import STANDARD, is_standard_output, is_stream, require_writable
from tillmap.core.inputs import steady

Trained = StrEnum("Trained", {arm: arm for arm in ARMS})  # type: ignore[misc]
Format = Literal["jsonl", "csv", "parquet"]
_FREE = ", ".join(arm for arm in ARMS if ARMS[arm].free)


def predict(  # noqa: PLR0917 - the options of a command line
    feed: Annotated[Path, typer.Argument(metavar="INPUT", help="The rows to label: a file, or - for standard input.")],
    arm: Annotated[Trained, typer.Option(help="The trained arm to use.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The file to write the labelled rows to, or - for standard output.")
    ],
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="The format of INPUT. [default: from its name; jsonl for a pipe]"),
    ] = None,
    out_format: Annotated[
        Format | None, typer.Option(help="The format of FILE. [default: from its name; jsonl for a pipe]")
    ] = None,
    id_: Annotated[str, typer.Option("--id", help="The column with the ids.")] = "indoml_id",
    description: Annotated[str, typer.Option(help="The column with the descriptions.")] = "description",
    retailer: Annotated[
        str | None, typer.Option(help="The column with the retailers. [default: retailer, if there is one]")
    ] = None,
    price: Annotated[
        str | None, typer.Option(help="The column with the prices. [default: price, if there is one]")
    ] = None,
    confidence: Annotated[
        Literal["own", "all"] | None,
        typer.Option(
            help="What confidences are computed from. own: the arm's own answers. all: the answers of the free arms "
            f"({_FREE}), too, which is slower and needs their files. [default: own for a free arm; all for other "
            "arms, if the files are here]"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="The most dollars to spend on a paid arm. [default: provider.budget_usd]"),
    ] = None,
) -> None:
    """Label new rows with a trained arm.

    The output has one row for each input row, in the same order.

    INPUT and FILE can be JSON Lines (.jsonl, .json, .ndjson, .features), CSV with a header (.csv) or Parquet
    (.parquet). INPUT may be compressed by gzip, bzip2 or xz, and both may be pipes. Ids are whole numbers or texts, and
    each must be unique. They are written back unchanged. Retailers and prices may be missing.

    All of INPUT is checked before the first row is labelled. A bad row stops the command. The error names the line,
    what was expected and what to do. If the command is killed, run it again: it continues after the last finished
    batch, and writes the same bytes as an uninterrupted run. FILE appears only when it is complete. An existing one is
    replaced and keeps its mode and owner. If INPUT changes while it is read, the command stops with an error.

    The command reads params.yaml and the arm's files, and changes nothing of the pipeline. If files are missing, the
    error names the `dvc pull` that fetches them. A paid arm is not asked if the cost may exceed the budget.

    FILE has these columns: the id; supergroup, group, module and brand; confidence (the probability that all four
    labels are right); repair (how the answer became a label path: none, folded, parsed, snapped or vote); in_tree
    (whether a training row has this path); source (the arm); and status (ok, or empty or error if the arm gave no
    answer; such a row gets the labels of its neighbours). The last line of the output shows how far the rows are from
    the training rows, and the expected accuracy.
    """
    from tillmap.serving.batch import label_feed
    from tillmap.serving.feed import Columns, Feed
    from tillmap.serving.formats import format_or_lines
    from tillmap.serving.labeller import open_arm

    target = out_format or format_or_lines(out, is_stream(out))
    require_writable(out)
    _require_outside(out, feed)
    params = read_params(paths.PARAMS, schema())
    if budget is not None:
        params = params.model_copy(update={"provider": params.provider.model_copy(update={"budget_usd": budget})})
    with steady(feed) as given:
        kind = format_ or format_or_lines(given.named, given.stream)
        source = Feed(given.path, Columns(id_, description, retailer, price), kind, given.shown)
        done = label_feed(open_arm(arm.value, params, confidence), source, out, target)
    failed = f", {done.failed:,} of them by the neighbours' vote, because the arm gave no answer" if done.failed else ""
    printed = is_standard_output(out)  # then these lines must not be among the rows
    typer.echo(f"{done.rows:,} rows labelled by {arm.value}{failed}: {out}", err=printed)
    typer.echo(str(done), err=printed)


def _require_outside(out: Path, feed: Path) -> None:
    """Raise InputError if the output would overwrite the input, or a file that a stage writes."""
    if is_stream(out):
        return
    place, here = out.resolve(), Path().resolve()
    own = [name for name in ("data", "models", "metrics", "plots") if place.is_relative_to(here / name)]
    if own:
        raise InputError(f"{out}: {own[0]}/ belongs to the pipeline; write to another folder")
    if feed != STANDARD and place.exists() and feed.exists() and place.samefile(feed):
        raise InputError(f"{out}: this is the file to label; write to another file")
