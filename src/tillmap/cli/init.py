"""`tillmap init`: look at a user's files, and write the blocks of params.yaml that read them."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from tillmap.arms import schema
from tillmap.catalogue.counts import count_rows
from tillmap.catalogue.csv_tables import delimiter_of
from tillmap.catalogue.formats import RowFile, unpacked
from tillmap.catalogue.proposal import Proposal, files_in, is_taxonomy, propose, sample_of
from tillmap.catalogue.source import Source, read_source
from tillmap.config import paths
from tillmap.config.blocks import Columns, Data, Taxonomy
from tillmap.config.params import read_params
from tillmap.config.profiles import write_values
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST
from tillmap.core.writing import is_stream, require_writable

_CONTEST = ("train.features", "train.labels", "test.features")
_BY_HAND = (
    f"name them in {paths.PARAMS}: `data.source`, `data.columns.text`, and `taxonomy.levels: [GENERAL, SPECIAL]` for "
    "columns of labels or `data.columns.levels` for a column of codes or paths (docs/data.md)"
)
_CONTESTS_COLUMNS = {"id": "indoml_id", "text": "description", "retailer": "retailer", "price": "price", "levels": None}


def init(
    source: Annotated[Path, typer.Argument(help="A file of labelled rows, or a folder with training and test rows.")],
    encoding: Annotated[str, typer.Option(help="Of CSV and JSON Lines, such as cp1252.")] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="The sign between the fields of a CSV, or `tab`. By default it is recognised.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the blocks, and write nothing.")] = False,
) -> None:
    """Look at your files, and write the blocks of params.yaml that read them.

    Proposes which column is the text, the price, the code or the levels, and shows what is in the rows: levels,
    classes, refunds, duplicates, lines with two labels. Writes the blocks `data` and `taxonomy`; check them.
    """
    if not dry_run:
        require_writable(paths.PARAMS)
    data: dict[str, Any] = {
        "source": str(source),
        "train": None,
        "test": None,
        "encoding": encoding,
        "delimiter": delimiter_of(delimiter),
    }
    proposal = _propose(source, data)
    for note in proposal.notes:
        typer.echo(f"note: {note}")
    shown = {"training file": data["train"], "test file": data["test"], **proposal.columns}
    shown["levels"] = proposal.columns["levels"] or ", ".join(proposal.taxonomy["levels"] or ())
    shown["taxonomy file"] = proposal.taxonomy.get("file")
    for name, found in shown.items():
        typer.echo(f"{name}: {found or 'none'}")
    found = {"texts": proposal.columns["text"], "labels": proposal.columns["levels"] or proposal.taxonomy["levels"]}
    if missing := [what for what, columns in found.items() if not columns]:
        raise InputError(f"{source}: no column looks like {' or like '.join(missing)}; {_BY_HAND}")
    typer.echo("")
    _show(_read(data, proposal))
    values = {"data": {**data, "columns": proposal.columns}, "taxonomy": proposal.taxonomy}
    if dry_run:
        typer.echo("\nNothing was written. Without --dry-run, these values go into params.yaml.")
        return
    changed = write_values(values, paths.PARAMS, schema())
    typer.echo("")
    for key, (old, new) in changed.items():
        typer.echo(f"{key}: {old} -> {new}")
    typer.echo(
        f"{len(changed)} values changed in {paths.PARAMS}; `git checkout {paths.PARAMS}` undoes it. Next: `dvc repro`"
    )


def _propose(source: Path, data: dict[str, Any]) -> Proposal:
    """The proposal for a file or folder. In `data`, names the training and the test file of a folder."""
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder; check its name")
    if is_stream(source):
        raise InputError(f"{source}: this is a pipe, and each run of the pipeline reads the rows; save them to a file")
    if source.is_file():
        return propose(sample_of(_file(source, data)), CONTEST.chain)
    if all((source / name).is_file() for name in _CONTEST):
        return Proposal(_CONTESTS_COLUMNS, {"levels": list(CONTEST), "brand": CONTEST.brand})
    tables = {file: sample_of(_file(file, data)) for file in files_in(source)}
    train, proposal = _training_file(tables, source)
    data["train"] = train.name
    others = {file: table for file, table in tables.items() if file != train}
    for file, table in others.items():
        if proposal.columns["text"] in table.columns and unpacked(file).stem.startswith("test"):
            data["test"] = file.name
        elif is_taxonomy(table, tables[train], proposal.columns["levels"]):
            proposal.taxonomy["file"] = file.name
    used = (data["test"], proposal.taxonomy["file"])
    proposal.notes += [f"not used: {file.name}" for file in others if file.name not in used]
    return proposal


def _training_file(tables: dict[Path, pd.DataFrame], source: Path) -> tuple[Path, Proposal]:
    """The file named train, or the largest of those whose rows have a text and a label, and its proposal."""
    named = [file for file in tables if unpacked(file).stem.startswith("train")]
    proposals = {file: propose(table, CONTEST.chain) for file, table in tables.items()}
    labelled = [
        file for file, each in proposals.items()
        if each.columns["text"] is not None and (each.columns["levels"] or each.taxonomy["levels"])
    ]  # fmt: skip
    found = next((file for file in named if file in labelled), None)
    found = found or max(labelled, key=lambda file: len(tables[file]), default=None)
    if found is None:
        raise InputError(
            f"{source}: no file in it has a column of texts and one of labels, codes or paths; name a file of labelled "
            f"rows, or {_BY_HAND}"
        )
    return found, proposals[found]


def _file(path: Path, data: dict[str, Any]) -> RowFile:
    return RowFile(path, encoding=data["encoding"], delimiter=data["delimiter"])


def _read(data: dict[str, Any], proposal: Proposal) -> Source:
    """The rows as the pipeline will read them, with bad rows set aside."""
    params = read_params(paths.PARAMS, schema())
    data = {**params.data.model_dump(), **data, "on_bad_row": "quarantine"}
    return read_source(
        Data(**{**data, "columns": Columns(**proposal.columns)}),
        Taxonomy(**{**params.taxonomy.model_dump(), "brand": None, **proposal.taxonomy}),
    )


def _show(source: Source) -> None:
    rows = source.rows
    sizes = rows[source.levels.labelled(rows)].groupby(list(source.levels), dropna=False).size()
    counts: dict[str, Any] = {
        "rows": len(rows),
        "test_rows": int((rows["split"] == "test").sum()),
        "bad_rows": len(source.quarantined),
    }
    counts |= count_rows(rows, source.levels)
    counts |= {"rows_a_class": f"{sizes.median():.0f} at the median, {sizes.min()} to {sizes.max():,}"}
    if source.declared is not None:
        counts["labels_without_a_row"] = sum(path not in {*source.levels.paths(rows)} for path in source.declared)
    for name, value in counts.items():
        shown = ", ".join(f"{key}: {each:,}" for key, each in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name.replace('_', ' ')}: {shown}")
    for file, line, reason in source.quarantined[["file", "line", "reason"]].head(3).itertuples(index=False, name=None):
        typer.echo(f"bad row: {file}:{line}: {reason}")
