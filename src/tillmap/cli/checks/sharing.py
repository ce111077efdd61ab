"""Git, DVC's remote and DVC's run cache."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from tillmap.cli.checks.finding import Finding
from tillmap.cli.run_cache import broken_entries, remove_entries
from tillmap.core.errors import first_line

_TIMEOUT = 30.0  # seconds for a remote to answer


def git(root: Path) -> Finding:
    """Whether git knows the project, which DVC needs, and its user, which experiments need: they are commits."""
    if not shutil.which("git"):
        return Finding("git", False, "not installed", "install git; DVC needs it")
    if without_git(root):
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


def without_git(root: Path) -> bool:
    """Whether DVC is set to run without git."""
    settings = ConfigParser(interpolation=None, strict=False)
    # DVC says what is wrong with it, in the finding about the remote
    with suppress(ConfigParserError, UnicodeDecodeError):
        settings.read([root / ".dvc" / name for name in ("config", "config.local")], encoding="utf-8")
    return settings.get("core", "no_scm", fallback="").lower() == "true"


def remote(root: Path) -> Finding:
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
            there = within(_TIMEOUT, lambda: remote.fs.exists(remote.path))
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


def run_cache(root: Path, fix: bool) -> Iterator[Finding]:
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


def within(seconds: float, call: Callable[[], bool]) -> bool:
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
