"""Runs that begin with everything imported: each is a fork of a server that has done so once.

A start takes seconds, and up to half a minute with language models. A fault in it shows little, since nothing is
written yet. `python warm.py learn FILE ...` runs a module as `python -m ...` does, and notes what it has imported. A
server imports that, and forks a run for each order. From there a run is as any other: `python -m` could have begun it,
and Python itself ends it.
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
    """Forks runs that have imported these modules."""

    def __init__(self, modules, env):
        """`env`: that of the server. A run has another one."""
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # a run becomes a child of this process
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.NamedTemporaryFile("w", suffix=".json") as listed:
            json.dump(modules, listed)
            listed.flush()
            env = env | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # a thread would not be in a fork
            command = [sys.executable, __file__, "serve", str(theirs.fileno()), listed.name]
            self._process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
            theirs.close()
            self.threads = int(self._socket.recv(64) or 0)

    def start(self, command, folder, env, said):
        """Begin `python -m ...` in a session of its own. It writes to the file descriptor `said`."""
        order = json.dumps({"words": command[2:], "folder": str(folder), "env": env})
        socket.send_fds(self._socket, [order.encode()], [said])
        return Forked(int(self._socket.recv(64)))

    def close(self):
        self._socket.close()
        self._process.wait()


def learning(command, file):
    """A `python -m ...` that notes in a file what it has imported."""
    return [command[0], __file__, "learn", str(file), *command[2:]]


def _note(file):
    """What has a file or is built in can be imported again; the rest was made on the way."""
    names = [name for name, module in list(sys.modules.items()) if getattr(module, "__spec__", None) is not None]
    Path(file).write_text(json.dumps([name for name in names if not name.startswith(_OF_A_START)]))


def _serve(their, modules):
    """Import, then fork for each order. Only the forks return: each with its order."""
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    their.send(str(len(list(Path("/proc/self/task").iterdir()))).encode())
    while True:
        message, fds, *_ = socket.recv_fds(their, 2**18, 1)
        if not message:
            os._exit(0)
        between = os.fork()
        if not between:
            if run := os.fork():
                their.send(str(run).encode())
                os._exit(0)
            their.close()
            return json.loads(message), fds[0]
        os.close(fds[0])
        os.waitpid(between, 0)


def _become(order, said):
    """Be a process that was started so."""
    os.setsid()
    for stream in (1, 2):
        os.dup2(said, stream)
    os.close(said)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None
    return order["words"]


def _run(words):
    """What `python -m` does."""
    sys.path[0] = str(Path.cwd())
    sys.argv, sys.orig_argv = ["-m", *words[1:]], [sys.executable, "-m", *words]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    how, where, *rest = sys.argv[1:]
    if how == "learn":
        atexit.register(_note, where)
    else:
        rest = _become(*_serve(socket.socket(fileno=int(where)), json.loads(Path(rest[0]).read_text())))
    _run(rest)
