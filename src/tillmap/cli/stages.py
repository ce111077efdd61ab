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
from pathlib import Path
from typing import Any

from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import Params, read_params
from tillmap.core.errors import ResourceError, TillmapError
from tillmap.core.files import write_json
from tillmap.core.run_state import hold

Metrics = dict[str, Any]

ONLY = "TILLMAP_ONLY"  # names the stages that may run, say "postprocess evaluate"; where it is not set, all may
_LOCKS = Path(".dvc/tmp/tillmap")
_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your share of the disk is used up",
            errno.EFBIG: "a file would be larger than is allowed here"}  # fmt: skip
logger = logging.getLogger("tillmap")


def run_stage(main: Callable[[Params], Metrics], keys: Sequence[str]) -> None:
    """Run a stage that is the same for every arm. `keys` are the params it declares in dvc.yaml."""
    _run(_name(), lambda: main(read_params(paths.PARAMS, schema(), keys)))


def run_arm_stage(
    main: Callable[[Params, str], Metrics],
    keys: Sequence[str] | Callable[[str], Sequence[str]],
    write_off: Callable[[str], None],
    wanted: Callable[[Params, str], bool] = Params.is_on,
    name: str = "{stage}/{arm}",
) -> None:
    """Run a per-arm stage for the arm named on the command line; `{arm}` in `keys` stands for it. `keys` may be a
    function of the arm.

    An arm that is not wanted, because it is switched off, runs `write_off` instead, which leaves a record of that.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stages.{_name()}")
    parser.add_argument("arm", choices=list(ARMS))
    arm = parser.parse_args().arm

    declared = keys(arm) if callable(keys) else keys

    def work() -> Metrics:
        params = read_params(paths.PARAMS, schema(), [key.format(arm=arm) for key in declared])
        if wanted(params, arm):
            return main(params, arm)
        write_off(arm)
        return {"off": True}

    _run(name.format(stage=_name(), arm=arm), work)


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
        _check_allowed(name)
        with hold(_LOCKS / f"{name.replace('/', '@')}.lock", _refusal):
            metrics = work()
            metrics |= {"seconds": round(time.perf_counter() - began, 2), "peak_memory_mib": _peak_memory_mib()}
            target = paths.METRICS / f"{name}.json"
            # Under the stage's name, so that `dvc exp show --drop` can leave all but the arms' scores out.
            write_json(metrics.pop("arms", {}) | _nested(name.split("/"), metrics), target)
    except TillmapError as error:
        sys.exit(f"{name}: {error}")
    except MemoryError:
        sys.exit(f"{name}: out of memory; close other programs, or lower engine.batch_rows and engine.kv_cache_gib")
    except Exception as error:
        lack = _lacking_room(error)
        if lack is None:
            raise
        sys.exit(f"{name}: {ResourceError(f'{lack}; make room and run `dvc repro` again')}")
    shown = ", ".join(f"{key} {value}" for key, value in metrics.items() if not isinstance(value, dict | list))
    logger.info("%s: %s", name, shown)


def _check_allowed(name: str) -> None:
    """Raise ResourceError where `TILLMAP_ONLY` keeps this stage from running, before it has done anything."""
    allowed = os.environ.get(ONLY)
    stage = name.partition("/")[0]
    if allowed and stage not in allowed.replace(",", " ").split():
        raise ResourceError(
            f"only {allowed} may run here ({ONLY}), but what `{stage}` depends on is not as in dvc.lock; "
            "undo that change, or run where it may; `git checkout . && dvc checkout` brings back what was there"
        )


def _refusal(pid: str) -> str:
    """A process that outlived its `dvc repro` would write beside another's files."""
    return f"process {pid} runs this stage in this folder; wait for it, or stop it, then run again"


def _lacking_room(error: BaseException) -> str | None:
    """What the disk lacks, should that be what an error is about. Libraries not in Python hide its number in a text."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return _NO_ROOM[error.errno]
    return next((said for number, said in _NO_ROOM.items() if os.strerror(number) in str(error)), None)


def _nested(names: Sequence[str], metrics: Metrics) -> Metrics:
    for name in reversed(names):
        metrics = {name: metrics}
    return metrics


def _peak_memory_mib() -> int:
    """The most memory this process ever held, in MiB. ru_maxrss is in KiB on Linux and in bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
