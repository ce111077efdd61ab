"""A disk that fills while a run writes, and a slow one."""

import errno
import subprocess
from contextlib import contextmanager

SAID = ("disk is full", "No space left", "file would exceed", "File too large", "not saved", "disk I/O error")
SLOW = 30  # milliseconds that each write and each fsync waits


@contextmanager
def disk_in_memory(folder, mib):
    """Mount a disk of that size on a folder for a while. It needs root; without, the folder stays on its own disk."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", folder], check=False, capture_output=True
    )
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder, room):
    """The folder's disk with so many free bytes."""
    filler = folder / ".filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        file.truncate(max(0, file.tell() - room))
    try:
        yield
    finally:
        filler.unlink()


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
