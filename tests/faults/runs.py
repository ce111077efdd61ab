"""One run of a program that is to be broken: what it says, how it ends, and what is left of it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
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


class Run:
    """A started program with all that it starts."""

    def __init__(self, command, folder, env, limits=(), faults=None):
        """`limits` are of prlimit, `faults` variables of shim.c."""
        self._mark = f"FAULT_RUN={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        env = env | {name: value}
        if faults:
            env |= {"LD_PRELOAD": str(shim())} | {key: str(each) for key, each in faults.items()}
        limited = ["prlimit", *limits] if limits else []
        self.child = subprocess.Popen(
            [*limited, *command], cwd=folder, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.began, self.peak = time.monotonic(), 0
        # Not a file, which would be under the limits and on the disks of the run
        self._said = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, seconds=PATIENCE):
        """Whether it has ended by then. Keeps the most address space that it had."""
        until = time.monotonic() + seconds
        while self.child.poll() is None:
            if time.monotonic() > until:
                return False
            self.peak = max(self.peak, self._status("VmPeak"))
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
        with self.child.stdout as pipe:
            while piece := os.read(pipe.fileno(), 2**16):
                self._said += piece

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
                    if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
        return found

    def _status(self, field, base=10):
        try:
            lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1], base) for line in lines if line.startswith(f"{field}:")), 0)


def python(*words):
    return [sys.executable, *words]
