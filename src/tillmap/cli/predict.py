"""`tillmap predict`: label new rows with a trained arm."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from tillmap.arms import ARMS, schema
from tillmap.cli.outputs import require_list, require_outside
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.inputs import steady
from tillmap.core.writing import is_standard_output, is_stream, require_writable

Trained = StrEnum("Trained", {arm: arm for arm in ARMS})  # type: ignore[misc]
Format = Literal["jsonl", "csv", "parquet"]
_FREE = ", ".join(arm for arm in ARMS if ARMS[arm].free)


def predict(  # noqa: PLR0917 - the options of a command line
    feed: Annotated[Path, typer.Argument(metavar="INPUT", help="The rows to label: a file, or - for standard input.")],
    arm: Annotated[Trained, typer.Option(help="The trained arm to use.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The file to write the labelled rows to, packed if it ends in .gz, .bz2 or .zst; - for stdout.",
        ),
    ],
    format_: Annotated[
        Format | None,
        typer.Option("--format", help="The format of INPUT. [default: from its name; jsonl for a pipe]"),
    ] = None,
    out_format: Annotated[
        Format | None, typer.Option(help="The format of FILE. [default: from its name; jsonl for a pipe]")
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", help='The column with the ids; "" numbers the rows. [default: data.columns.id]'),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text",
            "--description",
            help="The column with the texts; more than one are joined. [default: data.columns.text]",
        ),
    ] = None,
    retailer: Annotated[
        str | None,
        typer.Option(
            help='The column with the retailers; "" for none. [default: data.columns.retailer, if it is there]'
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(help='The column with the prices; "" for none. [default: data.columns.price, if it is there]'),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of CSV and JSON Lines. [default: data.encoding]")
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="The sign between the fields of a CSV, or `tab`. [default: data.delimiter]"),
    ] = None,
    decimal: Annotated[
        Literal[".", ","] | None, typer.Option(help="The decimal mark of prices. [default: data.decimal]")
    ] = None,
    on_bad_row: Annotated[
        Literal["stop", "quarantine"] | None,
        typer.Option(
            help="stop at a bad row, or leave bad rows out and list them in FILE.bad.jsonl. [default: data.on_bad_row]"
        ),
    ] = None,
    confidence: Annotated[
        Literal["own", "all"] | None,
        typer.Option(
            help="What confidences are computed from. own: the arm's own answers. all: the answers of the free arms "
            f"({_FREE}), too, which is slower and needs their files. [default: own for a free arm; all for other "
            "arms, if the files are here]"
        ),
    ] = None,
    explain: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            max=10,
            help="Explain each answer with the K best paths, the K nearest labelled rows and the K words that spoke "
            "most for it.",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="The most dollars to spend on a paid arm. [default: provider.budget_usd]"),
    ] = None,
) -> None:
    """Label new rows with a trained arm.

    The output has one row for each input row, in the same order.

    INPUT and FILE can be JSON Lines (.jsonl, .json, .ndjson, .features), CSV with a header (.csv, .tsv) or Parquet
    (.parquet). INPUT may be packed (.gz, .zst), and is read as the `data` block of params.yaml says, unless an option
    says otherwise. Ids are whole numbers or texts, and each must be unique. They are written back unchanged. Retailers
    and prices may be missing.

    All of INPUT is checked before the first row is labelled. A bad row stops the command, or is left out with
    --on-bad-row quarantine. The error names the line, what was expected and what to do. If the command is killed,
    run it again: it continues after the last finished batch, and writes the same bytes as an uninterrupted run.
    FILE appears only when it is complete. An existing one is replaced and keeps its mode and owner. INPUT and FILE
    may be pipes. If INPUT changes while it is read, the command stops with an error.

    The command reads params.yaml and the arm's files, and changes nothing of the pipeline. If files are missing, the
    error names the `dvc pull` that fetches them. A paid arm is not asked if the cost may exceed the budget.

    FILE has these columns: the id; the levels, empty where a path ends; code, with a taxonomy file that has codes;
    confidence (the probability that the whole path is right); needs_review (whether a person should look at the row,
    because its confidence is below the one from which answers are promised to keep `review.target_accuracy`); repair
    (how the answer became a label path: none, new_brand, folded, parsed, snapped or vote); in_tree (whether a training
    row has this path); source (the arm); and status (ok, or empty or error if the arm gave no answer; such a row gets
    the labels of its neighbours). --explain adds candidates (path and share), neighbours (id, text, path and
    similarity; they need data/split and data/index) and words (word, and what it adds to the answer's score; of the
    linear arm).

    The last lines of the output show how many rows need a look, how far the rows are from the training rows, and the
    expected accuracy.
    """
    from tillmap.catalogue.containers import require_packing
    from tillmap.catalogue.csv_tables import delimiter_of
    from tillmap.serving.batch import label_feed
    from tillmap.serving.feed import open_feed
    from tillmap.serving.formats import answer_columns, format_of_input, format_or_lines
    from tillmap.serving.labeller import open_arm

    require_writable(out)
    target = out_format or format_or_lines(out, is_stream(out))
    require_packing(out)
    require_outside(out, feed)
    params = read_params(paths.PARAMS, schema())
    if budget is not None:
        params = params.model_copy(update={"provider": params.provider.model_copy(update={"budget_usd": budget})})
    with steady(feed) as given:
        source = open_feed(
            given.path,
            params.data,
            id=id_,
            text=text,
            retailer=retailer,
            price=price,
            format=format_ or format_of_input(feed, given.stream),
            encoding=encoding,
            delimiter=delimiter_of(delimiter),
            decimal=decimal,
            on_bad_row=on_bad_row,
            name=given.shown,
        )
        if source.on_bad_row != "stop":
            require_list(out)
        labeller = open_arm(arm.value, params, confidence)
        done = label_feed(labeller, source, out, target, explain or 0)
        source.list_bad(out)
    printed = is_standard_output(out)  # then no other line may be among the rows
    columns = answer_columns(
        source.id_name,
        labeller.tree.levels,
        codes=bool(labeller.tree.codes),
        reviewed=done.reviewed is not None,
        explained=explain is not None,
    )
    for name, written in columns.items():
        if name != written:
            typer.echo(f"the column {name} has your ids, so the arm's own is called {written}", err=printed)
    failed = f", {done.failed:,} of them by the neighbours' vote, because the arm gave no answer" if done.failed else ""
    typer.echo(f"{done.rows:,} rows labelled by {arm.value}{failed}: {out}", err=printed)
    if done.review:
        typer.echo(done.review, err=printed)
    typer.echo(str(done), err=printed)
