"""How many threads a long computation takes, and what a process does without a home, a name or room of its own."""

import getpass
import os
import stat
import tempfile
from pathlib import Path

import numba
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core import machine as machines
from tillmap.core.compiled import compiled
from tillmap.core.errors import ResourceError
from tillmap.core.machine import (
    MAX_THREADS,
    free_threads,
    has_home,
    has_name,
    may_write,
    settle,
    temporary_home,
)
from tillmap.core.run_state import state_folder


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, so busy (a share of all cores)."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def set_up(cores, busy, ours=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ours or cores)), raising=False)
        monkeypatch.setattr(psutil, "cpu_count", lambda *_: cores)
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100 * busy)

    return set_up


@pytest.mark.parametrize(
    ("cores", "busy", "expected"), [(2, 0.0, 2), (2, 0.5, 1), (2, 1.0, 1), (8, 0.25, 6), (8, 0.99, 1), (1, 0.0, 1)]
)
def test_as_many_as_cores_are_idle_and_at_least_one(machine, cores, busy, expected):
    machine(cores, busy)
    assert free_threads() == expected


def test_a_process_that_may_use_few_cores_takes_no_more(machine):
    machine(64, 0.0, ours=4)
    assert free_threads() == 4


def test_this_machine_has_some():
    assert 1 <= free_threads() <= os.cpu_count()


@given(st.integers(1, MAX_THREADS))
def test_the_environment_overrides_the_choice(number):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(number))
        assert free_threads() == number


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "1.5", "²", "4,2", "9" * 25, "9" * 5000])
def test_an_environment_that_says_nothing_usable_is_passed_over(machine, monkeypatch, text):
    machine(2, 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert free_threads() == 2


# No home, no name


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    """A process of a user that no list knows: no name, no home, and a folder for temporary files."""
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_STATE_HOME", "TILLMAP_STATE"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    before = dict(os.environ)
    yield temporary
    os.environ.clear()
    os.environ.update(before)


def test_a_stranger_gets_a_name_and_a_home_of_its_own(stranger):
    assert not has_name()
    assert not has_home()
    settle()
    home = stranger / f"tillmap-{os.getuid()}"
    assert Path.home() == home == temporary_home()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert getpass.getuser() == f"user-{os.getuid()}"
    assert state_folder() == home / ".local/state/tillmap"
    assert not has_name() and not has_home(), "a stand-in is told from what the user has"
    before = dict(os.environ)
    settle()
    assert dict(os.environ) == before


@pytest.mark.parametrize("home", ["/", "/nonexistent/home", "", "relative", "~"])
def test_homes_that_are_none(stranger, monkeypatch, home):
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(machines, "may_write", lambda folder: str(folder) not in ("/", "/nonexistent"))
    assert not has_home()
    settle()
    assert Path.home() == temporary_home()


def test_a_home_stays_even_if_it_cannot_be_written(stranger, monkeypatch, tmp_path):
    """It may hold the keys of a remote and the name that git asks for. Only what is written goes elsewhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "zoë")
    monkeypatch.setattr(machines.os, "access", lambda path, *_, **__: not str(tmp_path).startswith(str(path)))
    assert has_home() and has_name()
    settle()
    assert (os.environ["HOME"], "LOGNAME" in os.environ) == (str(tmp_path), False)
    assert state_folder() == temporary_home() / "state"


def test_a_chosen_state_folder_is_used_or_told(stranger, monkeypatch, tmp_path):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "new" / "state"))
    assert state_folder() == tmp_path / "new" / "state"
    assert not (tmp_path / "new").exists(), "looking makes nothing"
    monkeypatch.setattr(machines.os, "access", lambda *_, **__: False)
    with pytest.raises(ResourceError, match="may not be written; set TILLMAP_STATE to a folder that you may write to"):
        state_folder()


def test_no_room_for_temporary_files(stranger, monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    settle()
    for call in (temporary_home, state_folder):
        with pytest.raises(ResourceError, match=r"temporary files cannot be made .*; set TMPDIR to a folder"):
            call()


@pytest.mark.parametrize("trap", ["a link", "open to others", "a file"])
def test_a_folder_that_somebody_else_has_made_is_not_trusted(stranger, tmp_path, trap):
    folder = stranger / f"tillmap-{os.getuid()}"
    if trap == "a link":
        folder.symlink_to(tmp_path)
    elif trap == "a file":
        folder.touch(mode=0o600)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(ResourceError, match="tillmap-"):
        temporary_home()


def test_where_files_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert may_write(tmp_path) and may_write(tmp_path / "new" / "folder")
    assert not any(may_write(tmp_path / name) for name in ("file", "file/new", "dangling", "dangling/new", "x" * 5000))
    assert not may_write(Path("/proc/self/new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


# Compiled code


def three():
    return 3


def cache_of(function):
    """Where numba keeps a function's machine code; None for nowhere."""
    return function._cache.cache_path and Path(function._cache.cache_path)


def unwritable(monkeypatch, *folders):
    """Let numba find that it may write to none of these."""
    real = os.makedirs

    def makedirs(path, *arguments, **options):
        if any(str(path).startswith(str(folder)) for folder in folders):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr("numba.core.caching.os.makedirs", makedirs)


def test_compiled_code_is_kept_where_there_is_room(stranger, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    here, home = Path(__file__).parent, tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert cache_of(compiled(three)) == here / "__pycache__"
    unwritable(monkeypatch, here)
    assert cache_of(compiled(three)).is_relative_to(home / ".cache/numba")
    unwritable(monkeypatch, here, home)
    kept = compiled(three)
    assert cache_of(kept).is_relative_to(temporary_home() / "numba")
    assert kept() == 3
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    unwritable(monkeypatch, "/")
    assert cache_of(compiled(three)) is None
    assert compiled(three)() == 3
    monkeypatch.undo()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_of(compiled(three)).is_relative_to(tmp_path / "chosen")
