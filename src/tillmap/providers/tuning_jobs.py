"""A supervised tuning job: uploads the examples, creates the job once and follows it to its end."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.job_create_params import Method
from tqdm import tqdm

from tillmap.providers.client import ProviderError, Service
from tillmap.providers.idempotent_create import KEY, RUN, create_once, jobs_of, misses_file, upload
from tillmap.providers.state import RunState, own_run

logger = logging.getLogger(__name__)

_ENDED = ("succeeded", "failed", "cancelled")
_MAX_SEED = 2**31  # exclusive; the API's bound


@dataclass(frozen=True)
class Tuning:
    """What to tune, and how. None means the provider's default; `suffix` becomes part of the model's name."""

    model: str
    suffix: str
    seed: int
    epochs: int
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None

    def method(self) -> Method:
        chosen = {
            "n_epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
        }
        hyperparameters = {name: value for name, value in chosen.items() if value is not None}
        return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}  # type: ignore[typeddict-item]


def tune(service: Service, examples: Path, tuning: Tuning, folder: Path, run: str) -> dict[str, Any]:
    """Tune a model on checked examples, and wait for it, for hours if necessary.

    `folder` keeps the run's state, and `run` is its key, which stands for the examples, the model and the settings. A
    job of this run that is under way or done is taken over; after a failed or cancelled job, another one is created.

    Returns `job` (its id), `model` (the tuned model's name) and `trained_tokens` (None if the provider does not say).
    Raises ProviderError if the provider refuses (with the alternatives, if it does not tune this model for this
    organisation), or if the job fails or is cancelled.
    """
    with own_run(folder) as state, service.reading():
        state.set_service(base_url=service.base_url, key_variable=service.key_variable, run=run)
        try:
            jobs = jobs_of(service, run)
            lost = [key for key, job in jobs.items() if job.status in ("failed", "cancelled")]
            going = [job for key, job in jobs.items() if key not in lost]
            key = f"{run}-{len(lost)}"
            job = going[0] if going else _create(service, state, examples, tuning, key)
        except ProviderError as error:
            if not _is_closed(error.__cause__):
                raise
            raise ProviderError(
                f"{str(error).rpartition('; ')[0]}. {tuning.model} can't be tuned with this key, and nothing was paid: "
                "ask an untuned model (`tillmap profile openai` sets `mode` to retrieved), or name a model tuned "
                "earlier in train_openai.tuned_model"
            ) from error
        key = (job.metadata or {}).get(KEY, key)
        state.update(key, kind="job", id=job.id)
        return _follow(service, state, key, job)


def _is_closed(error: BaseException | None) -> bool:
    """Whether a provider refused to tune at all, or to tune this model: by permission, or as if there were no such."""
    if not isinstance(error, openai.APIStatusError):
        return False
    refused = error.status_code in (403, 404) and not misses_file(error)
    return refused or error.code in ("model_not_available", "training_not_available")


def _create(service: Service, state: RunState, examples: Path, tuning: Tuning, key: str) -> FineTuningJob:
    run = state.service["run"]
    state.update(key, kind="job")
    file = upload(service, examples, run, "fine-tune")
    return create_once(
        service,
        state,
        key,
        lambda: jobs_of(service, run).get(key),
        lambda: service.once.fine_tuning.jobs.create(
            model=tuning.model,
            training_file=file,
            method=tuning.method(),
            seed=tuning.seed % _MAX_SEED,
            suffix=tuning.suffix,
            metadata={RUN: run, KEY: key},
        ),
    )


def _follow(service: Service, state: RunState, key: str, job: FineTuningJob) -> dict[str, Any]:
    seen: set[str] = set()
    named, job_id = 0, job.id
    with tqdm(desc=f"tuning {job.model}", unit="step", disable=None) as bar:
        while True:
            _show_events(service, job_id, seen, bar)
            bar.set_postfix_str(job.status)
            # A job may succeed a look or two before the name of its model is there.
            if job.status in _ENDED and (job.status != "succeeded" or job.fine_tuned_model or named > 2):
                break
            named += job.status == "succeeded"
            if state.is_cancelled:
                raise ProviderError(f"the job {job.id} is being cancelled; run again to create another")
            service.pause()
            job = service.read(lambda: service.client.fine_tuning.jobs.retrieve(job_id), may_lag=True)
    state.update(key, ended=job.status)
    if job.status != "succeeded" or not job.fine_tuned_model:
        why = service.redact(job.error.message) if job.error and job.error.message else "no reason given"
        raise ProviderError(f"the job {job.id} ended as {job.status}: {why}; fix the cause and run again for a new job")
    return {"job": job.id, "model": job.fine_tuned_model, "trained_tokens": job.trained_tokens}


def _show_events(service: Service, job: str, seen: set[str], bar: "tqdm[Any]") -> None:
    page = service.read(lambda: service.client.fine_tuning.jobs.list_events(job, limit=100), may_lag=True)
    for event in reversed(page.data):
        if event.id in seen:
            continue
        seen.add(event.id)
        data = event.data if isinstance(event.data, dict) else {}
        if event.type == "metrics" and "step" in data:
            bar.total = data.get("total_steps", bar.total)
            bar.update(int(data["step"]) - bar.n)
        else:
            logger.info("tuning: %s", service.redact(event.message))
