"""Memory that runs out: a limit on the address space, below what an unbroken run takes."""

import re
import signal
from functools import cache

ABORTED = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGTRAP}
# Python's faulthandler (see `main`), of a thread that is in the code of a native library that is just being loaded
_LOADING = re.compile(
    r'\(most recent call first\):\n  File "<frozen importlib._bootstrap>", line \d+ in _call_with_frames_removed\n'
    r'  File "<frozen importlib._bootstrap_external>", line \d+ in (create|exec)_module\n'
)


@cache
def _unlimited(part):
    """A run that imports all by itself: its peak, in KiB of address space, and its work, in seconds of a processor."""
    part.fresh()
    run = part.start(server=None)
    assert run.wait() and run.status == 0, run.output
    part.fresh()
    return run.peak, run.work


def scarce(part, whole, rng):
    """The run says in a line what helps. A native library that gives up by itself (abort) cannot be made to."""
    peak, work = _unlimited(part)
    limit = int(peak * 1024 * rng.uniform(0.05, 0.9))
    run = part.start(limits=[f"--as={limit}"])
    if not run.wait(work=3 * work + 20):
        assert hangs_in_a_library(run), f"does not end with {limit:,} bytes:\n{run.output}"
    left = run.left()
    assert not left, f"still running: {left}"
    part.check_broken(whole.prints)
    if run.status == 0:
        return "enough memory"
    if run.status in ABORTED:
        return f"aborted or hung in a library ({signal.Signals(-run.status).name})"
    assert "Traceback" not in run.output, f"with {limit:,} bytes:\n{run.output}"
    assert "memory" in run.output.lower(), f"with {limit:,} bytes:\n{run.output}"
    return "out of memory"


def hangs_in_a_library(run):
    """End a run that does not end by itself. Whether it was loading a native library, which we cannot help.

    OpenBLAS asks again and again for the memory that it wants as it is loaded.
    """
    run.send(signal.SIGABRT)
    run.wait(10.0)
    return bool(_LOADING.search(run.output))
