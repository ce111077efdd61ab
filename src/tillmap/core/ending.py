"""How a process ends that is told to stop, or that lacks memory: soon, with one line, and nothing half written."""

import atexit
import errno
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

from tillmap.core.errors import ResourceError, TillmapError


class Remedies(NamedTuple):
    """What to do if memory is lacking, and how to go on after a stop."""

    memory: str
    again: str


OF_A_STAGE = Remedies(
    "close other programs, or lower engine.batch_rows and engine.kv_cache_gib", "`dvc repro` goes on from there"
)
OF_A_COMMAND = Remedies("close other programs, or use an arm that needs less memory", "run the command again")

_PATIENCE = 5.0  # seconds for the blocks under way to clean up
_SOON = 0.01  # seconds
_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# What native libraries say, whose errors are of any class. The first is the system's text for it.
_OF_MEMORY = (
    os.strerror(errno.ENOMEM), "can't allocate memory", "start new thread", "bad_alloc", "out of memory",
    "failed to map segment",
)  # fmt: skip
_LIBRARIES = 2**31  # bytes of address space; 1.7 GiB were measured for those of `tillmap predict`
_NEARLY = 0.95  # of the limit on the address space: what fails there fails for that, whatever it says


def end_plainly(name: str, remedies: Remedies) -> None:
    """Let SIGTERM, Ctrl-C and a lack of memory end this process with a line that begins with `name`, and no traceback.

    Call it before the imports that take seconds. A signal raises SystemExit in the main thread, so every block cleans
    up. Python ignores it where it comes while an object is being deleted; then it is raised again soon. If all of that
    takes longer than some seconds, because a library or another thread goes on, the process ends without: what is on
    the disk is never half written anyway.
    """
    _hold_closed_streams()
    _spare_memory(name)
    told: list[int] = []
    unraisable = sys.unraisablehook

    def tell(number: int) -> None:
        if not told:
            told.append(number)
            line = f"{name}: stopped by {_SIGNALS[signal.Signals(number)]}; nothing is half written; {remedies.again}\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())

    def stop(number: int, _: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # once is enough: a second one would break the cleaning up
        tell(number)
        raise SystemExit(128 + number)

    def again(*_: object) -> None:
        raise SystemExit(128 + told[0])

    def ignored(what: "sys.UnraisableHookArgs") -> None:
        if isinstance(what.exc_value, MemoryError):  # such as of a library that tidies up
            print(f"{name}: out of memory; {remedies.memory}", file=sys.stderr)
        elif not told or not isinstance(what.exc_value, SystemExit):
            unraisable(what)
        elif threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, _SOON)

    def watch(pipe: int) -> None:
        """End the process some seconds after a signal, whatever its main thread is doing."""
        number = 0
        while number not in _SIGNALS:
            number = os.read(pipe, 1)[0]
        time.sleep(_PATIENCE)
        tell(number)
        os._exit(128 + number)

    def leave() -> None:
        """End before Python takes the libraries down, which can take them seconds, without `watch`.

        If all is done, a signal that comes from here on ends the process at once: Python runs no handlers any more.
        """
        with suppress(SystemExit):  # of a signal that has just come
            if not told:
                _let_signals_kill()
        if told:
            _flush()
            os._exit(128 + told[0])

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if said := expected(name, error, remedies):
            print(said, file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook, sys.unraisablehook = excepthook, ignored
    atexit.register(leave)  # the first one, so the last to be called
    for each in _SIGNALS:
        signal.signal(each, stop)
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS),
        after_in_child=_as_usual,
    )
    threading.Thread(target=watch, args=(_pipe_of_signals(),), daemon=True).start()


def _pipe_of_signals() -> int:
    """A pipe that the numbers of signals can be read from, at once, even while a library computes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _let_signals_kill() -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_DFL)


def _hold_closed_streams() -> None:
    """Keep the numbers of standard input, output and error from the files that are opened next.

    A caller may have closed them. Messages go nowhere then. `sys.stdin` and `sys.stdout` are None, as Python made them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest free number, this one
            os.set_inheritable(number, True)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _spare_memory(name: str) -> None:
    """With a limit on the address space (`ulimit -v`), give OpenBLAS one thread, unless the user says how many.

    It takes 32 MiB for each while it is loaded, and tries forever, deaf to signals, where it cannot have them. So a
    limit that the libraries alone would reach ends the process here.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    if limit < _LIBRARIES:
        sys.exit(
            f"{name}: out of memory: the limit is {limit // 2**20:,} MiB (`ulimit -v` shows it in KiB), and the "
            f"libraries alone take up to {_LIBRARIES // 2**20:,} MiB; raise it"
        )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or there is none
            stream.flush()


def _as_usual() -> None:
    """A forked child ends as others do. Its signals are not its parent's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def expected(name: str, error: BaseException, remedies: Remedies) -> str | None:
    """What to say of an error of ours, or about memory; None for one that nobody expected.

    Too little memory makes other errors, too: a library that cannot be loaded seems to be missing.
    """
    known = f"{name}: {error}" if isinstance(error, TillmapError) else ""
    if isinstance(error, ResourceError) or not lacks_memory(error):
        return known or None
    return f"{known}\n{name}: out of memory; {remedies.memory}".strip()


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is about memory."""
    while error is not None:
        if isinstance(error, MemoryError) or any(text in str(error) for text in _OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return _is_at_limit()


def _is_at_limit() -> bool:
    """Whether this process has had nearly all of the address space that it may have (`ulimit -v`)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    had = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak:")), 0)
    return had > _NEARLY * limit
