"""The frame of every stage: reads params, runs one function, writes metrics and a log line, and reports errors."""

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
from tillmap.core.ending import OF_A_STAGE, expected
from tillmap.core.errors import ResourceError, lacks_room
from tillmap.core.files import write_json
from tillmap.core.machine import may_write, settle
from tillmap.core.run_state import hold

Metrics = dict[str, Any]

ONLY = "TILLMAP_ONLY"  # the stages that may run, such as "postprocess evaluate"; unset: all
_LOCKS = Path(".dvc/tmp/tillmap")
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
# The folders of the pipeline, and those of DVC, some of which are another user's if that one ran it here once.
WRITTEN = ("data", "models", "metrics", "plots", ".dvc/tmp", ".dvc/cache", ".dvc/cache/files/md5")
logger = logging.getLogger("tillmap")


def run_stage(main: Callable[[Params], Metrics], keys: Sequence[str]) -> None:
    """Run a stage that has no arm. `keys` are the params that dvc.yaml declares for it; it can read no others."""
    _run(_name(), lambda: main(read_params(paths.PARAMS, schema(), keys)))


def run_arm_stage(
    main: Callable[[Params, str], Metrics],
    keys: Sequence[str] | Callable[[str], Sequence[str]],
    write_off: Callable[[str], None],
    wanted: Callable[[Params, str], bool] = Params.is_on,
    name: str = "{stage}/{arm}",
) -> None:
    """Run a stage for the arm named on the command line.

    Args:
        main: does the work for an arm and returns the stage's metrics.
        keys: the params that dvc.yaml declares for the stage, with `{arm}` for the arm's name; or a function of the
            arm that gives them.
        write_off: called instead of `main` for an arm that is off. DVC expects the stage's outputs all the same.
        wanted: whether an arm is on.
        name: the stage's name in messages and metrics.
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
    # Show only errors of other libraries, and progress bars only in a terminal.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("tillmap").setLevel(logging.INFO)
    os.environ |= {"TORCH_LOGS": "-all", "TRANSFORMERS_VERBOSITY": "error"}
    warnings.simplefilter("ignore", FutureWarning)  # other libraries' warnings about each other
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    began = time.perf_counter()
    try:
        settle()
        _check_allowed(name)
        _check_writable()
        with hold(_LOCKS / f"{name.replace('/', '@')}.lock", _refusal):
            metrics = work()
            metrics |= {"seconds": round(time.perf_counter() - began, 2), "peak_memory_mib": _peak_memory_mib()}
            target = paths.METRICS / f"{name}.json"
            # Under the stage's name, so that `make compare` can hide these columns and keep the arms' scores.
            write_json(metrics.pop("arms", {}) | _nested(name.split("/"), metrics), target)
    except Exception as error:
        if said := expected(name, error, OF_A_STAGE):
            sys.exit(said)
        if problem := lacks_room(error):
            sys.exit(f"{name}: {problem}; free some space and run `dvc repro` again")
        if isinstance(error, OSError) and error.errno in _NOT_ALLOWED:
            sys.exit(f"{name}: {error.filename or 'a file'}: {error.strerror}; correct that and run `dvc repro` again")
        raise
    shown = ", ".join(f"{key} {value}" for key, value in metrics.items() if not isinstance(value, dict | list))
    logger.info("%s: %s", name, shown)


def _check_allowed(name: str) -> None:
    """Raise ResourceError if `TILLMAP_ONLY` does not name this stage."""
    allowed = os.environ.get(ONLY)
    stage = name.partition("/")[0]
    if allowed and stage not in allowed.replace(",", " ").split():
        raise ResourceError(
            f"only {allowed} may run here ({ONLY}), but a dependency of `{stage}` differs from dvc.lock; "
            "undo that change (`git checkout . && dvc checkout`), or run on a machine without this limit"
        )


def _check_writable() -> None:
    """Raise ResourceError if the pipeline's folders may not be written, before the work and not after it."""
    here = Path.cwd()
    closed = [folder for folder in (here, *(here / name for name in WRITTEN)) if not may_write(folder)]
    if closed:
        raise ResourceError(
            f"{closed[0]}: this folder may not be written; run as its owner, or in a copy of the project of your own"
        )


def _refusal(pid: str) -> str:
    # A stage can outlive a killed `dvc repro`. Two at once would overwrite each other's outputs.
    return f"process {pid} is running this stage in this folder; wait for it or stop it, then run again"


def _nested(names: Sequence[str], metrics: Metrics) -> Metrics:
    for name in reversed(names):
        metrics = {name: metrics}
    return metrics


def _peak_memory_mib() -> int:
    """The peak memory of this process in MiB."""
    # ru_maxrss is in KiB on Linux and in bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (2**20 if sys.platform == "darwin" else 2**10)
