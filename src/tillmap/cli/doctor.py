"""`tillmap doctor`: check whether this machine is ready. Changes nothing."""

import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
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
_MIN_DISK_GIB = 2  # for the data and small models; the environment is installed already
_BASE_GIB = 16  # of a base from the hub: 8 billion parameters in 16 bit, or in 4 bit and later unpacked
_MIN_GPU_GIB = 8
_DRIVER = 580  # the first that runs programs built with CUDA 13, as torch 2.13 is
_TIMEOUT = 30.0  # seconds for a remote to answer
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#\\]+)")
_MAX_PACKAGES = 5  # named in a finding


def doctor() -> None:
    """Check whether this machine is ready.

    Looks for problems that keep the pipeline or `tillmap predict` from running, and suggests fixes. Changes nothing.

    Checks the Python version, the packages (against the locks in requirements/), the GPU, disk space, params.yaml,
    DVC's remote, API keys (only whether they are set) and the files of each arm that is on. The exit code is 1 if there
    is a problem.
    """
    bad = 0
    for finding in examine(Path()):
        typer.echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.name}: {finding.found}")
        if not finding.ok:
            typer.echo(f"     -> {finding.remedy}")
            bad += 1
    typer.echo(f"{bad} {'problem' if bad == 1 else 'problems'} found" if bad else "no problems found")
    if bad:
        raise typer.Exit(1)


class Finding(NamedTuple):
    """The result of one check: whether it passed, what was found and, if it failed, how to fix it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine(root: Path) -> Iterator[Finding]:
    """Run every check; `root` is the project's folder."""
    yield _python()
    yield _packages(root)
    yield from _gpu()
    params = None
    try:
        params = read_params(root / paths.PARAMS, schema())
        yield Finding("params", True, "params.yaml is valid")
    except TillmapError as error:
        yield Finding("params", False, str(error), "correct params.yaml")
    yield from _disk(state_folder(), _bases_to_fetch(root, params))
    yield _remote(root)
    if params is not None:
        yield from _keys(params)
        yield from _models(root, params)


def _python() -> Finding:
    version = sys.version_info[:2]
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version == _PYTHON, found, "use Python 3.11: `make setup PYTHON=python3.11`")


def _packages(root: Path) -> Finding:
    """Compare the installed packages with the locks for this machine."""
    names = ("gpu",) if _cuda() else ("torch", "cpu")
    locks = [root / "requirements" / f"{name}.txt" for name in names]
    for lock in locks:
        if not lock.is_file():
            return Finding("packages", False, f"{lock} is missing", "restore it with `git checkout requirements`")
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
    shown = ", ".join(wrong[:_MAX_PACKAGES])
    if len(wrong) > _MAX_PACKAGES:
        shown += f" and {len(wrong) - _MAX_PACKAGES} more"
    lock_names = " and ".join(f"requirements/{name}.txt" for name in names)
    installs = ", ".join(f"`pip install --no-deps -r requirements/{name}.txt`" for name in names)
    return Finding("packages", not wrong, shown or f"{len(pins)} as in {lock_names}", f"{installs}, or `make setup`")


def _cuda() -> bool:
    try:
        import torch

        return bool(torch.cuda.is_available())
    except Exception:  # a torch that cannot be imported is reported by _packages
        return False


def _gpu() -> Iterator[Finding]:
    """No GPU is not a problem: the default params are for a CPU."""
    if _cuda():
        import torch

        count, device = torch.cuda.device_count(), torch.cuda.get_device_properties(0)
        free = torch.cuda.mem_get_info(0)[0] / 2**30
        more = f", the first of {count}" if count > 1 else ""
        yield Finding(
            "gpu",
            free >= _MIN_GPU_GIB,
            f"{device.name}{more}, {free:.0f} of {device.total_memory / 2**30:.0f} GiB free; see docs/gpu.md",
            f"free at least {_MIN_GPU_GIB} GiB (`nvidia-smi` lists the processes), or choose another GPU with "
            "CUDA_VISIBLE_DEVICES",
        )
        yield _compiler()
    elif shutil.which("nvidia-smi"):
        remedy = (
            f"`nvidia-smi` must show a driver of version {_DRIVER} or newer (CUDA 13); "
            "`rm -r .venv && make setup` installs the packages for a GPU"
        )
        yield Finding("gpu", False, "nvidia-smi is installed, but torch finds no GPU", remedy)
    else:
        yield Finding("gpu", True, "none; language models run on the CPU, slowly")


def _compiler() -> Finding:
    """Triton, with which torch and Unsloth make kernels while they run, builds a C file on every machine."""
    lacking = [] if any(map(shutil.which, ("gcc", "cc", "clang"))) else ["a C compiler"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        lacking.append("Python.h")
    remedy = "install gcc and Python's headers: `apt-get install gcc python3.11-dev`"
    return Finding("compiler", not lacking, f"missing: {', '.join(lacking)}" if lacking else "gcc and Python.h", remedy)


def _bases_to_fetch(root: Path, params: Params | None) -> int:
    """How many bases will be downloaded from a hub."""
    from tillmap.llm.checkpoints import is_hub_id

    blocks = {arm: params.block(arm) for arm in ARMS if params.needs(arm)} if params is not None else {}
    return sum(
        is_hub_id(block.base) and not (root / paths.BASE / arm / "config.json").is_file()
        for arm, block in blocks.items()
        if hasattr(block, "base")
    )


def _disk(state: Path, bases: int) -> Iterator[Finding]:
    """A base takes its size twice, in the workspace and in DVC's cache. While it is fetched, it is in the state."""
    places = {"disk": (Path(), 2 * bases), "disk of resume state": (state, bases)}
    for name, (place, times) in places.items():
        needed = _MIN_DISK_GIB + times * _BASE_GIB
        there = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
        free = shutil.disk_usage(there).free / 2**30
        remedy = f"free {needed} GiB there" + (
            ", or set TILLMAP_STATE to a folder on another disk"
            if place == state
            else "; `dvc gc --workspace` deletes old data"
        )
        found = f"{free:.0f} GiB free at {place.absolute()}, {needed} needed"
        yield Finding(name, free >= needed, found, remedy)


def _remote(root: Path) -> Finding:
    """Whether DVC's default remote answers. A project needs none until something is shared."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            name = repo.config["core"].get("remote")
            if not name:
                return Finding(
                    "remote", True, "none; `dvc remote add --default NAME URL` adds one, to share data and models"
                )
            remote = repo.cloud.get_remote(name)
            there = _within(_TIMEOUT, lambda: remote.fs.exists(remote.path))
    except DvcException as error:
        return Finding("remote", False, str(error).splitlines()[0], "fix it in .dvc/config; `dvc remote list` shows it")
    except Exception as error:  # each storage library has its own errors
        said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return Finding("remote", False, f"{name}: {said}", "check the network and your credentials for this storage")
    if not there and remote.fs.protocol == "local":
        return Finding("remote", False, f"{name}: {remote.path} is not there", "mount the disk, or create the folder")
    return Finding("remote", True, f"{name} answers" + ("" if there else "; it is empty, `dvc push` fills it"))


def _within(seconds: float, call: Callable[[], bool]) -> bool:
    """Return the result of a call that may hang. Raises TimeoutError after `seconds`, or what the call raises."""
    done: Queue[bool | Exception] = Queue()

    def work() -> None:
        try:
            done.put(call())
        except Exception as error:  # raised again by the caller's thread
            done.put(error)

    Thread(target=work, daemon=True).start()  # a daemon does not keep the program from ending
    try:
        result = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} seconds") from None
    if isinstance(result, Exception):
        raise result
    return result


def _keys(params: Params) -> Iterator[Finding]:
    """Whether the keys that are needed are set. Their values are never shown."""
    paid = [arm for arm in ARMS if ARMS[arm].paid and params.needs(arm)]
    why_paid = f"for the {paid[0]} arm" if paid else "for a paid arm"
    wanted: list[tuple[str, str, bool]] = [
        (params.provider.key_variable, why_paid, bool(paid)),
        ("HF_TOKEN", "for train_llama.hub_id", params.train_llama.hub_id is not None),
    ]
    for variable, why, needed in wanted:
        there = bool(os.environ.get(variable, "").strip())
        found = "set" if there else "not set" + ("" if needed else " (not needed)")
        yield Finding(f"key {variable}", there or not needed, found, f"`export {variable}=...`, {why}")


def _models(root: Path, params: Params) -> Iterator[Finding]:
    """Whether the files are here that the arms that are on need to label new rows."""
    from tillmap.serving.labeller import missing_files

    for arm in (arm for arm in params.run.on if arm in ARMS):
        missing = " ".join(str(path) for path in missing_files(arm, root))
        found = f"missing: {missing}" if missing else "all files are here"
        yield Finding(f"arm {arm}", not missing, found, f"`dvc repro` makes them, `dvc pull {missing}` fetches them")
