"""What this machine can spare: processor threads."""

import os

_LOOK_SECONDS = 0.5  # long enough for a steady figure, short beside loading any model


def use_threads(wanted: int | None = None) -> int:
    """Let torch compute with so many threads on a processor, `free_threads` if None; gives their number.

    Call it before a model is loaded: some engines keep the number they find then.
    """
    import torch

    threads = wanted or free_threads()
    torch.set_num_threads(threads)
    return threads


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
