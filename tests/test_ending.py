"""How a process ends that is told to stop, or that lacks memory."""

import resource
import signal
import subprocess
import sys

import pytest

from tillmap.core import ending
from tillmap.core.ending import OF_A_COMMAND, expected, lacks_memory
from tillmap.core.errors import InputError, ResourceError

START = """
import os, sys, threading, time
from tillmap.core import ending
ending._PATIENCE = 0.2
ending.end_plainly("it", ending.OF_A_COMMAND)
def ready():
    print("ready", flush=True)
"""
CLEANS_UP = "try:\n  ready(); time.sleep(600)\nfinally:\n  print('cleaned up')"
SWALLOWS = "try:\n  ready(); time.sleep(600)\nexcept BaseException:\n  time.sleep(600)"
WAITS = "threading.Thread(target=time.sleep, args=(600,)).start(); ready(); time.sleep(600)"
SLOW_END = "class Slow:\n  def __del__(self, sleep=time.sleep): sleep(600)\nslow = Slow(); ready(); time.sleep(600)"
# Python prints "Exception ignored in" and goes on.
IN_A_DELETION = """
class Deleted:
  def __del__(self):
    ready()
    while True: time.sleep(0.01)
ending._PATIENCE = 600
try:
  Deleted()
  time.sleep(600)
finally:
  print('cleaned up')
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("program", [CLEANS_UP, SWALLOWS, WAITS, SLOW_END, IN_A_DELETION])
def test_a_signal_ends_it_soon_with_a_line(program, number):
    child = subprocess.Popen(
        [sys.executable, "-c", START + program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(number)
    said, errors = child.communicate(timeout=60)  # it would sleep for ten minutes
    assert child.returncode == 128 + number
    assert said == ("cleaned up\n" if "cleaned up" in program else "")
    (line,) = errors.splitlines()
    assert line.startswith(f"it: stopped by {'SIGTERM' if number == signal.SIGTERM else 'Ctrl-C'}; nothing is half")


def test_a_signal_while_python_ends_ends_it_at_once():
    """A timer was set, which ended the process as an alarm clock does."""
    late = "import atexit, os, time\natexit.register(lambda: (os.kill(os.getpid(), 15), time.sleep(600)))"
    done = subprocess.run([sys.executable, "-c", late + START], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_a_child_that_is_forked_ends_as_others_do_and_its_parent_goes_on():
    program = """
child = os.fork()
if not child:
    time.sleep(600)
os.kill(child, 15)
status = os.waitpid(child, 0)[1]
time.sleep(1)
print(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", START + program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "-15\n", "")


def test_too_little_memory_is_said_and_other_errors_keep_their_traceback():
    program = START + "raise {}"
    done = subprocess.run(
        [sys.executable, "-c", program.format("ImportError('x.so: failed to map segment from shared object')")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"it: out of memory; {OF_A_COMMAND.memory}\n")
    done = subprocess.run(
        [sys.executable, "-c", program.format("ImportError('no x')")], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("limit", "given", "threads"), [(None, None, None), (2**31, None, "1"), (2**31, "2", "2")])
def test_with_a_limit_on_memory_openblas_gets_one_thread(limit, given, threads, monkeypatch):
    """With more it hung while it was loaded."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    done = subprocess.run(
        [sys.executable, "-c", START + "print(os.environ.get('OPENBLAS_NUM_THREADS'))"],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert done.stdout == f"{threads}\n"


@pytest.mark.parametrize("limit", [3 * 2**29, 2**30])
def test_a_limit_that_the_libraries_alone_would_reach_ends_at_once(limit):
    """OpenBLAS would hang in it, deaf to SIGTERM."""
    done = subprocess.run(
        [sys.executable, "-m", "tillmap", "--help"],
        capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    said = (
        f"tillmap: out of memory: the limit is {limit // 2**20:,} MiB (`ulimit -v` shows it in KiB), and the libraries"
    )
    assert (done.returncode, done.stderr.startswith(said), done.stderr.count("\n")) == (1, True, 1)


def test_too_little_memory_while_a_library_tidies_up_is_one_line():
    program = (
        START
        + """
def tidy():
    raise MemoryError
import atexit
atexit.register(tidy)
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, f"it: out of memory; {OF_A_COMMAND.memory}\n")


def test_what_is_said_of_an_error():
    assert expected("it", ValueError("x"), OF_A_COMMAND) is None
    assert expected("it", InputError("no such file"), OF_A_COMMAND) == "it: no such file"
    assert expected("it", ResourceError("out of memory; buy some"), OF_A_COMMAND) == "it: out of memory; buy some"
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise InputError("install x") from None
    except InputError as error:
        assert expected("it", error, OF_A_COMMAND) == f"it: install x\nit: out of memory; {OF_A_COMMAND.memory}"


def test_at_the_limit_of_the_address_space_every_error_is_about_memory(monkeypatch):
    assert not lacks_memory(OSError("no library"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1, 1))
    assert lacks_memory(OSError("no library"))
    assert ending._is_at_limit()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_place_for_a_file(tmp_path, closed):
    """A file that is opened next would get its number, and with it what a library prints."""
    program = f"""
file = open({str(tmp_path / "file")!r}, "w")
print("said", file=sys.stderr)
sys.exit(file.fileno() < 3 or any(not os.get_inheritable(number) for number in range(3)))
"""
    line = f'"$0" -c "$1" {closed}'
    assert subprocess.run(["bash", "-c", line, sys.executable, START + program], check=False).returncode == 0
    assert (tmp_path / "file").read_text() == ""
