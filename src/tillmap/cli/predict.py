"""`tillmap predict`: label new rows with a trained arm."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError

Trained = StrEnum("Trained", {arm: arm for arm in ARMS})  # type: ignore[misc]
Format = Literal["jsonl", "csv", "parquet"]
_FREE = ", ".join(arm for arm in ARMS if ARMS[arm].free)


def predict(  # noqa: PLR0917 - the options of a command line
    feed: Annotated[str, typer.Argument(metavar="INPUT", help="The rows to label: a file, or - for standard input.")],
    arm: Annotated[Trained, typer.Option(help="The trained arm to use.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file to write the labelled rows to.")],
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="The format of INPUT. [default: from its name; jsonl for standard input]"),
    ] = None,
    out_format: Annotated[Format | None, typer.Option(help="The format of FILE. [default: from its name]")] = None,
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
    (.parquet). Ids are whole numbers or texts, and each must be unique. They are written back unchanged. Retailers and
    prices may be missing.

    All of INPUT is checked before the first row is labelled. A bad row stops the command. The error names the line,
    what was expected and what to do. If the command is killed, run it again: it continues after the last finished
    batch, and writes the same bytes as an uninterrupted run. FILE appears only when it is complete.

    The command reads params.yaml and the arm's files, and changes nothing of the pipeline. If files are missing, the
    error names the `dvc pull` that fetches them. A paid arm is not asked if the cost may exceed the budget.

    FILE has these columns: the id; supergroup, group, module and brand; confidence (the probability that all four
    labels are right); repair (how the answer became a label path: none, folded, parsed, snapped or vote); in_tree
    (whether a training row has this path); source (the arm); and status (ok, or empty or error if the arm gave no
    answer; such a row gets the labels of its neighbours). The last line of the output shows how far the rows are from
    the training rows, and the expected accuracy.
    """
    from tillmap.catalogue.formats import format_of
    from tillmap.serving.batch import label_feed
    from tillmap.serving.feed import Columns, Feed
    from tillmap.serving.labeller import open_arm

    target = out_format or format_of(out)
    _require_outside(out, feed)
    params = read_params(paths.PARAMS, schema())
    if budget is not None:
        params = params.model_copy(update={"provider": params.provider.model_copy(update={"budget_usd": budget})})
    with _as_file(feed) as path:
        piped = {"format": format_ or "jsonl", "name": "standard input"} if feed == "-" else {"format": format_}
        source = Feed(path, Columns(id_, description, retailer, price), **piped)
        done = label_feed(open_arm(arm.value, params, confidence), source, out, target)
    failed = f", {done.failed:,} of them by the neighbours' vote, because the arm gave no answer" if done.failed else ""
    typer.echo(f"{done.rows:,} rows labelled by {arm.value}{failed}: {out}")
    typer.echo(str(done))


def _require_outside(out: Path, feed: str) -> None:
    """Raise InputError if the output would overwrite the input, or a file that a stage writes."""
    place, here = out.resolve(), Path().resolve()
    own = [name for name in ("data", "models", "metrics", "plots") if place.is_relative_to(here / name)]
    if own:
        raise InputError(f"{out}: {own[0]}/ belongs to the pipeline; write to another folder")
    if feed != "-" and place == Path(feed).resolve():
        raise InputError(f"{out}: this is the file to label; write to another file")
    if place.is_dir():
        raise InputError(f"{out}: this is a folder; name a file in it")


@contextmanager
def _as_file(feed: str) -> Iterator[Path]:
    """The feed as a file that can be read twice. Standard input is copied to a temporary file."""
    if feed != "-":
        yield Path(feed)
        return
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "stdin"
        with kept.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield kept
