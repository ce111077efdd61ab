"""What this machine can spare: processor threads."""

import os

_LOOK_SECONDS = 0.5  # long enough for a steady figure, short beside loading any model


def free_threads() -> int:
    """How many threads a long computation should use: as many as processor cores are idle now, at least one.

    Threads that wait for one another spin, so two that share a busy core are slower than one alone. `OMP_NUM_THREADS`
    overrides the choice, where it is set.
    """
    import psutil

    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy: float = psutil.cpu_percent(interval=_LOOK_SECONDS) / 100 * (psutil.cpu_count() or 1)
    return max(1, min(cores, round(cores - busy)))
