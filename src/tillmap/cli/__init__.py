"""The `tillmap` command: one module a command."""

import logging
import sys

import typer

from tillmap.cli import cancel, doctor, predict, private, profile, prune, submit, summary
from tillmap.core.errors import TillmapError

_EXIT = """Exit codes: 0 all went well, 1 something that you can fix (the message says how), 2 a wrong call."""

app = typer.Typer(
    help="Till receipt lines to a product hierarchy. The pipeline itself runs with `dvc repro`.",
    epilog=_EXIT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain text wraps anywhere, in a pipe too
    pretty_exceptions_enable=False,
)
for command in (
    predict.predict, submit.submit, summary.summary, doctor.doctor, profile.profile, cancel.cancel, prune.prune,
    private.private,
):  # fmt: skip
    app.command(epilog=_EXIT)(command)


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
