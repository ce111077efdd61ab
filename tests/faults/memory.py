"""Memory that runs out: a limit on the address space, below what an unbroken run takes."""

import signal
from functools import cache

ABORTED = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGTRAP}


@cache
def _peak_of(part):
    """The bytes of address space that a run takes that imports all by itself."""
    part.fresh()
    run = part.start(server=None)
    assert run.wait() and run.status == 0, run.output
    part.fresh()
    return run.peak * 1024


def scarce(part, whole, rng):
    """The run says in a line what helps. A native library that gives up by itself (abort) cannot be made to."""
    limit = int(_peak_of(part) * rng.uniform(0.05, 0.9))
    run = part.start(limits=[f"--as={limit}"])
    assert run.wait(), f"does not end with {limit:,} bytes"
    left = run.left()
    assert not left, f"still running: {left}"
    part.check_broken(whole.prints)
    if run.status == 0:
        return "enough memory"
    if run.status in ABORTED:
        return f"aborted by a library ({signal.Signals(-run.status).name})"
    assert "Traceback" not in run.output, f"with {limit:,} bytes:\n{run.output}"
    assert "memory" in run.output.lower(), f"with {limit:,} bytes:\n{run.output}"
    return "out of memory"
