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
Judges = Literal["own", "all"]
_FREE = ", ".join(arm for arm in ARMS if ARMS[arm].free)


def predict(  # noqa: PLR0917 - the options of a command line
    feed: Annotated[str, typer.Argument(metavar="INPUT", help="A file of rows to label; - for standard input.")],
    arm: Annotated[Trained, typer.Option(help="The trained arm that labels.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the labelled rows go.")],
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Of INPUT, where its name does not say; of standard input: jsonl if not given."),
    ] = None,
    out_format: Annotated[Format | None, typer.Option(help="Of FILE, where its name does not say.")] = None,
    id_: Annotated[str, typer.Option("--id", help="The column of ids, whole numbers or texts.")] = "indoml_id",
    description: Annotated[str, typer.Option(help="The column of descriptions.")] = "description",
    retailer: Annotated[
        str | None, typer.Option(help="The column of retailers. [default: retailer, if there is one]")
    ] = None,
    price: Annotated[str | None, typer.Option(help="The column of prices. [default: price, if there is one]")] = None,
    confidence: Annotated[
        Judges | None,
        typer.Option(
            help="What the confidences are computed from: the arm's own answer, or the answers of all free arms too "
            f"({_FREE}), which needs their files and is slower. [default: own for a free arm; all for the others, "
            "if the files are here]"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Dollars that a paid arm may cost. [default: provider.budget_usd of params.yaml]"),
    ] = None,
) -> None:
    """Label new rows with a trained arm: one row out for every row in, in the same order.

    INPUT is JSON Lines (as the contest has it), CSV with a header, or Parquet, told by the name's ending: .jsonl,
    .json, .ndjson, .features; .csv; .parquet. FILE likewise. An id is a whole number or a text, comes back as it was,
    and may come only once. Retailers and prices may be missing.

    INPUT is checked as a whole before anything is labelled. A bad row stops the run with its line, what was expected
    and what to do; none is set aside, for every row must have its answer. A run that is killed goes on where it was
    when the same command is given again, and writes the same bytes; FILE is there only once it is whole.

    Reads params.yaml and the arm's own files, says which are missing and the `dvc pull` that brings them, and writes
    nothing of the pipeline's. The openai arm costs money, and asks nothing where it may cost more than the budget.

    Each row gets supergroup, group, module, brand; confidence (how likely all four are right, 0 to 1); repair (what it
    took to get from the answer to a path: none, folded, parsed, snapped, vote); in_tree (whether training showed that
    path); source (the arm); status (ok; or empty or error where the arm gave no answer and the neighbours' vote stands
    in). The last line says how far the rows are from those of training, and what accuracy to expect.
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
    failed = f", {done.failed:,} of them by the neighbours' vote, for the arm gave no answer" if done.failed else ""
    typer.echo(f"{done.rows:,} rows labelled by {arm.value}{failed}: {out}")
    typer.echo(str(done))


def _require_outside(out: Path, feed: str) -> None:
    """Raise InputError where the output would take the place of the input, or of something that stages write."""
    place, here = out.resolve(), Path().resolve()
    own = [name for name in ("data", "models", "metrics", "plots") if place.is_relative_to(here / name)]
    if own:
        raise InputError(f"{out}: {own[0]}/ belongs to the pipeline; write to another folder")
    if feed != "-" and place == Path(feed).resolve():
        raise InputError(f"{out}: that is the file to be labelled; give the answers another name")
    if place.is_dir():
        raise InputError(f"{out}: that is a folder; give the file a name in it")


@contextmanager
def _as_file(feed: str) -> Iterator[Path]:
    """The feed as a file that can be read twice: standard input is kept in one for the while."""
    if feed != "-":
        yield Path(feed)
        return
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "stdin"
        with kept.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield kept
