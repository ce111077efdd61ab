"""Cancels tuning jobs and batches that are under way, for `tillmap cancel`."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tillmap.core.errors import ParamsError
from tillmap.core.run_state import state_folder
from tillmap.providers.client import ProviderError, Service
from tillmap.providers.idempotent_create import batches_of, jobs_of
from tillmap.providers.state import STATE, RunState

logger = logging.getLogger(__name__)

RUNS = "provider"  # in the state folder


def run_folder(run: str) -> Path:
    """The state folder of the run with this key."""
    return state_folder() / RUNS / run


def unfinished_runs() -> list[Path]:
    """The folders of all runs that have a job or batch under way."""
    folders = sorted(path.parent for path in (state_folder() / RUNS).glob(f"*/{STATE}"))
    return [folder for folder in folders if _open(RunState(folder))]


def cancel_run(folder: Path, service: Service | None = None) -> int:
    """Cancel a run's jobs and batches and stop the process that follows them. Returns how many were cancelled.

    Answers that exist already are kept, and billed. Raises ParamsError without a key, ProviderError if the provider
    can't be reached.
    """
    state = RunState(folder)
    state.cancel()
    run = state.service["run"]
    service = service or Service(state.service["base_url"], state.service["key_variable"])
    with service.reading():
        return _cancel_all(folder, service, run)


def _cancel_all(folder: Path, service: Service, run: str) -> int:
    cancelled: set[str] = set()
    began = time.monotonic()
    while True:
        state = RunState(folder)  # read again: the other process may have saved more
        listed: dict[str, str] = {}
        for key, record in _open(state).items():
            if key in cancelled:
                continue
            if record["id"] is None:
                listed = listed or _ids(service, run, record["kind"])
            found = record["id"] or listed.get(key)
            if found is not None:
                _cancel(service, record["kind"], found)
                cancelled.add(key)
        # A create that was sent just now may take effect later: look again until it would have.
        unclear = [key for key, record in _open(state).items() if key not in cancelled and record["asked"]]
        if not unclear or time.monotonic() - began > service.settle_seconds:
            return len(cancelled)
        time.sleep(min(service.poll_seconds, 5.0))


def _open(state: RunState) -> dict[str, dict[str, Any]]:
    return {key: record for key, record in state.records.items() if not record["ended"]}


def _ids(service: Service, run: str, kind: str) -> dict[str, str]:
    found = jobs_of(service, run) if kind == "job" else batches_of(service, run)
    return {key: one.id for key, one in found.items()}


def _cancel(service: Service, kind: str, found: str) -> None:
    call = service.client.fine_tuning.jobs.cancel if kind == "job" else service.client.batches.cancel
    try:
        service.read(lambda: call(found), may_lag=True)
        logger.info("%s %s: asked to cancel", kind, found)
    except ProviderError as error:  # it has ended
        logger.info("%s %s: not cancelled: %s", kind, found, error)


def cancel_runs(runs: Sequence[str]) -> int:
    """Cancel the runs with these keys, or all of them if none is given. Returns how many jobs and batches that were.

    Raises ParamsError if there is no such run; see also `cancel_run`.
    """
    chosen = [run_folder(run) for run in runs]
    missing = [folder.name for folder in chosen if not (folder / STATE).exists()]
    if missing:
        raise ParamsError(f"no run {missing[0]} in {state_folder() / RUNS}; `tillmap cancel` without a run cancels all")
    return sum(cancel_run(folder) for folder in chosen or unfinished_runs())
