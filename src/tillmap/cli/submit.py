"""`tillmap submit`: write a submission for the contest."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from tillmap.arms import ARMS
from tillmap.config import paths
from tillmap.config.blocks import CASCADE, COMBINED
from tillmap.core.errors import InputError
from tillmap.core.files import is_standard_output, read_table, require_writable

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
) -> None:
    """Write a submission for the contest.

    The zip contains one file, with a JSON line for each test row, in the order of the test file.

    The command stops, and names the row, if a test row is missing, repeated or out of order, if an id is not a whole
    number, or if no labelled row has the label path. It needs data/split (`dvc pull data/split`). The same rows always
    give the same bytes.
    """
    from tillmap.core.inputs import steady
    from tillmap.core.taxonomy import LabelTree
    from tillmap.serving.feed import Feed
    from tillmap.serving.formats import format_or_lines
    from tillmap.serving.submission import read_answers, write_submission

    if (predictions is None) == (arm is None):
        raise typer.BadParameter("expected either a PREDICTIONS file or --arm")
    require_writable(out)
    rows = read_table(paths.ROWS)
    if predictions is not None:
        with steady(predictions) as given:
            answers = read_answers(given.path, format_or_lines(given.named, given.stream), given.shown)
    elif arm is not None:
        answers = _pipeline_answers(arm.value, rows)
    if test is None:
        asked = rows.loc[rows["split"] == "test", "id"]
    else:
        with steady(test) as given:
            feed = Feed(given.path, format=format_or_lines(given.named, given.stream), name=given.shown)
            asked = pd.concat([batch["key"] for batch in feed.batches(100_000)], ignore_index=True)
    tree = None if unseen else LabelTree.from_rows(rows[rows["split"] == "train"])
    written = write_submission(answers, asked, tree, name, out)
    typer.echo(f"{written:,} rows in test_{name}.predict: {out}", err=is_standard_output(out))


def _pipeline_answers(arm: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The pipeline's predictions of the test rows. Raises InputError if the arm was off or answered only a pilot."""
    file = paths.CASCADE / "predictions.parquet" if arm == CASCADE else paths.PREDICTIONS / f"{arm}.parquet"
    answers = read_table(file) if file.is_file() or file.parent != paths.CASCADE else pd.DataFrame()
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
