"""What this machine can do: its processor threads, and the numbers that its GPU computes with."""

import logging
import os
from typing import Literal, TypeVar

logger = logging.getLogger(__name__)

_Name = TypeVar("_Name", bound=str)
_SAMPLE_SECONDS = 0.5  # long enough for a steady figure, short compared with loading a model


def use_threads(wanted: int | None = None) -> int:
    """Set the number of torch's CPU threads, to `free_threads()` if `wanted` is None. Returns the number.

    Call it before a model is loaded, because some engines keep the number that they find then.
    """
    import torch

    threads = wanted or free_threads()
    torch.set_num_threads(threads)
    return threads


def free_threads() -> int:
    """The number of processor cores that are idle now, at least 1; or `OMP_NUM_THREADS`, if it is set.

    Threads that wait for each other keep their core busy. So two threads that share a busy core are slower than one.
    """
    import psutil

    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy: float = psutil.cpu_percent(interval=_SAMPLE_SECONDS) / 100 * (psutil.cpu_count() or 1)
    return max(1, min(cores, round(cores - busy)))


def usable_dtype(dtype: _Name) -> "_Name | Literal['float16']":
    """The dtype, or float16 instead of bfloat16 on a GPU that cannot compute with that, such as a T4."""
    import torch

    if dtype != "bfloat16" or not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
        return dtype
    logger.info("this GPU has no bfloat16: float16 is used instead")
    return "float16"
