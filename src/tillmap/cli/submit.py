"""`tillmap submit`: write a submission, as the contest wants it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import typer

from tillmap.arms import ARMS, schema
from tillmap.cli.outputs import require_list, require_outside
from tillmap.config import paths
from tillmap.config.blocks import CASCADE, COMBINED
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.files import read_table
from tillmap.core.inputs import steady
from tillmap.core.stored import read_predictions, read_rows
from tillmap.core.writing import is_standard_output, require_writable

Arm = StrEnum("Arm", {arm: arm for arm in (*ARMS, *COMBINED)})  # type: ignore[misc]


def submit(  # noqa: PLR0917 - the options of a command line
    name: Annotated[
        str,
        typer.Option(metavar="NAME", help="Names the file in the zip, test_NAME.predict: letters, digits, - and _."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.zip", help="The zip to write, or - for standard output.")],
    predictions: Annotated[
        Path | None,
        typer.Argument(help="The output of `tillmap predict` for the test file: JSON Lines, CSV or Parquet."),
    ] = None,
    arm: Annotated[Arm | None, typer.Option(help="Instead of a file: the pipeline's predictions of this arm.")] = None,
    test: Annotated[
        Path | None,
        typer.Option(help="The test file, for the ids and their order. [default: the one that the pipeline read]"),
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Allow label paths that no labelled row has, for example with a new brand.")
    ] = False,
    on_bad_row: Annotated[
        Literal["stop", "quarantine"] | None,
        typer.Option(
            help="stop at a bad row of the test file, or leave bad rows out, as `tillmap predict` does, and list "
            "them in FILE.zip.bad.jsonl. [default: data.on_bad_row]"
        ),
    ] = None,
) -> None:
    """Write a submission, as the contest wants it.

    The zip contains one file, with a JSON line for each test row, in the order of the test file: the id as your files
    have it, the labels, and the code of the path if there is a taxonomy file with codes.

    The command stops, and names the row, if a test row is missing, repeated or out of order, if an id is neither a
    whole number nor text, or if no labelled row has the label path. It needs data/split (`dvc pull data/split`). The
    test file is read as the `data` block of params.yaml says. The same rows always give the same bytes.
    """
    from tillmap.core.taxonomy import KEY, LabelTree
    from tillmap.serving.feed import open_feed
    from tillmap.serving.formats import format_of_input
    from tillmap.serving.submission import read_answers, write_submission

    if (predictions is None) == (arm is None):
        raise typer.BadParameter("expected either a PREDICTIONS file or --arm")
    require_writable(out)
    require_outside(out, predictions, test)
    data = read_params(paths.PARAMS, schema(), ["data"]).data
    rows, tree = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE))
    tree = LabelTree.from_rows(rows[rows["split"] == "train"], tree.levels, declared=tree)
    id_name, given = data.columns.id or "id", "given_id" if "given_id" in rows else "id"
    if predictions is not None:
        with steady(predictions) as source:
            kind = format_of_input(predictions, source.stream)
            ragged = not all(map(all, tree))
            answers = read_answers(source.path, tree.levels, id_name, ragged=ragged, format=kind, name=source.shown)
    elif arm is not None:
        answers = _pipeline_answers(arm.value, rows)
        if given != "id":
            answers["id"] = answers[KEY].merge(rows[[*KEY, given]], how="left")[given].to_numpy()
    if test is None:
        asked = rows.loc[rows["split"] == "test", given]
    else:
        with steady(test) as source:
            kind = format_of_input(test, source.stream)
            feed = open_feed(source.path, data, format=kind, on_bad_row=on_bad_row, name=source.shown)
            if feed.on_bad_row != "stop":
                require_list(out)
            asked = pd.concat([batch["key"] for batch in feed.batches(100_000)], ignore_index=True)
            feed.list_bad(out)
    written = write_submission(answers, asked, tree, name, out, id_name=id_name, unseen=unseen)
    typer.echo(f"{written:,} rows in test_{name}.predict: {out}", err=is_standard_output(out))


def _pipeline_answers(arm: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The pipeline's predictions of the test rows. Raises InputError if the arm was off or answered only a pilot."""
    file = paths.CASCADE / "predictions.parquet" if arm == CASCADE else paths.PREDICTIONS / f"{arm}.parquet"
    answers = read_predictions(file) if file.is_file() or file.parent != paths.CASCADE else pd.DataFrame()
    if answers.empty:
        raise InputError(f"the {arm} arm was off and has no predictions; switch it on and run `dvc repro`")
    answers = answers[answers["split"] == "test"]
    test = int((rows["split"] == "test").sum())
    if len(answers) < test:
        raise InputError(
            f"the {arm} arm was only piloted: it answered {len(answers):,} of {test:,} test rows; "
            "`dvc exp run -S run.pilot_rows=null` asks about the missing rows"
        )
    return answers
