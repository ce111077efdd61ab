"""`tillmap review`: a page on which a person accepts or corrects answers."""

import webbrowser
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from tillmap.arms import proposer, schema
from tillmap.cli.outputs import require_outside
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.inputs import steady
from tillmap.core.taxonomy import Levels
from tillmap.core.writing import is_standard_output, is_stream, replacing, require_writable

if TYPE_CHECKING:
    from tillmap.review.decisions import Decisions
    from tillmap.review.saving import Saved


def review(  # noqa: PLR0917 - the options of a command line
    labelled: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="What `tillmap predict` wrote. [default: the pipeline's test rows]"),
    ] = None,
    arm: Annotated[
        str | None,
        typer.Option(help="Without FILE: the arm whose answers are reviewed. [default: the best free arm that is on]"),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Without FILE: the labelled rows whose own label looks wrong.")
    ] = False,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="INPUT", help="The file that was labelled, if FILE does not have the lines themselves."),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            help='The column with the ids of FILE and INPUT; "" if their rows are numbered. [default: data.columns.id]',
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="The column with the lines; more than one are joined. [default: data.columns.text]"),
    ] = None,
    decisions: Annotated[
        Path, typer.Option(metavar="LOG", help="The file that every decision is appended to, JSON Lines.")
    ] = paths.DECISIONS,
    who: Annotated[str | None, typer.Option(metavar="NAME", help="A name to write to each decision.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the page. 0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    save: Annotated[
        bool, typer.Option("--save", help="Write what holds of LOG to `data.corrections`, and end.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Write the corrections in LOG to this table (.csv, .jsonl or .parquet; - for JSON Lines on standard "
            "output), and end.",
        ),
    ] = None,
) -> None:
    """Accept or correct answers on a page in the browser.

    Rows come in the order of what their labels teach. Rows with the same line are decided at once. Accept the answer
    (Enter), pick another candidate (1 to 9), search the taxonomy (/), or say that nobody can tell (x). u takes the last
    decision back. A decision is on the disk before the page says that it is saved. Stop with Ctrl-C, and go on at any
    time with the same LOG.

    When the page stops, what was decided is written to `data.corrections`, too, from which the pipeline learns it with
    the next `dvc repro`. After a kill the next start does that, or --save.

    The page listens on 127.0.0.1 only. Its address has a random token: whoever has the address can use the page.

    With --audit the rows are labelled ones that the pipeline's `audit` stage doubts. The answer is the row's own label,
    and the first candidate the path that it should perhaps have.

    FILE has ids, the levels and confidence, as `tillmap predict` writes them. The lines are in FILE, too, or in INPUT,
    which is read as the `data` block of params.yaml says.
    """
    from tillmap.catalogue.containers import require_packing
    from tillmap.catalogue.formats import RowFile
    from tillmap.review.decisions import open_log, read_decisions
    from tillmap.review.page import Page
    from tillmap.review.saving import file_for, save_corrections
    from tillmap.review.server import serve
    from tillmap.review.sources import from_audit, from_file, from_pipeline, known_tree
    from tillmap.serving.feed import open_feed
    from tillmap.serving.formats import format_of_input

    tree = known_tree()
    if export is not None:
        require_writable(export)
        require_outside(export, decisions)
        require_packing(export)
        count = _export(read_decisions(decisions, tree.levels), tree.levels, export)
        typer.echo(f"{count:,} corrections: {export}", err=is_standard_output(export))
        return
    data = read_params(paths.PARAMS, schema(), ["data"]).data
    corrections = Path(data.corrections)
    if save:
        _say(save_corrections(read_decisions(decisions, tree.levels), tree.levels, corrections))
        return
    file_for(corrections)  # fails before anything is decided
    if audit:
        queue = from_audit(tree.levels)
    elif labelled is None:
        arm = arm or proposer(read_params(paths.PARAMS, schema(), ["run"]).run.on)
        if arm is None:
            raise InputError("every free arm is off in params.yaml; name the arm to review, such as `--arm vote`")
        queue = from_pipeline(arm, tree.levels)
    else:
        with steady(labelled) as answers, nullcontext(answers) if rows is None else steady(rows) as lines:
            kind = format_of_input(rows or labelled, lines.stream)
            feed = open_feed(lines.path, data, id=id_, text=text, format=kind, name=lines.shown)
            kind = format_of_input(labelled, answers.stream)
            queue = from_file(RowFile(answers.path, kind, name=answers.shown), feed, tree.levels)

    def tell(address: str) -> None:
        typer.echo(f"{address}\nStop with Ctrl-C. Every decision is saved at once: {decisions}")
        if browser:
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # a browser in a terminal would block

    decisions.parent.mkdir(parents=True, exist_ok=True)
    with open_log(decisions, tree.levels, who) as log:
        page = Page(queue, log, tree)
        save_corrections(log, tree.levels, corrections)  # what a kill has left
        serve(page, port, tell)
        typer.echo(f"{len(log.valid):,} decisions in {decisions}")
        _say(save_corrections(log, tree.levels, corrections))


def _say(saved: "Saved") -> None:
    removed = f", {saved.removed:,} removed" if saved.removed else ""
    typer.echo(f"{saved.file}: {saved.added:,} corrections added{removed}; `dvc repro` learns them, git keeps them")


def _export(found: "Decisions", levels: Levels, out: Path) -> int:
    """Write the corrections as the table that a file's name says. Returns their number."""
    import pyarrow as pa

    from tillmap.catalogue.containers import packing
    from tillmap.review.decisions import corrections
    from tillmap.serving.formats import format_or_lines
    from tillmap.serving.table_writers import TABLE_WRITERS

    table = corrections(found, levels)
    schema, writer = (
        pa.Schema.from_pandas(table, preserve_index=False),
        TABLE_WRITERS[format_or_lines(out, is_stream(out))],
    )
    with replacing(out) as file, packing(file, out) as plain, writer(plain, schema) as write:
        write(table)
    return len(table)
