"""What every stage does around its one library call: params, one log line, metrics, and errors a user can act on."""

import argparse
import errno
import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tillmap import paths
from tillmap.errors import ResourceError, TillmapError
from tillmap.params import ARMS, Params, read_params
from tillmap.storage import write_json

Metrics = dict[str, Any]


def run(main: Callable[[Params], Metrics], keys: Sequence[str]) -> None:
    """Run a stage that is the same for every arm. `keys` are the params it declares in dvc.yaml."""
    _run(_name(), lambda: main(read_params(paths.PARAMS, keys)))


def is_on(params: Params, arm: str) -> bool:
    return bool(getattr(params.run, arm))


def run_arm(
    main: Callable[[Params, str], Metrics],
    keys: Sequence[str],
    write_off: Callable[[str], None],
    wanted: Callable[[Params, str], bool] = is_on,
) -> None:
    """Run a per-arm stage for the arm named on the command line; `{arm}` in `keys` stands for it.

    An arm that is not wanted, because it is switched off, runs `write_off` instead, which leaves a record of that.
    """
    parser = argparse.ArgumentParser(prog=f"stages/{_name()}.py")
    parser.add_argument("arm", choices=ARMS)
    arm = parser.parse_args().arm

    def work() -> Metrics:
        params = read_params(paths.PARAMS, [key.format(arm=arm) for key in keys])
        if wanted(params, arm):
            return main(params, arm)
        write_off(arm)
        return {"off": True}

    _run(f"{_name()}/{arm}", work)


def _name() -> str:
    return sys.argv[0].rpartition("/")[2].removesuffix(".py")


def _run(name: str, work: Callable[[], Metrics]) -> None:
    # Of other libraries only errors are shown, and no bar where nobody watches it.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tillmap").setLevel(logging.INFO)
    os.environ |= {"TORCH_LOGS": "-all", "TRANSFORMERS_VERBOSITY": "error"}
    warnings.simplefilter("ignore", FutureWarning)  # of other libraries, about each other
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    began = time.perf_counter()
    try:
        metrics = work()
        metrics |= {"seconds": round(time.perf_counter() - began, 2), "peak_memory_mib": _peak_memory_mib()}
        target = paths.METRICS / f"{name}.json"
        # Under the stage's name, so that `dvc exp show --drop` can leave all but the arms' scores out.
        write_json(metrics.pop("arms", {}) | _nested(name.split("/"), metrics), target)
    except TillmapError as error:
        sys.exit(f"{name}: {error}")
    except MemoryError:
        sys.exit(f"{name}: out of memory; close other programs, or lower engine.batch_rows and engine.kv_cache_gib")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"{name}: {ResourceError('the disk is full; free some space and run `dvc repro` again')}")
    shown = ", ".join(f"{key} {value}" for key, value in metrics.items() if not isinstance(value, dict | list))
    logging.getLogger("tillmap").info("%s: %s", name, shown)


def _nested(names: Sequence[str], metrics: Metrics) -> Metrics:
    for name in reversed(names):
        metrics = {name: metrics}
    return metrics


def _peak_memory_mib() -> int:
    """The most memory this process ever held, in MiB. ru_maxrss is in KiB on Linux and in bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
