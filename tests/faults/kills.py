"""`kill -9` at a random moment, and SIGTERM and Ctrl-C, which end a run soon, with a line and without a child."""

import signal
import time

WITHIN = 10.0  # seconds


def kill(part, whole, rng):
    """`kill -9`, half of the time at a random moment, else in place of a random change to the tree of files.

    Moments are of a run's own time on a processor, which other programs do not stretch.
    """
    if rng.random() < 0.5 or not whole.operations:
        run = part.start()
        ended = run.wait(work=whole.work * rng.uniform(rng.choice((0.02, 0.6)), 1.0))
        if not ended:
            run.send(signal.SIGKILL, group=part.group)
            run.wait()
    else:
        run = part.start(faults={"FAULT_KILL_AT": rng.randint(1, whole.operations)})
        run.wait()
    left = run.left()
    assert not left, f"still running: {left}"
    part.check_broken(whole.prints)
    if run.status == -signal.SIGKILL or (run.status and part.group):
        return "killed"
    assert run.status == 0, f"ended with {run.status}:\n{run.output}"
    return "ended before"


def terminate(part, whole, rng):
    return _stop(part, whole, rng, signal.SIGTERM)


def interrupt(part, whole, rng):
    return _stop(part, whole, rng, signal.SIGINT)


def _stop(part, whole, rng, number):
    run = part.start()
    run.wait_until_ready()
    if run.wait(work=whole.work * rng.uniform(0.0, 0.9)):
        assert run.status == 0, f"ended with {run.status}:\n{run.output}"
        return "ended before"
    told = time.monotonic()
    run.send(number)
    ended = run.wait(WITHIN)
    took = time.monotonic() - told
    left = run.left(max(0.0, WITHIN - took))
    assert ended, f"still running {WITHIN} s after {number.name}"
    assert not left, f"children still running: {left}"
    part.check_broken(whole.prints)
    assert "Traceback" not in run.output, run.output
    if run.status in (0, -number) and part.prints() == whole.prints:
        return "ended before" if run.status == 0 else "ended before (Python's own end)"  # which has no handlers
    assert part.stopped_plainly(run, number), f"ended with {run.status}:\n{run.output}"
    return f"stopped in {took:.1f} s"
