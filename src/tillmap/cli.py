"""The `tillmap` command."""

import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, cast

import typer

from tillmap import paths
from tillmap.errors import InputError, TillmapError
from tillmap.params import ARMS, read_params
from tillmap.profiles import apply_profiles

_EXIT = """Exit codes: 0 all went well, 1 something that you can mend (the message says how), 2 a wrong call."""

app = typer.Typer(
    help="Till receipt lines to a product hierarchy. The pipeline itself runs with `dvc repro`.",
    epilog=_EXIT,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Arm = StrEnum("Arm", {arm: arm for arm in ARMS})  # type: ignore[misc]
Format = StrEnum("Format", {name: name for name in ("jsonl", "csv", "parquet")})  # type: ignore[misc]


@app.callback()
def main() -> None:
    """Keeps `tillmap COMMAND` the form of the command line, however many commands there are."""


@app.command(epilog=_EXIT)
def predict(  # noqa: PLR0917 - the options of a command line
    feed: Annotated[Path, typer.Argument(metavar="FILE", help="Rows to label; - for standard input.")],
    arm: Annotated[Arm, typer.Option(help="The trained arm that labels.")],
    out: Annotated[Path, typer.Option(help="Where the labelled rows go.")],
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="Of FILE, where its name does not end in .jsonl, .csv or .parquet."),
    ] = None,
    out_format: Annotated[Format | None, typer.Option(help="Of OUT, likewise.")] = None,
    id_: Annotated[str, typer.Option("--id", help="The column of ids, whole numbers or texts.")] = "indoml_id",
    description: Annotated[str, typer.Option(help="The column of descriptions.")] = "description",
    retailer: Annotated[str, typer.Option(help="The column of retailers; '' where there is none.")] = "retailer",
    price: Annotated[str, typer.Option(help="The column of prices; '' where there is none.")] = "price",
) -> None:
    """Label new rows with a trained arm: one row out for every row in, in the same order.

    FILE is checked as a whole before anything is labelled. A run that is killed goes on where it was when it is started
    again. Reads params.yaml and the arm's own files, and says which are missing; changes nothing of the pipeline's. The
    openai arm is paid for, within `provider.budget_usd` of params.yaml.

    Each row gets the four labels, confidence (how likely all four are right, 0 to 1), repair (what it took to get from
    the answer to a path), in_tree, source (the arm) and status (ok, or empty or error where the arm gave no answer and
    the neighbours' vote stands in).
    """
    from tillmap.bulk import label_feed
    from tillmap.feeds import Columns, Feed, format_of
    from tillmap.feeds import Format as FormatName
    from tillmap.labelling import open_arm

    target = cast(FormatName, out_format.value) if out_format else format_of(out)
    columns = Columns(id_, description, retailer or None, price or None)
    with _as_file(feed) as path:
        source = Feed(path, columns, cast(FormatName, format_.value) if format_ else None)
        labeller = open_arm(arm.value, read_params(paths.PARAMS))
        done = label_feed(labeller, source, out, target)
    failed = f", {done.failed} of them by the neighbours' vote, for the arm gave no answer" if done.failed else ""
    typer.echo(f"{done.rows:,} rows labelled by {arm.value}{failed}: {out}")
    if done.drift is not None:
        typer.echo(f"drift: {done.drift.said()}")
    if done.expected is None:
        typer.echo("expected accuracy: not known, for the confidences of this arm are not calibrated")
    else:
        mean, low, high = done.expected
        typer.echo(f"expected accuracy: {mean:.3f} ({low:.3f} to {high:.3f}) where the rows are like those of training")


@contextmanager
def _as_file(feed: Path) -> Iterator[Path]:
    """The feed as a file that can be read twice: standard input is kept in one for the while."""
    if str(feed) != "-":
        yield feed
        return
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "stdin.jsonl"
        with kept.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield kept


@app.command(epilog=_EXIT)
def submit(
    arm: Annotated[Arm, typer.Option(help="The arm whose predictions are handed in.")],
    name: Annotated[str, typer.Option(help="Letters, digits, - and _: the file in the zip is test_NAME.predict.")],
    out: Annotated[Path, typer.Option(help="The zip to write.")],
    predictions: Annotated[
        Path | None,
        typer.Option(help="What `tillmap predict` wrote as Parquet, instead of the pipeline's predictions."),
    ] = None,
) -> None:
    """Write the contest's zip from an arm's predictions of the test rows.

    Refuses, with the row and the reason, where a row is missing, comes twice or stands out of order, an id is no whole
    number, or four labels are no label path.
    """
    from tillmap.repairing import known_paths
    from tillmap.storage import read_table
    from tillmap.submission import write_submission

    params = read_params(paths.PARAMS)
    rows = read_table(paths.ROWS)
    test = rows[rows["split"] == "test"]
    if predictions is None:
        answers = read_table(paths.PREDICTIONS / f"{arm.value}.parquet")
        if answers.empty:
            raise InputError(f"the {arm.value} arm was off and predicted nothing; run it, or name another")
        answers = answers[answers["split"] == "test"]
    else:
        answers = read_table(predictions)
        answers = answers.rename(columns={answers.columns[0]: "id"})
    written = write_submission(answers, test, known_paths(params, arm.value, rows), name, out)
    typer.echo(f"{written:,} rows: {out}")


@app.command(epilog=_EXIT)
def doctor() -> None:
    """Look whether this machine is ready to run the pipeline and to label, and say what to do where it is not."""
    from tillmap.doctor import examine

    findings = list(examine(Path()))
    for finding in findings:
        typer.echo(f"{'ok ' if finding.well else 'BAD'}  {finding.name}: {finding.found}")
        if not finding.well:
            typer.echo(f"     -> {finding.remedy}")
    bad = sum(not finding.well for finding in findings)
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
    from tillmap.openai_jobs.cancel import cancel_runs

    typer.echo(f"{cancel_runs(runs or [])} cancelled")


@app.command(epilog=_EXIT)
def prune(
    days: Annotated[int, typer.Option(min=0, help="Keep what was used in the last so many days.")] = 30,
) -> None:
    """Delete old resume state: answers, checkpoints and pieces of finished or forgotten runs.

    What is under way at a paid provider is kept.
    """
    from tillmap.pruning import prune_state

    count, size = prune_state(days)
    typer.echo(f"{count} runs deleted, {size / 2**20:,.0f} MiB freed")


@app.command(epilog=_EXIT)
def private() -> None:
    """Keep a licensed catalogue's rows from every remote: marks the outputs that hold descriptions in dvc.yaml."""
    from tillmap.sharing import keep_private

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
    except KeyboardInterrupt:
        sys.exit("tillmap: stopped; the same command goes on from here")


if __name__ == "__main__":
    run()
