"""The user, and the folders and disks that are written to."""

import os
import shutil
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path

from tillmap.arms import ARMS
from tillmap.cli.checks.finding import Finding
from tillmap.cli.stages import WRITTEN
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.machine import has_home, has_name, may_write, stand_in_home
from tillmap.core.run_state import state_folder

_MIN_DISK_GIB = 2  # for the data and small models; the environment is installed already


def user() -> Finding:
    """Whether the user has a name and a home. tillmap can do without, DVC and git cannot."""
    lacks = [what for what, there in (("name", has_name()), ("home folder", has_home())) if not there]
    if lacks:
        return Finding(
            "user",
            False,
            f"user id {os.getuid()} has no {' and no '.join(lacks)}, which DVC and git ask for",
            "`export LOGNAME=me HOME=FOLDER`, with a folder that you may write to",
        )
    return Finding("user", True, "has a name and a home folder")


def folder(root: Path) -> Finding:
    """Whether the pipeline can run in this folder."""
    here = root.absolute()
    closed = [folder for folder in (here, *(here / name for name in WRITTEN)) if not may_write(folder)]
    if closed:
        return Finding(
            "project",
            False,
            f"{closed[0]} may not be written: `tillmap predict` works, the pipeline does not",
            "become its owner, or run the pipeline in a copy of the project of your own",
        )
    if set("{}") & set(str(here)):
        return Finding("project", False, f"{here}: DVC fails in a folder with braces in its name", "rename the folder")
    return Finding("project", True, f"{here} may be written")


def state(bases: Sequence[str]) -> Iterator[Finding]:
    """Whether resume state is kept where it stays, and has room: bases are there while they are fetched or merged."""
    state = state_folder()
    elsewhere = "`export TILLMAP_STATE=FOLDER`, with a folder that you may write to"
    temporary = stand_in_home()
    if temporary is not None and state.is_relative_to(temporary):
        found = f"{state}: among the temporary files, which may be gone after a restart"
        yield Finding("state", False, found, elsewhere)
    else:
        yield Finding("state", True, f"kept in {state}")
    yield disk("disk of resume state", state, bases, elsewhere)


def disk(name: str, place: Path, bases: Sequence[str], remedy: str) -> Finding:
    """Whether a disk has room for small things and for some bases from a hub; one that comes twice takes it twice."""
    from tillmap.llm.limits import room_of

    needed = _MIN_DISK_GIB + ceil(sum(room_of(base).gib for base in bases))
    rooms = "; ".join(f"{base} {room_of(base).gib:.1f}, {room_of(base).known}" for base in dict.fromkeys(bases))
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if os.path.lexists(folder))
    free = shutil.disk_usage(there).free / 2**30
    found = f"{free:.0f} GiB free at {place.absolute()}, {needed} needed" + (f" ({rooms})" if rooms else "")
    return Finding(name, free >= needed, found, f"free {needed} GiB there; {remedy}")


def bases_to_fetch(root: Path, params: list[Params]) -> list[str]:
    """The bases that will be downloaded from a hub, one for each arm, as far as the params can be read."""
    last = {arm: base for _, arm, base in _bases_of_a_hub(params)}
    return [base for arm, base in last.items() if not (root / paths.BASE / arm / "config.json").is_file()]


def bases_to_merge(params: list[Params]) -> list[str]:
    """The bases from a hub that an adapter is merged into, whenever its engine loads."""
    return [base for read, arm, base in _bases_of_a_hub(params) if read.engine.lora == "merge" and ARMS[arm].tuned]


def _bases_of_a_hub(params: list[Params]) -> Iterator[tuple[Params, str, str]]:
    """Params, an arm that they need, and its base."""
    from tillmap.llm.checkpoints import is_hub_id

    for read in params:
        for arm in filter(read.needs, ARMS):
            base = getattr(read.block(arm), "base", None)
            if base is not None and is_hub_id(base):
                yield read, arm, base
