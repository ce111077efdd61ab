"""A clock that jumps to and fro, and files that are older and newer than it."""

import os
import time

JUMPS = (60, 3600, 86400 * 400)  # seconds


def jump(part, whole, rng):
    """A run ends as soon as with a good clock, nearly, and the same."""
    for out in (part.folder / "data").rglob("*"):
        if out.is_file() and not out.is_symlink():
            moved = time.time() + rng.choice((-1, 1)) * rng.choice(JUMPS)
            os.utime(out, (moved, moved))
    run = part.start(faults={"FAULT_JUMP": rng.choice(JUMPS)})
    assert run.wait(4 * whole.seconds + 60), f"does not end:\n{run.output}"
    left = run.left()
    assert not left, f"still running: {left}"
    assert run.status == 0, f"ended with {run.status}:\n{run.output}"
    assert "Traceback" not in run.output, run.output
    return "jumped"
