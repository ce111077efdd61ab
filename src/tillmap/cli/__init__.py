"""The `tillmap` command."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from tillmap.config import paths
from tillmap.config.params import ARMS, TRAINED, read_params
from tillmap.config.profiles import apply_profiles
from tillmap.core.errors import InputError, TillmapError

_EXIT = """Exit codes: 0 all went well, 1 something that you can mend (the message says how), 2 a wrong call."""

app = typer.Typer(
    help="Till receipt lines to a product hierarchy. The pipeline itself runs with `dvc repro`.",
    epilog=_EXIT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text wraps anywhere, in a pipe too
    pretty_exceptions_enable=False,
)
Arm = StrEnum("Arm", {arm: arm for arm in ARMS})  # type: ignore[misc]
Trained = StrEnum("Trained", {arm: arm for arm in TRAINED})  # type: ignore[misc]
Format = Literal["jsonl", "csv", "parquet"]
Judges = Literal["own", "all"]


@app.callback()
def main() -> None:
    """Keeps `tillmap COMMAND` the form of the command line, however many commands there are."""


@app.command(epilog=_EXIT)
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
            help="Whose word the confidences go by: the arm's own, or that of all free arms (nearest, linear) besides, "
            "which needs their files and is slower. [default: own for nearest and linear; all for the others, where "
            "the files are here]"
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Dollars that the openai arm may cost. [default: provider.budget_usd of params.yaml]"),
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
    from tillmap.serving.batch import label_feed
    from tillmap.serving.feed import Columns, Feed
    from tillmap.serving.formats import format_of
    from tillmap.serving.labeller import open_arm

    target = out_format or format_of(out)
    _require_outside(out, feed)
    params = read_params(paths.PARAMS)
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


@app.command(epilog=_EXIT)
def submit(  # noqa: PLR0917 - the options of a command line
    name: Annotated[str, typer.Option(help="The file in the zip is test_NAME.predict: letters, digits, - and _.")],
    out: Annotated[Path, typer.Option(metavar="FILE.zip", help="The zip to write.")],
    predictions: Annotated[
        Path | None,
        typer.Argument(help="What `tillmap predict` wrote for the test file, as JSON Lines, CSV or Parquet."),
    ] = None,
    arm: Annotated[Arm | None, typer.Option(help="Instead: the pipeline's own predictions of this arm.")] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="The test file, for its ids and their order. [default: the one that the pipeline read]"),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Let label paths through that no labelled row has, of an unseen brand say.")
    ] = False,
) -> None:
    """Write the contest's zip: one file with a JSON line a row, in the test file's order.

    The same rows give the same bytes. Refuses, with the row and what was expected, where a test row is missing, comes
    twice or stands out of order, an id is no whole number, or four labels are no path that a labelled row has. Needs
    data/split (`dvc pull data/split`).
    """
    import pandas as pd

    from tillmap.core.files import read_table
    from tillmap.core.taxonomy import LabelTree
    from tillmap.serving.feed import Feed
    from tillmap.serving.submission import read_answers, write_submission

    if (predictions is None) == (arm is None):
        raise typer.BadParameter("give either a file of PREDICTIONS or an arm's name with --arm")
    rows = read_table(paths.ROWS)
    if predictions is not None:
        answers = read_answers(predictions)
    else:
        answers = read_table(paths.PREDICTIONS / f"{arm}.parquet")
        if answers.empty:
            raise InputError(f"the {arm} arm was off and predicted nothing; switch it on and run `dvc repro`")
        answers = answers[answers["split"] == "test"]
    if test is None:
        asked = rows.loc[rows["split"] == "test", "id"]
    else:
        asked = pd.concat([batch["key"] for batch in Feed(test).batches(100_000)], ignore_index=True)
    tree = None if unseen else LabelTree.from_rows(rows[rows["split"] == "train"])
    written = write_submission(answers, asked, tree, name, out)
    typer.echo(f"{written:,} rows in test_{name}.predict: {out}")


@app.command(epilog=_EXIT)
def doctor() -> None:
    """Look whether this machine is ready to run the pipeline and to label, and say what to do where it is not.

    Python, packages against the lock of requirements/, GPU, disk, params.yaml, DVC's remote, keys (whether they are
    set, never their values) and the files of each arm that is on. Changes nothing. The exit code is 0 where all is
    well, else 1.
    """
    from tillmap.cli.doctor import examine

    bad = 0
    for finding in examine(Path()):
        typer.echo(f"{'ok ' if finding.well else 'BAD'}  {finding.name}: {finding.found}")
        if not finding.well:
            typer.echo(f"     -> {finding.remedy}")
            bad += 1
    typer.echo("all is well" if not bad else f"{bad} to mend")
    if bad:
        raise typer.Exit(1)


@app.command(epilog=_EXIT)
def profile(
    names: Annotated[list[str], typer.Argument(help="Profiles of profiles/, applied in this order: gpu, gpu-16gb.")],
) -> None:
    """Write the values of a profile into params.yaml."""
    changed = apply_profiles(names, Path("params.yaml"), Path("profiles"))
    for key, (old, new) in changed.items():
        typer.echo(f"{key}: {old} -> {new}")
    typer.echo(f"{len(changed)} values changed in params.yaml; `git checkout params.yaml` undoes it.")


@app.command(epilog=_EXIT)
def cancel(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Keys of runs; none: all that have something under way.")
    ] = None,
) -> None:
    """Cancel tuning jobs and batches that are under way at a provider. What is answered stays, and is billed."""
    from tillmap.providers.cancel import cancel_runs

    typer.echo(f"{cancel_runs(runs or [])} cancelled")


@app.command(epilog=_EXIT)
def prune(
    days: Annotated[int, typer.Option(min=0, help="Keep what was used in the last so many days.")] = 30,
) -> None:
    """Delete old resume state: answers, checkpoints and pieces of finished or forgotten runs.

    What is under way at a paid provider is kept.
    """
    from tillmap.cli.prune import prune_state

    count, size = prune_state(days)
    typer.echo(f"{count} runs deleted, {size / 2**20:,.0f} MiB freed")


@app.command(epilog=_EXIT)
def private() -> None:
    """Keep a licensed catalogue's rows from every remote: marks the outputs that hold descriptions in dvc.yaml."""
    from tillmap.cli.private import keep_private

    for path in keep_private(Path("dvc.yaml")):
        typer.echo(f"{path}: push: false")
    typer.echo("Rows stay on this machine; models, completions and predictions still travel. Commit dvc.yaml.")


def run() -> None:
    """The command line: 0 where all went well, 1 for a mistake that a user can mend, 2 for a wrong call."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tillmap").setLevel(logging.INFO)
    try:
        app()
    except TillmapError as error:
        sys.exit(f"tillmap: {error}")
    except MemoryError:
        sys.exit("tillmap: out of memory; close other programs, or label with an arm that needs less, such as linear")
    except OSError as error:  # a full disk, a folder that may not be written
        if error.strerror is None:
            raise
        sys.exit(f"tillmap: {error.filename or 'the disk'}: {error.strerror}; mend that and give the command again")


if __name__ == "__main__":
    run()
