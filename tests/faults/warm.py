"""Runs that begin with everything imported: each is a fork of a server that has done so once.

A start takes seconds, and up to half a minute with language models. A fault in it shows little, since nothing is
written yet. The first run of a part notes what it imports; the server then imports that, too. But for that, a fork is
as any other run: `python -m` could have begun it, and Python itself ends it.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_OF_A_START = ("__main__", "__mp_main__", "stages", "tillmap.__main__")  # what they do belongs to a run


class Forked:
    """A run, with what is used of `subprocess.Popen`."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        return self._wait(os.WNOHANG)

    def wait(self):
        return self._wait(0)

    def _wait(self, options):
        if self.returncode is None:
            found, status = os.waitpid(self.pid, options)
            if found:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class Server:
    """Forks runs that have imported all that it has loaded."""

    def __init__(self, env):
        """`env`: that of the server. A run has another one."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # a run becomes a child of this process
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = env | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # a thread would not be in a fork
        with theirs:
            subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip  # it ends when this process does

    def load(self, noted):
        """Import what a run has noted in a file."""
        self._socket.send(json.dumps({"load": str(noted)}).encode())
        threads = int(self._socket.recv(64) or 0)
        assert threads == 1, f"a server with {threads} threads cannot fork"

    def start(self, command, folder, env, said, note=None):
        """Begin `python -m ...` in a session of its own. It writes to the file descriptor `said`.

        `note`: a file for what it has imported in the end, and the work that it took until then.
        """
        order = {"words": command[2:], "folder": str(folder), "env": env, "note": note}
        socket.send_fds(self._socket, [json.dumps(order).encode()], [said])
        return Forked(int(self._socket.recv(64)))


def _note(file):
    names = [name for name, module in list(sys.modules.items()) if getattr(module, "__spec__", None) is not None]
    modules = [name for name in names if not name.startswith(_OF_A_START)]
    Path(file).write_text(json.dumps({"modules": modules, "work": sum(os.times()[:4])}))


def _serve(their):
    """Load or fork for each order. Only the forks return: each with its order, and what the imports have set."""
    before = dict(os.environ)
    while True:
        message, fds, *_ = socket.recv_fds(their, 2**18, 1)
        if not message:
            os._exit(0)
        order = json.loads(message)
        if "load" in order:
            _load(json.loads(Path(order["load"]).read_text())["modules"])
            their.send(str(len(list(Path("/proc/self/task").iterdir()))).encode())
            continue
        if not os.fork():
            between = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.001)
            their.send(str(os.getpid()).encode())  # the campaign is its parent now
            their.close()
            return order, fds[0], {name: value for name, value in os.environ.items() if before.get(name) != value}
        os.close(fds[0])
        os.wait()


def _load(modules):
    for module in modules:
        if module not in sys.modules:
            with contextlib.suppress(Exception):  # made by a library on its way
                importlib.import_module(module)


def _become(order, said, changed):
    """Be a process that was started so, and has imported all that."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"] | changed)
    tempfile.tempdir = None
    words = order["words"]
    sys.path[0] = order["folder"]
    sys.argv, sys.orig_argv = ["-m", *words[1:]], [sys.executable, "-m", *words]
    if order["note"]:
        atexit.register(_note, order["note"])
    return words[0]


if __name__ == "__main__":
    runpy.run_module(_become(*_serve(socket.socket(fileno=int(sys.argv[1])))), run_name="__main__", alter_sys=True)
