"""`tillmap doctor`: check whether this machine is ready."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from tillmap.cli.checks import installed, places, project, sharing
from tillmap.cli.checks.finding import Finding
from tillmap.config.params import Params
from tillmap.core.ending import lacks_memory
from tillmap.core.errors import TillmapError, first_line


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Remove what a killed run left broken in DVC's run cache.")
    ] = False,
) -> None:
    """Check whether this machine is ready.

    Looks for problems that keep the pipeline or `tillmap predict` from running, and suggests fixes. Changes nothing
    without --fix.

    Checks the Python version, the environment and its packages (against the locks in requirements/), the GPU, the
    user's name and home, which folders may be written, params.yaml, the source, disk space, git, DVC's remote and run
    cache, API keys (only whether they are set), what people corrected, and the files of each arm that is on. The exit
    code is 1 if there is a problem.
    """
    bad = 0
    for finding in examine(Path(), fix):
        typer.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.name}: {finding.found}")
        if not finding.ok:
            typer.echo(f"     -> {finding.remedy}")
            bad += 1
    typer.echo(f"{bad} {'problem' if bad == 1 else 'problems'} found" if bad else "no problems found")
    if bad:
        raise typer.Exit(1)


def examine(root: Path, fix: bool = False) -> Iterator[Finding]:
    """Run every check; `root` is the project's folder. A check that fails itself is a finding, too."""
    found: list[Params] = []
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": lambda: [installed.python()],
        "environment": lambda: [installed.environment(root)],
        "packages": lambda: [installed.packages(root)],
        "gpu": installed.gpu,
        "user": lambda: [places.user()],
        "project": lambda: [places.folder(root)],
        "params": lambda: [project.params(root, found)],
        "data": lambda: (project.data(root, read) for read in found),
        # In the project a base takes its size twice, in the workspace and in DVC's cache.
        "disk": lambda: [
            places.disk("disk", root, 2 * places.bases_to_fetch(root, found), "`dvc gc --workspace` frees some")
        ],
        "state": lambda: places.state(places.bases_to_fetch(root, found) or places.bases_to_merge(found)),
        "git": lambda: [sharing.git(root)],
        "remote": lambda: [sharing.remote(root)],
        "run cache": lambda: sharing.run_cache(root, fix),
        "keys": lambda: (finding for read in found for finding in project.keys(read)),
        "corrections": lambda: (project.corrections(root, read) for read in found),
        "arms": lambda: (finding for read in found for finding in project.arms(root, read)),
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever it is: the checks after it are made
            yield _failed(name, error)


def _failed(name: str, error: Exception) -> Finding:
    if isinstance(error, TillmapError):
        fault, _, remedy = str(error).rpartition("; ")
        return Finding(name, False, fault, remedy)
    if lacks_memory(error):
        return Finding(name, False, "not checked: out of memory", "close other programs, or raise `ulimit -v`")
    if isinstance(error, OSError):
        remedy = "become its owner, or have it opened for you"
        return Finding(name, False, f"{error.filename or 'a file'}: {error.strerror or error}", remedy)
    return Finding(name, False, f"{type(error).__name__}: {first_line(error)}", "not expected: report this line")
