"""What is installed on this machine: Python, the environment, its packages, and what a GPU needs."""

import importlib.metadata
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import tillmap
from tillmap.cli.checks.finding import Finding

_PYTHON = (3, 11)
_MIN_GPU_GIB = 8
_DRIVER = 580  # the first that runs programs built with CUDA 13, as torch 2.13 is
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#\\]+)")
# In a program that pip made: the Python that runs it.
_RUNS = re.compile(rb"^(?:#!|'''exec' \"?)(/[^\"\n]*python[0-9.]*)", re.MULTILINE)
_MAX_PACKAGES = 5  # named in a finding


def python() -> Finding:
    """Whether this is the Python that the locks are for."""
    version = sys.version_info[:2]
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version == _PYTHON, found, "use Python 3.11: `make setup PYTHON=python3.11`")


def environment(root: Path) -> Finding:
    """Whether the programs and the code are those of this folder. An environment does not work once it was moved."""
    here = Path(sys.executable).parent
    remedy = "an environment cannot be moved or copied: `rm -rf .venv && make setup`"
    for name in ("tillmap", "dvc"):
        program = here / name
        if not program.is_file():
            return Finding("environment", False, f"{program} is missing", "`make setup`, `source .venv/bin/activate`")
        python = _RUNS.search(program.read_bytes()[:1024])
        if python and not Path(os.fsdecode(python[1])).exists():
            return Finding("environment", False, f"{program} was made for {os.fsdecode(python[1])}", remedy)
    code = Path(tillmap.__file__).resolve().parent
    own = root.absolute() / "src" / "tillmap"
    if own.is_dir() and own.resolve() != code:
        return Finding("environment", False, f"the code that runs is in {code}, not in this folder", remedy)
    return Finding("environment", True, f"{sys.prefix}, with the code in {code}")


def packages(root: Path) -> Finding:
    """Compare the installed packages with the locks for this machine."""
    names = ("gpu",) if has_cuda() else ("torch", "cpu")
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


def has_cuda() -> bool:
    """Whether torch can use a GPU."""
    try:
        import torch

        return bool(torch.cuda.is_available())
    except Exception:  # a torch that cannot be imported is reported by _packages
        return False


def gpu() -> Iterator[Finding]:
    """No GPU is not a problem: the default params are for a CPU."""
    if has_cuda():
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
        yield compiler()
    elif shutil.which("nvidia-smi"):
        remedy = (
            f"`nvidia-smi` must show a driver of version {_DRIVER} or newer (CUDA 13); "
            "`rm -r .venv && make setup` installs the packages for a GPU"
        )
        yield Finding("gpu", False, "nvidia-smi is installed, but torch finds no GPU", remedy)
    else:
        yield Finding("gpu", True, "none; language models run on the CPU, slowly")


def compiler() -> Finding:
    """Triton, with which torch and Unsloth make kernels while they run, builds a C file on every machine."""
    lacking = [] if any(map(shutil.which, ("gcc", "cc", "clang"))) else ["a C compiler"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        lacking.append("Python.h")
    remedy = "install gcc and Python's headers: `apt-get install gcc python3.11-dev`"
    return Finding("compiler", not lacking, f"missing: {', '.join(lacking)}" if lacking else "gcc and Python.h", remedy)
