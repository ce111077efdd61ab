"""The `tillmap` command line. Each command is a module of this package."""

import logging
import sys

import typer

from tillmap.cli import cancel, doctor, estimate, init, predict, private, profile, prune, review, submit, summary
from tillmap.core.errors import TillmapError
from tillmap.core.machine import settle

_EXIT = """Exit codes: 0 success, 1 an error that you can fix (the message says how), 2 wrong options or arguments."""

app = typer.Typer(
    help="Label till receipt lines with a product taxonomy. Run the pipeline with `dvc repro`.",
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
    app.command(epilog=_EXIT)(command)


def run() -> None:
    """Run the command line. Errors that a user can fix end it with exit code 1 and one line, without a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tillmap").setLevel(logging.INFO)
    try:
        settle()
        app()
    except TillmapError as error:
        sys.exit(f"tillmap: {error}")
    except MemoryError:
        sys.exit("tillmap: out of memory; close other programs, or use an arm that needs less memory")
    except OSError as error:  # a full disk, a folder that may not be written
        if error.strerror is None:
            raise
        sys.exit(f"tillmap: {error.filename or 'the disk'}: {error.strerror}; fix that and run the command again")
