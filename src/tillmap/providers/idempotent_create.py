"""Creates files, jobs and batches at a provider once, or takes over those that an earlier run created.

Jobs and batches carry the run's key and their own as metadata; files carry a key in their names.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import openai
from openai.types import Batch, FileObject
from openai.types.fine_tuning import FineTuningJob

from tillmap.providers.client import MIN_LOOKS, ProviderError, Service, is_passing
from tillmap.providers.state import RunState

logger = logging.getLogger(__name__)

T = TypeVar("T", Batch, FineTuningJob)

RUN, KEY = "tillmap_run", "tillmap_key"
_MAX_TRIES = 10


def batches_of(service: Service, run: str) -> dict[str, Batch]:
    """The run's batches at the provider by key, oldest first."""
    return _keyed(service.read(lambda: list(service.client.batches.list(limit=100))), run)


def jobs_of(service: Service, run: str) -> dict[str, FineTuningJob]:
    """The run's tuning jobs at the provider by key, oldest first."""
    return _keyed(service.read(lambda: list(service.client.fine_tuning.jobs.list(limit=100))), run)


def _keyed(listed: list[T], run: str) -> dict[str, T]:
    keyed: dict[str, T] = {}
    for one in sorted(listed, key=lambda one: one.created_at):
        marks = one.metadata or {}
        if marks.get(RUN) == run and KEY in marks:
            keyed.setdefault(marks[KEY], one)
    return keyed


def upload(service: Service, path: Path, key: str, purpose: Literal["batch", "fine-tune"]) -> str:
    """Upload a file unless the provider has it. Returns its id; raises ProviderError."""
    name, content = f"tillmap-{key}.jsonl", path.read_bytes()
    files = service.read(lambda: list(service.client.files.list(purpose=purpose)))
    same = [file for file in files if (file.filename, file.bytes) == (name, len(content)) and file.status != "error"]
    file = same[0] if same else service.read(lambda: service.client.files.create(file=(name, content), purpose=purpose))
    return _await_file(service, file).id


def _await_file(service: Service, file: FileObject) -> FileObject:
    """Wait for a file that was just uploaded: at first it may not be found, or still be processed."""
    began = time.monotonic()
    while True:
        found = service.read(lambda: service.client.files.retrieve(file.id), may_lag=True)
        if found.status == "error":
            raise ProviderError(f"{service.base_url} rejects the file {file.filename}: {found.status_details}")
        if found.status in ("uploaded", "processed") or time.monotonic() - began > service.settle_seconds:
            return found
        service.pause()


def create_once(
    service: Service, state: RunState, key: str, find: Callable[[], T | None], create: Callable[[], T]
) -> T:
    """Return the job or batch with this key: found at the provider, or created there.

    A create whose outcome is unclear (no response, or the process was killed) may have succeeded. So this looks for the
    result for `settle_seconds` before it creates another. Raises ProviderError.
    """
    found = _look(service, find, tried=state.records[key]["asked"] is not None)
    for _ in range(_MAX_TRIES):
        if found is not None:
            state.update(key, id=found.id)
            return found
        state.update(key, asked=time.time())
        try:
            found = create()
        except openai.APIError as error:
            failure = error
            if misses_file(error):
                state.update(key, asked=None)
                service.pause()
            elif is_passing(error):
                logger.info(
                    "%s: unclear whether %s was created (%s); looking", service.base_url, key, type(error).__name__
                )
                _wait_as_told(error)
                found = _look(service, find, tried=state.records[key]["asked"] is not None)
            else:
                state.update(key, asked=None)
                raise service.explain(error) from error
    raise service.explain(failure)


def _look(service: Service, find: Callable[[], T | None], tried: bool) -> T | None:
    """Look once, or if the creation was tried, for `settle_seconds`, after which it would be found.

    They are counted from now on. The time of the try is known, but the clock may have been put forward since: what
    costs money would be created again.
    """
    began, looks = time.monotonic(), 0
    while True:
        over = not tried or (looks + 1 >= MIN_LOOKS and time.monotonic() - began > service.settle_seconds)
        found = find()
        looks += 1
        if found is not None or over:
            return found
        time.sleep(min(service.poll_seconds, 5.0))


def misses_file(error: openai.APIError) -> bool:
    """Whether a request failed because not all of the provider's servers know the uploaded file yet."""
    said = error.message.lower()
    return (
        isinstance(error, openai.BadRequestError | openai.NotFoundError)
        and "file" in said
        and any(words in said for words in ("not found", "find", "does not exist", "no such"))
    )


def _wait_as_told(error: openai.APIError) -> None:
    """Wait for the seconds of Retry-After, 10 minutes at most."""
    told = error.response.headers.get("retry-after", "") if isinstance(error, openai.APIStatusError) else ""
    if told.isdecimal():
        time.sleep(min(float(told), 600))
