"""`tillmap doctor`: check whether this machine is ready."""

import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import suppress
from math import ceil
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Annotated, NamedTuple

import typer

import tillmap
from tillmap.arms import ARMS, schema
from tillmap.cli.run_cache import broken_entries, remove_entries
from tillmap.cli.stages import WRITTEN
from tillmap.config import paths
from tillmap.config.params import Params, read_params
from tillmap.core.errors import TillmapError, first_line
from tillmap.core.machine import has_home, has_name, may_write, stand_in_home
from tillmap.core.run_state import state_folder

_PYTHON = (3, 11)
_MIN_DISK_GIB = 2  # for the data and small models; the environment is installed already
_MIN_GPU_GIB = 8
_DRIVER = 580  # the first that runs programs built with CUDA 13, as torch 2.13 is
_TIMEOUT = 30.0  # seconds for a remote to answer
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#\\]+)")
# In a program that pip made: the Python that runs it.
_RUNS = re.compile(rb"^(?:#!|'''exec' \"?)(/[^\"\n]*python[0-9.]*)", re.MULTILINE)
_MAX_PACKAGES = 5  # named in a finding


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


class Finding(NamedTuple):
    """The result of one check: whether it passed, what was found and, if it failed, how to fix it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine(root: Path, fix: bool = False) -> Iterator[Finding]:
    """Run every check; `root` is the project's folder. A check that fails itself is a finding, too."""
    params: list[Params] = []
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "python": lambda: [_python()],
        "environment": lambda: [_environment(root)],
        "packages": lambda: [_packages(root)],
        "gpu": _gpu,
        "user": lambda: [_user()],
        "project": lambda: [_project(root)],
        "params": lambda: [_params(root, params)],
        "data": lambda: (_data(root, read) for read in params),
        # In the project a base takes its size twice, in the workspace and in DVC's cache.
        "disk": lambda: [_disk("disk", root, 2 * _bases_to_fetch(root, params), "`dvc gc --workspace` frees some")],
        "state": lambda: _state(_bases_to_fetch(root, params)),
        "git": lambda: [_git(root)],
        "remote": lambda: [_remote(root)],
        "run cache": lambda: _run_cache(root, fix),
        "keys": lambda: (finding for read in params for finding in _keys(read)),
        "corrections": lambda: (_corrections(root, read) for read in params),
        "arms": lambda: (finding for read in params for finding in _models(root, read)),
    }
    for name, check in checks.items():
        try:
            yield from check()
        except TillmapError as error:
            found, _, remedy = str(error).rpartition("; ")
            yield Finding(name, False, found, remedy)
        except OSError as error:
            remedy = "become its owner, or have it opened for you"
            yield Finding(name, False, f"{error.filename or 'a file'}: {error.strerror or error}", remedy)
        except Exception as error:  # whatever it is: the checks after it are made
            yield Finding(name, False, f"{type(error).__name__}: {first_line(error)}", "not expected: report this line")


def _python() -> Finding:
    version = sys.version_info[:2]
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", version == _PYTHON, found, "use Python 3.11: `make setup PYTHON=python3.11`")


def _environment(root: Path) -> Finding:
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


def _user() -> Finding:
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


def _project(root: Path) -> Finding:
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


def _state(bases: Sequence[str]) -> Iterator[Finding]:
    """Whether resume state is kept where it stays, and has room: a base from a hub is there while it is fetched."""
    state = state_folder()
    elsewhere = "`export TILLMAP_STATE=FOLDER`, with a folder that you may write to"
    temporary = stand_in_home()
    if temporary is not None and state.is_relative_to(temporary):
        found = f"{state}: among the temporary files, which may be gone after a restart"
        yield Finding("state", False, found, elsewhere)
    else:
        yield Finding("state", True, f"kept in {state}")
    yield _disk("disk of resume state", state, bases, elsewhere)


def _disk(name: str, place: Path, bases: Sequence[str], remedy: str) -> Finding:
    """Whether a disk has room for small things and for some bases from a hub; one that comes twice takes it twice."""
    from tillmap.llm.limits import room_of

    needed = _MIN_DISK_GIB + ceil(sum(room_of(base).gib for base in bases))
    rooms = "; ".join(f"{base} {room_of(base).gib:.1f}, {room_of(base).known}" for base in dict.fromkeys(bases))
    there = next(folder for folder in (place.absolute(), *place.absolute().parents) if os.path.lexists(folder))
    free = shutil.disk_usage(there).free / 2**30
    found = f"{free:.0f} GiB free at {place.absolute()}, {needed} needed" + (f" ({rooms})" if rooms else "")
    return Finding(name, free >= needed, found, f"free {needed} GiB there; {remedy}")


def _params(root: Path, params: list[Params]) -> Finding:
    """Whether params.yaml is valid; then it is added to `params`."""
    try:
        params.append(read_params(root / paths.PARAMS, schema()))
    except TillmapError as error:
        return Finding("params", False, str(error), "correct params.yaml")
    return Finding("params", True, "params.yaml is valid")


def _data(root: Path, params: Params) -> Finding:
    """Whether DVC can read the source: it stops at a link that leads nowhere, such as the lock of an editor."""
    source = root / params.data.source
    links = [path for path in (source, *(source.rglob("*") if source.is_dir() else ())) if path.is_symlink()]
    lost = next((path for path in links if not path.exists()), None)
    if lost is not None:
        return Finding(
            "data", False, f"{lost} is a link that leads nowhere; DVC stops at it", "remove it, or correct it"
        )
    made = source.is_relative_to(root / paths.DEMO)
    if not source.exists() and not made:
        return Finding("data", False, f"{source} is not there", "correct data.source in params.yaml")
    return Finding("data", True, f"{source}" + ("" if source.exists() else ", which `dvc repro` makes"))


def _git(root: Path) -> Finding:
    """Whether git knows the project, which DVC needs, and its user, which experiments need: they are commits."""
    if not shutil.which("git"):
        return Finding("git", False, "not installed", "install git; DVC needs it")
    if _without_git(root):
        return Finding("git", True, "not used (core.no_scm in .dvc/config); `dvc exp` needs it")
    fault = _fault_of_git(root)
    return Finding("git", False, *fault) if fault else Finding("git", True, "knows the project and its user")


def _fault_of_git(root: Path) -> tuple[str, str] | None:
    """What is wrong, and the remedy."""
    asked = _ask_git(root, "rev-parse", "--git-dir")
    if "dubious ownership" in asked.stderr:
        remedy = f"`git config --global --add safe.directory {shlex.quote(str(root.absolute()))}`"
        return "the project belongs to another user, so git refuses it", remedy
    if asked.returncode:
        remedy = (
            "`git init && git add -A && git commit -m start`, or `dvc config --local core.no_scm true` to do without "
            "git and without `dvc exp`"
        )
        return "this is no git repository; a downloaded zip is none", remedy
    if _ask_git(root, "rev-parse", "--verify", "HEAD").returncode:
        return "there is no commit yet; `dvc exp` needs one", "`git add -A && git commit -m start`"
    unset = [key for key in ("name", "email") if not _git_user(root, key)]
    if unset:
        remedy = " && ".join(f"git config --global user.{key} YOUR_{key.upper()}" for key in unset)
        return f"user.{' and user.'.join(unset)} not set; `dvc exp` needs it", f"`{remedy}`"
    return None


def _ask_git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", root, *words],
        env=os.environ | {"LC_ALL": "C"},
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT,
    )


def _git_user(root: Path, key: str) -> bool:
    given = os.environ.get(f"GIT_AUTHOR_{key.upper()}") and os.environ.get(f"GIT_COMMITTER_{key.upper()}")
    return bool(given or _ask_git(root, "config", f"user.{key}").stdout.strip())


def _without_git(root: Path) -> bool:
    """Whether DVC is set to run without git."""
    settings = ConfigParser(interpolation=None, strict=False)
    with suppress(ConfigParserError):  # DVC says what is wrong with it, in the finding about the remote
        settings.read([root / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
    return settings.get("core", "no_scm", fallback="").lower() == "true"


def _compiler() -> Finding:
    """Triton, with which torch and Unsloth make kernels while they run, builds a C file on every machine."""
    lacking = [] if any(map(shutil.which, ("gcc", "cc", "clang"))) else ["a C compiler"]
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        lacking.append("Python.h")
    remedy = "install gcc and Python's headers: `apt-get install gcc python3.11-dev`"
    return Finding("compiler", not lacking, f"missing: {', '.join(lacking)}" if lacking else "gcc and Python.h", remedy)


def _bases_to_fetch(root: Path, params: list[Params]) -> list[str]:
    """The bases that will be downloaded from a hub, one for each arm, as far as the params can be read."""
    from tillmap.llm.checkpoints import is_hub_id

    blocks = {arm: read.block(arm) for read in params for arm in ARMS if read.needs(arm)}
    return [
        block.base
        for arm, block in blocks.items()
        if hasattr(block, "base") and is_hub_id(block.base)
        if not (root / paths.BASE / arm / "config.json").is_file()
    ]


def _remote(root: Path) -> Finding:
    """Whether DVC's default remote answers. A project needs none until something is shared."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    name = "DVC"
    try:
        with Repo(str(root)) as repo:
            name = repo.config["core"].get("remote")
            if not name:
                return Finding(
                    "remote", True, "none; `dvc remote add --default NAME URL` adds one, to share data and models"
                )
            remote = repo.cloud.get_remote(name)
            there = _within(_TIMEOUT, lambda: remote.fs.exists(remote.path))
    except SCMError as error:
        return Finding("remote", False, f"not looked at: {first_line(error)}", "first correct what `git` above says")
    except DvcException as error:
        return Finding("remote", False, first_line(error), "fix it in .dvc/config; `dvc remote list` shows it")
    except Exception as error:  # each storage library has its own errors
        said = f"{name}: {type(error).__name__}: {first_line(error)}"
        own = isinstance(error, OSError) and str(root.absolute()) in str(error.filename)
        remedy = "first correct what `project` above says" if own else "check the network and your credentials for it"
        return Finding("remote", False, said, remedy)
    if not there and remote.fs.protocol == "local":
        return Finding("remote", False, f"{name}: {remote.path} is not there", "mount the disk, or create the folder")
    return Finding("remote", True, f"{name} answers" + ("" if there else "; it is empty, `dvc push` fills it"))


def _run_cache(root: Path, fix: bool) -> Iterator[Finding]:
    """Whether the entries of DVC's run cache have their outputs. What DVC itself cannot do is told by other checks."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo:
            broken = broken_entries(repo)
    except (DvcException, SCMError):
        return
    if fix:
        remove_entries(broken)
    several = f"{len(broken)} broken {'entry' if len(broken) == 1 else 'entries'}, of a killed run or of `dvc gc`"
    found = (f"{several}{', removed' * fix}") if broken else "every entry has its outputs"
    yield Finding("run cache", fix or not broken, found, "`tillmap doctor --fix` removes them; these stages run again")


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


def _corrections(root: Path, params: Params) -> Finding:
    """Whether the file of corrections is there, as DVC needs it, and has what was decided on this machine."""
    from tillmap.core.files import read_table
    from tillmap.core.taxonomy import LabelTree
    from tillmap.review.decisions import read_decisions
    from tillmap.review.saving import unsaved

    name, place = "corrections", root / params.data.corrections
    if not place.exists():
        remedy = f"`git checkout {params.data.corrections}`, or an empty file of this name"
        return Finding(name, False, f"{params.data.corrections} is not there, and DVC needs it", remedy)
    log, tree = root / paths.DECISIONS, root / paths.TREE
    if log.is_file() and tree.is_file():
        levels = LabelTree.from_table(read_table(tree)).levels
        if count := unsaved(read_decisions(log, levels), levels, place):
            found = f"{count:,} decisions in {paths.DECISIONS} are not yet in {params.data.corrections}"
            return Finding(name, False, found, "`tillmap review --save`, or stop the page that is open")
    return Finding(name, True, f"{params.data.corrections} is there")


def _models(root: Path, params: Params) -> Iterator[Finding]:
    """Whether the files are here that the arms that are on need to label new rows."""
    from tillmap.serving.labeller import missing_files

    for arm in (arm for arm in params.run.on if arm in ARMS):
        missing = " ".join(str(path) for path in missing_files(arm, params, root))
        found = f"missing: {missing}" if missing else "all files are here"
        yield Finding(f"arm {arm}", not missing, found, f"`dvc repro` makes them, `dvc pull {missing}` fetches them")
