"""`tillmap submit`: write the contest's zip."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.blocks import CASCADE, COMBINED
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.files import read_table

Arm = StrEnum("Arm", {arm: arm for arm in (*ARMS, *COMBINED)})  # type: ignore[misc]


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
    from tillmap.core.taxonomy import LabelTree
    from tillmap.serving.feed import Feed
    from tillmap.serving.submission import read_answers, write_submission

    if (predictions is None) == (arm is None):
        raise typer.BadParameter("give either a file of PREDICTIONS or an arm's name with --arm")
    rows = read_table(paths.ROWS)
    if predictions is not None:
        answers = read_answers(predictions)
    elif arm is not None:
        answers = _pipeline_answers(arm.value, rows)
    if test is None:
        asked = rows.loc[rows["split"] == "test", "id"]
    else:
        asked = pd.concat([batch["key"] for batch in Feed(test).batches(100_000)], ignore_index=True)
    tree = None if unseen else LabelTree.from_rows(rows[rows["split"] == "train"])
    written = write_submission(answers, asked, tree, name, out)
    typer.echo(f"{written:,} rows in test_{name}.predict: {out}")


def _pipeline_answers(arm: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The pipeline's own predictions of the test rows. Raises InputError where the arm was off, or only piloted."""
    file = paths.CASCADE / "predictions.parquet" if arm == CASCADE else paths.PREDICTIONS / f"{arm}.parquet"
    answers = read_table(file) if file.is_file() or file.parent != paths.CASCADE else pd.DataFrame()
    if answers.empty:
        raise InputError(f"the {arm} arm was off and predicted nothing; switch it on and run `dvc repro`")
    answers = answers[answers["split"] == "test"]
    run, test = read_params(paths.PARAMS, schema()).run, int((rows["split"] == "test").sum())
    if run.pilot_rows is not None and len(answers) < test:
        raise InputError(
            f"the {arm} arm was only piloted: it answered {len(answers):,} of {test:,} test rows "
            f"(run.pilot_rows is {run.pilot_rows}). `dvc exp run -S run.pilot_rows=null` asks the rows that are missing"
        )
    return answers
