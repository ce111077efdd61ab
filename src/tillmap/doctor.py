"""Looks whether this machine is ready: Python, packages, memory, disk, remote, keys, models. Changes nothing."""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tillmap import paths
from tillmap.errors import TillmapError
from tillmap.journal import state_folder
from tillmap.params import Params, read_params

_PYTHON = (3, 11)
_LEAST_DISK_GIB = 8
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#\\]+)")
_MANY = 5  # packages that a finding names


class Finding(NamedTuple):
    """One thing that was looked at: whether it is as it should be, what was found, and else what to do."""

    name: str
    well: bool
    found: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything in turn; `root` is the project's folder."""
    yield _python()
    yield _packages(root)
    yield _gpu()
    yield _disk(state_folder())
    params = None
    try:
        params = read_params(root / paths.PARAMS)
        yield Finding("params", True, "params.yaml is valid")
    except TillmapError as error:
        yield Finding("params", False, str(error), "correct params.yaml")
    yield _remote(root)
    if params is not None:
        yield from _keys(params)
        yield from _models(root, params)


def _python() -> Finding:
    version = sys.version_info[:2]
    said = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version == _PYTHON, said, "use Python 3.11: `make setup PYTHON=python3.11`")


def _packages(root: Path) -> Finding:
    """Compare what is installed with the lock that fits this machine."""
    name = "gpu" if _cuda() else "cpu"
    lock = root / "requirements" / f"{name}.txt"
    if not lock.is_file():
        return Finding("packages", False, f"{lock} is not there", "restore it with `git checkout requirements`")
    pins = [match.groups() for line in lock.read_text().splitlines() if (match := _PIN.match(line))]
    wrong = []
    for package, version in pins:
        try:
            there = importlib.metadata.version(package).partition("+")[0]  # a local build, such as torch's +cpu
        except importlib.metadata.PackageNotFoundError:
            there = "missing"
        if there != version.partition("+")[0]:
            wrong.append(f"{package} {there} (lock: {version})")
    shown = ", ".join(wrong[:_MANY]) + (f" and {len(wrong) - _MANY} more" if len(wrong) > _MANY else "")
    remedy = f"`pip install --no-deps -r requirements/{name}.txt`, or `make setup`"
    return Finding("packages", not wrong, shown or f"{len(pins)} as in requirements/{name}.txt", remedy)


def _cuda() -> bool:
    try:
        import torch

        return bool(torch.cuda.is_available())
    except Exception:  # a torch that cannot even be imported is the packages' finding
        return False


def _gpu() -> Finding:
    """A machine without a GPU is fine: the shipped params are made for it."""
    if not _cuda():
        return Finding("gpu", True, "none; everything runs on the CPU, and small language models alone are bearable")
    import torch

    device = torch.cuda.get_device_properties(0)
    return Finding("gpu", True, f"{device.name}, {device.total_memory / 2**30:.0f} GiB; `tillmap profile gpu` uses it")


def _disk(state: Path) -> Finding:
    place = next(folder for folder in (state, *state.parents) if folder.exists())
    free = min(shutil.disk_usage(place).free, shutil.disk_usage(".").free) / 2**30
    remedy = f"free some space, or set TILLMAP_STATE to a folder with more; `tillmap prune` clears {state}"
    return Finding("disk", free >= _LEAST_DISK_GIB, f"{free:.0f} GiB free (state: {state})", remedy)


def _remote(root: Path) -> Finding:
    """Whether the default remote of DVC answers; a project without one is fine until something is to be shared."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            name = repo.config["core"].get("remote")
            if not name:
                return Finding("remote", True, "none set; docs/sharing.md says how, once there is something to share")
            remote = repo.cloud.get_remote(name)
            remote.fs.ls(remote.path) if remote.fs.exists(remote.path) else remote.fs.makedirs(remote.path)
            return Finding("remote", True, f"{name} answers")
    except DvcException as error:
        return Finding("remote", False, str(error).splitlines()[0], "see docs/sharing.md; `dvc remote list` shows it")
    except Exception as error:  # each kind of storage has errors of its own
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding("remote", False, said, "check the network and the credentials: docs/sharing.md")


def _keys(params: Params) -> Iterator[Finding]:
    """Whether the keys that the arms that are on will need are set. Their values are never read out."""
    wanted: list[tuple[str, str, bool]] = [
        (params.provider.key_variable, "the openai arm is on", params.run.openai),
        ("HF_TOKEN", "models come from a hub", _from_hub(params)),
    ]
    for variable, why, needed in wanted:
        there = bool(os.environ.get(variable, "").strip())
        found = "set" if there else "not set" + ("" if needed else ", and not needed")
        yield Finding(variable, there or not needed, found, f"{why}: `export {variable}=...`")


def _from_hub(params: Params) -> bool:
    bases = [params.rag.base] * params.run.rag + [params.llama.base] * params.run.llama
    return any(base.count("/") == 1 and not Path(base).exists() for base in bases)


def _models(root: Path, params: Params) -> Iterator[Finding]:
    """Whether the arms that are on can answer new rows."""
    from tillmap.labelling import files_of

    for arm, on in params.run.model_dump().items():
        if not on:
            continue
        missing = [str(path) for path in files_of(arm) if not (root / path).exists()]
        found = f"{', '.join(missing)} not here" if missing else "its files are here"
        remedy = f"`dvc repro` makes them, `dvc pull {' '.join(missing)}` fetches them"
        yield Finding(f"arm {arm}", not missing, found, remedy)
