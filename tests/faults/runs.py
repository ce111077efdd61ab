"""One run of a program that is to be broken: what it says, how it ends, and what is left of it."""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 900.0  # seconds for a run that nobody breaks
LOOK = 0.02


@cache
def shim():
    """The library that breaks a program from within, compiled once."""
    built = Path(tempfile.mkdtemp(prefix="tillmap-shim-")) / "shim.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, HERE / "shim.c"], check=True)
    return built


def shimmed():
    """The variable with which a program can be broken from within."""
    return {"LD_PRELOAD": str(shim())}


def _as_nice_as_this(pid):
    """Let a session of its own give way as this process does (sched(7): autogroup)."""
    with suppress(OSError, IndexError):
        Path(f"/proc/{pid}/autogroup").write_text(Path("/proc/self/autogroup").read_text().split()[-1])


class Run:
    """A started program with all that it starts."""

    def __init__(self, command, folder, env, *, limits=(), faults=None, server=None, note=None):
        """`limits` are of prlimit, `faults` variables of shim.c. `server` and `note` are as in `warm.Server.start`.

        Without a server, or with limits, the command is started as usual.
        """
        self._mark = f"FAULT_RUN={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        env = env | {name: value}
        if faults:
            env |= shimmed() | {key: str(each) for key, each in faults.items()}
        # A pipe, not a file, which would be under the limits and on the disks of the run
        self._pipe, said = os.pipe()
        if server and not limits:
            self.child = server.start(command, folder, env, said, note)
        else:
            limited = ["prlimit", *limits] if limits else []
            self.child = subprocess.Popen(
                [*limited, *command], cwd=folder, env=env, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        os.close(said)
        _as_nice_as_this(self.child.pid)
        self.began, self.peak, self.work = time.monotonic(), 0, 0.0
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, seconds=PATIENCE, work=math.inf):
        """Whether it has ended by then, and before it has had so many seconds of a processor.

        Keeps both, and the most address space that it had.
        """
        until = time.monotonic() + seconds
        while self.child.poll() is None:
            if time.monotonic() > until or self.work >= work:
                return False
            self.peak = max(self.peak, self._status("VmPeak"))
            self.work = max(self.work, self._work())
            time.sleep(LOOK)
        self.seconds = time.monotonic() - self.began
        return True

    def wait_until_ready(self):
        """Wait until it handles SIGTERM in its own way, or has ended."""
        while self.child.poll() is None and not self._status("SigCgt", 16) >> (signal.SIGTERM - 1) & 1:
            time.sleep(LOOK)

    def send(self, number, group=False):
        """Send a signal to it, or to all that it has started, too."""
        if self.child.poll() is None:
            (os.killpg if group else os.kill)(self.child.pid, number)

    def hear(self, said):
        """Add what it has said in another way."""
        self._said += said

    @property
    def status(self):
        return self.child.returncode

    @property
    def output(self):
        """What it has said so far; all of it once it has ended."""
        if self.child.poll() is not None:
            self._reader.join(1.0)
        return self._said.decode(errors="replace")

    def _read(self):
        while piece := os.read(self._pipe, 2**16):
            self._said += piece
        os.close(self._pipe)

    def left(self, seconds=10.0):
        """The commands of its processes that are still there after so long, which are killed then."""
        until = time.monotonic() + seconds
        while (found := self._processes()) and time.monotonic() < until:
            time.sleep(LOOK)
        for process in found:
            os.kill(process, signal.SIGKILL)
        self.child.wait()
        return list(found.values())

    def _processes(self):
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if self._is_own(entry):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def _is_own(self, entry):
        """Whether a process is of this run: in its session, or with its mark."""
        state, _, _, session, *_ = (entry / "stat").read_text().rpartition(") ")[2].split()
        marked = self._mark.encode() in (entry / "environ").read_bytes().split(b"\0")
        return state != "Z" and (marked or int(session) == self.child.pid)

    def _work(self):
        """The seconds of a processor that it has had, with those of its children that have ended."""
        try:
            fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def _status(self, field, base=10):
        try:
            lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1], base) for line in lines if line.startswith(f"{field}:")), 0)


def python(*words):
    return [sys.executable, *words]
