"""A disk that fills while a run writes, and a slow one."""

import os
import subprocess
from contextlib import contextmanager

SAID = ("disk is full", "No space left", "file would exceed", "File too large", "not saved", "disk I/O error")
MIB = 3072  # of the disk in memory
SLOW = 30  # milliseconds that each write and each fsync waits


@contextmanager
def disk_in_memory(folder):
    """Mount a disk on a folder for a while. It needs root; without, the folder stays on the disk that it is on."""
    mounted = _mount("-t", "tmpfs", "-o", f"size={MIB}m", "tmpfs", folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def is_in_memory(folder):
    """Whether a folder is such a disk, which then has its usual size."""
    return _mount("-o", f"remount,size={MIB}m", folder)


@contextmanager
def filled(folder, room):
    """The folder's disk with so many free bytes, in whole pages."""
    found = os.statvfs(folder)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    assert _mount("-o", f"remount,size={used + room}", folder)
    try:
        yield
    finally:
        assert is_in_memory(folder)


def _mount(*words):
    return subprocess.run(["mount", *words], check=False, capture_output=True).returncode == 0


def full(part, whole, rng):
    """No room at all, or less than the outputs need: on a disk of its own, else as a limit on each file."""
    room = rng.choice((0, rng.randint(0, max(1, whole.size))))
    if part.world.own_disk:
        with filled(part.world.place, room):
            run = part.start()
            run.wait()
    else:
        run = part.start(limits=[f"--fsize={max(1, min(room, whole.largest // 2))}"])
        run.wait()
    left = run.left()
    assert not left, f"still running: {left}"
    part.check_broken(whole.prints)
    assert "Traceback" not in run.output, run.output
    if any(said in run.output for said in SAID):
        return "full"
    assert run.status == 0, f"ended with {run.status}:\n{run.output}"
    return "enough room"


def slow(part, whole, rng):
    """Each write waits. The run takes longer, and that is all."""
    run = part.start(faults={"FAULT_SLOW": rng.randint(SLOW // 2, SLOW)})
    assert run.wait(), "does not end"
    left = run.left()
    assert not left, f"still running: {left}"
    assert run.status == 0, f"ended with {run.status}:\n{run.output}"
    return "slow"
