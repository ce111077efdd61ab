"""`tillmap doctor`: look whether this machine is ready, and change nothing."""

import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import NamedTuple

import typer

from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import Params, read_params
from tillmap.core.errors import TillmapError
from tillmap.core.run_state import state_folder

_PYTHON = (3, 11)
_MIN_DISK_GIB = 2  # `make demo` takes more: its environment alone has 4.6
_MIN_GPU_GIB = 8
_PATIENCE = 30.0  # seconds for a remote
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#\\]+)")
_MANY = 5  # packages that a finding names


def doctor() -> None:
    """Look whether this machine is ready to run the pipeline and to label, and say what to do where it is not.

    Python, packages against the lock of requirements/, GPU, disk, params.yaml, DVC's remote, keys (whether they are
    set, never their values) and the files of each arm that is on. Changes nothing. The exit code is 0 where all is
    well, else 1.
    """
    bad = 0
    for finding in examine(Path()):
        typer.echo(f"{'ok ' if finding.well else 'BAD'}  {finding.name}: {finding.found}")
        if not finding.well:
            typer.echo(f"     -> {finding.remedy}")
            bad += 1
    typer.echo("all is well" if not bad else f"{bad} to mend")
    if bad:
        raise typer.Exit(1)


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
    yield from _disk(state_folder())
    params = None
    try:
        params = read_params(root / paths.PARAMS, schema())
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
    """Compare what is installed with the locks that fit this machine."""
    names = ("gpu",) if _cuda() else ("torch", "cpu")
    locks = [root / "requirements" / f"{name}.txt" for name in names]
    for lock in locks:
        if not lock.is_file():
            return Finding("packages", False, f"{lock} is not there", "restore it with `git checkout requirements`")
    lines = [line for lock in locks for line in lock.read_text().splitlines()]
    pins = [match.groups() for line in lines if (match := _PIN.match(line))]
    wrong = []
    for package, version in pins:
        try:
            there = importlib.metadata.version(package).partition("+")[0]  # a local build, such as torch's +cpu
        except importlib.metadata.PackageNotFoundError:
            there = "missing"
        if there != version.partition("+")[0]:
            wrong.append(f"{package} {there} (lock: {version})")
    shown = ", ".join(wrong[:_MANY]) + (f" and {len(wrong) - _MANY} more" if len(wrong) > _MANY else "")
    as_locked = " and ".join(f"requirements/{name}.txt" for name in names)
    installs = ", ".join(f"`pip install --no-deps -r requirements/{name}.txt`" for name in names)
    return Finding("packages", not wrong, shown or f"{len(pins)} as in {as_locked}", f"{installs}, or `make setup`")


def _cuda() -> bool:
    try:
        import torch

        return bool(torch.cuda.is_available())
    except Exception:  # a torch that cannot even be imported is the packages' finding
        return False


def _gpu() -> Finding:
    """A machine without a GPU is fine: the shipped params are made for it."""
    if _cuda():
        import torch

        count, device = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
        free = torch.cuda.mem_get_info(0)[0] / 2**30
        more = f", the first of {count}" if count > 1 else ""
        return Finding(
            "gpu",
            free >= _MIN_GPU_GIB,
            f"{device.name}{more}, {free:.0f} of {device.total_memory / 2**30:.0f} GiB free; see docs/gpu.md",
            f"free at least {_MIN_GPU_GIB} GiB (`nvidia-smi` shows who has it), or name another with "
            "CUDA_VISIBLE_DEVICES",
        )
    if shutil.which("nvidia-smi"):
        remedy = "`pip install -r requirements/gpu.txt`, and see whether `nvidia-smi` itself finds the driver"
        return Finding("gpu", False, "there seems to be one, but torch cannot use it", remedy)
    return Finding("gpu", True, "none; everything runs on the CPU, language models slowly")


def _disk(state: Path) -> Iterator[Finding]:
    places = {"disk": Path(), "disk of resume state": state}
    for name, place in places.items():
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free / 2**30
        remedy = f"free {_MIN_DISK_GIB} GiB there" + (
            ", or set TILLMAP_STATE to a folder that has them"
            if place == state
            else "; `dvc gc --workspace` drops old data"
        )
        yield Finding(name, free >= _MIN_DISK_GIB, f"{free:.0f} GiB free at {place.absolute()}", remedy)


def _remote(root: Path) -> Finding:
    """Whether the default remote of DVC answers; a project without one is fine until something is to be shared."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            name = repo.config["core"].get("remote")
            if not name:
                return Finding(
                    "remote", True, "none set; `dvc remote add --default NAME URL` sets one to share through"
                )
            remote = repo.cloud.get_remote(name)
            there = _within(_PATIENCE, lambda: remote.fs.exists(remote.path))
    except DvcException as error:
        return Finding("remote", False, str(error).splitlines()[0], "`dvc remote list` shows it; correct .dvc/config")
    except Exception as error:  # each kind of storage has errors of its own
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding("remote", False, f"{name}: {said}", "check the network and the credentials of that storage")
    if not there and remote.fs.protocol == "local":
        return Finding("remote", False, f"{name}: {remote.path} is not there", "mount that disk, or make the folder")
    return Finding("remote", True, f"{name} answers" + ("" if there else "; nothing is in it yet, `dvc push` fills it"))


def _within(seconds: float, call: Callable[[], bool]) -> bool:
    """The result of a call that may never end. Raises TimeoutError."""
    done: Queue[bool | Exception] = Queue()

    def work() -> None:
        try:
            done.put(call())
        except Exception as error:  # told to whoever waits
            done.put(error)

    Thread(target=work, daemon=True).start()  # a daemon, so that it cannot keep the program from ending
    try:
        result = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} seconds") from None
    if isinstance(result, Exception):
        raise result
    return result


def _keys(params: Params) -> Iterator[Finding]:
    """Whether the keys that the arms that are on will need are set. Their values are never read out."""
    paid = [arm for arm in ARMS if ARMS[arm].paid and params.needs(arm)]
    why_paid = f"the {paid[0]} arm is asked" if paid else "a provider is asked"
    wanted: list[tuple[str, str, bool]] = [
        (params.provider.key_variable, why_paid, bool(paid)),
        ("HF_TOKEN", "train_llama.hub_id is set", params.train_llama.hub_id is not None),
    ]
    for variable, why, needed in wanted:
        there = bool(os.environ.get(variable, "").strip())
        found = "set" if there else "not set" + ("" if needed else ", and not needed")
        yield Finding(f"key {variable}", there or not needed, found, f"{why}: `export {variable}=...`")


def _models(root: Path, params: Params) -> Iterator[Finding]:
    """Whether the arms that are on can label new rows."""
    from tillmap.serving.labeller import missing_files

    for arm in (arm for arm in params.run.on if arm in ARMS):
        missing = " ".join(str(path) for path in missing_files(arm, root))
        found = f"{missing} not here" if missing else "its files are here"
        yield Finding(f"arm {arm}", not missing, found, f"`dvc repro` makes them, `dvc pull {missing}` brings them")
