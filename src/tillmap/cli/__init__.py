"""The `tillmap` command line. Each command is a module of this package."""

import logging
import sys
from contextlib import suppress
from io import TextIOWrapper

import typer

from tillmap.cli import cancel, doctor, estimate, init, predict, private, profile, prune, review, submit, summary
from tillmap.cli.command import Command
from tillmap.core.ending import OF_A_COMMAND, expected
from tillmap.core.machine import settle

_EXIT = """Exit codes: 0 success, 1 an error that you can fix (the message says how), 2 wrong options or arguments."""

app = typer.Typer(
    help="Label till receipt lines with a product taxonomy. Run the pipeline with `dvc repro`. README.md leads to all "
    "pages.",
    epilog=_EXIT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text, which wraps to any width and reads well in a pipe
    pretty_exceptions_enable=False,
)
for command in (
    init.init, predict.predict, review.review, submit.submit, summary.summary, doctor.doctor, profile.profile,
    estimate.estimate, cancel.cancel, prune.prune, private.private,
):  # fmt: skip
    app.command(cls=Command, epilog=_EXIT)(command)


def run() -> None:
    """Run the command line. Errors that a user can fix end it with exit code 1 and one line, without a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tillmap").setLevel(logging.INFO)
    with suppress(OSError):  # of an output that says that it has places, and has none
        if isinstance(sys.stdout, TextIOWrapper):  # a terminal may have no sign for what a shop's file holds
            sys.stdout.reconfigure(errors="backslashreplace")
    try:
        settle()
        app()
    except Exception as error:
        if said := expected("tillmap", error, OF_A_COMMAND):
            sys.exit(said)
        if isinstance(error, OSError) and error.strerror:  # a full disk, a folder that may not be written
            place = error.filename or "the disk"
            sys.exit(f"tillmap: {place}: {error.strerror}; fix that and run the command again")
        raise
