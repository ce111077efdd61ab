"""Memory that runs out: a limit on the address space, below what an unbroken run takes."""

import signal

ABORTED = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGTRAP}


def scarce(part, whole, rng):
    """The run says in a line what helps. A native library that gives up by itself (abort) cannot be made to."""
    limit = int(whole.peak_kib * 1024 * rng.uniform(0.05, 0.9))
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
