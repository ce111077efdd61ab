"""Answers questions with a provider's Batch API: splits, sends, follows and collects batches, and resends failed rows.

A run's folder contains the lines that were sent for each batch (`KEY.jsonl`) and, once the batch has ended, the
provider's own files (`KEY.output.jsonl`, `KEY.errors.jsonl`). Which rows are answered, and which must be sent again, is
read from these files alone, so a run can stop at any point.
"""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from openai.types import Batch
from tqdm import tqdm

from tillmap.core.completions import Completion, Question, failed
from tillmap.core.errors import ResourceError
from tillmap.core.files import write_text
from tillmap.providers.batch_files import failure, fetch, is_over_limit, read_lines, reasons
from tillmap.providers.client import ProviderError, Service
from tillmap.providers.costs import TokenCounter
from tillmap.providers.idempotent_create import KEY, RUN, batches_of, create_once, upload
from tillmap.providers.requests import ChatSettings
from tillmap.providers.state import RunState, own_run

logger = logging.getLogger(__name__)

_ENDPOINT: Final = "/v1/chat/completions"
_ENDED = ("completed", "failed", "expired", "cancelled")
_MAX_REFUSALS = 30  # by a full queue, in a row; the pauses between them double, up to an hour
_MAX_LOOKS = 60  # at an ended batch that does not name its output file yet
_MIN_SHARE = 256  # the batch size never falls below the tokens of the first refused batch divided by this


@dataclass(frozen=True)
class Limits:
    """A provider's limits: requests and bytes of one batch, and prompt tokens of all batches under way."""

    requests: int = 50_000
    file_bytes: int = 200 * 10**6
    enqueued_tokens: int = 2_000_000


def answer_by_batch(
    questions: Sequence[Question],
    service: Service,
    chat: ChatSettings,
    *,
    limits: Limits,
    retries: int,
    folder: Path,
    run: str,
) -> list[Completion]:
    """Answer the questions, in order. A question that still fails after `retries` more tries gets an `error`.

    `folder` keeps the run's state, and `run` is its key, which stands for the questions, the model and the settings.
    Batches of this run that the provider already has are taken over. Raises ProviderError if the provider refuses, if a
    batch is cancelled, or if no question is answered. The answers so far are kept for the next run.
    """
    with own_run(folder) as state, service.reading():
        state.set_service(base_url=service.base_url, key_variable=service.key_variable, run=run)
        return _Run(questions, service, chat, limits=limits, tries=1 + retries, state=state).answers()


class _Run:
    def __init__(
        self,
        questions: Sequence[Question],
        service: Service,
        chat: ChatSettings,
        *,
        limits: Limits,
        tries: int,
        state: RunState,
    ) -> None:
        self._questions = {f"{question.split}-{question.id}": question for question in questions}
        self._service, self._chat, self._limits, self._tries, self._state = service, chat, limits, tries, state
        self._name = state.service["run"]
        counter = TokenCounter(chat.model)
        self._tokens = {row: counter.likely_prompt(question.messages) for row, question in self._questions.items()}
        self._bytes = {row: len(self._line(row)) for row in self._questions}
        self._enqueued_tokens = limits.enqueued_tokens
        self._answered: dict[str, Completion] = {}
        self._failures: dict[str, list[str]] = {}
        self._sent: dict[str, list[str]] = {}  # by key, the rows of the batches under way
        self._looks: Counter[str] = Counter()
        self._cancelling: set[str] = set()  # cancelled before this run began, so their end does not stop it
        self._refusals, self._min_tokens, self._resume_at = 0, 0, 0.0

    def answers(self) -> list[Completion]:
        self._adopt()
        with tqdm(total=len(self._questions), desc="batches", unit="row", disable=None) as bar:
            while True:
                running = self._refresh()
                bar.n = len(self._answered) + running
                bar.refresh()
                self._submit()
                if not self._sent and not self._waiting():
                    break
                self._service.pause()
        answers = [
            self._answered.get(row) or failed(question, self._failures[row][-1])
            for row, question in self._questions.items()
        ]
        if answers and all(answer.status == "error" for answer in answers):
            first = answers[0].error
            raise ProviderError(f"no question was answered ({first}); fix the cause and run again")
        return answers

    def _adopt(self) -> None:
        """Take over the batches of earlier runs, whether they are recorded here or only known to the provider."""
        for key, batch in batches_of(self._service, self._name).items():
            if not self._file(key).exists():
                fetch(self._service, batch.input_file_id, self._file(key))
            self._state.update(key, kind="batch", id=batch.id)
        for key, record in list(self._state.records.items()):
            if not self._file(key).exists():
                raise ResourceError(
                    f"{self._state.folder} lacks {self._file(key).name}; delete the whole folder and run again: "
                    "the batches at the provider are found without it"
                )
            if record["ended"]:
                self._collect(key)
            else:
                self._sent[key] = self._rows(key)
                if record["id"] is None:
                    self._create(key)
        self._refresh(starting=True)
        if not self._sent and not self._waiting():
            self._failures.clear()  # the earlier run had ended; this one asks its failed rows again

    def _refresh(self, starting: bool = False) -> int:
        """Look at the batches under way and collect the ended ones. Returns the number of lines done in the others."""
        done = 0
        for key in list(self._sent):
            batch = self._service.read(
                partial(self._service.client.batches.retrieve, self._state.records[key]["id"]), may_lag=True
            )
            if starting and batch.status in ("cancelling", "cancelled"):
                self._cancelling.add(key)
            if batch.status in _ENDED and not self._owes_output(batch):
                self._end(key, batch)
            elif batch.request_counts:
                done += batch.request_counts.completed
        if self._state.is_cancelled:
            raise ProviderError("the run was cancelled; its answers are kept: run again to ask the rest")
        return done

    def _end(self, key: str, batch: Batch) -> None:
        refused = is_over_limit(batch)
        for file_id, kind in ((batch.output_file_id, "output"), (batch.error_file_id, "errors")):
            if file_id and not self._file(key, kind).exists():
                fetch(self._service, file_id, self._file(key, kind))
        rows = self._sent.pop(key)
        said = {} if refused else {row: self._service.redact(why) for row, why in reasons(batch, rows).items()}
        self._state.update(key, ended=batch.status, refused=refused, reasons=said)
        self._collect(key)
        if refused:
            self._hold(rows)
        elif batch.status != "failed":
            self._refusals, self._resume_at = 0, 0.0
            self._enqueued_tokens = min(2 * self._enqueued_tokens, self._limits.enqueued_tokens)
        if batch.status == "cancelled" and key not in self._cancelling:
            raise ProviderError(f"the batch {batch.id} was cancelled; its answers are kept: run again to ask the rest")

    def _owes_output(self, batch: Batch) -> bool:
        """Whether an ended batch has answers but does not name their file yet. Without answers it never names one."""
        counts = batch.request_counts
        owes = bool(not batch.output_file_id and counts and counts.completed)
        self._looks[batch.id] += owes
        if self._looks[batch.id] > _MAX_LOOKS:
            raise ProviderError(f"the batch {batch.id} has ended but names no output file; run again later")
        return owes

    def _hold(self, rows: list[str]) -> None:
        """Halve the batch size after a full queue, and wait until one of our batches has ended or a pause is over."""
        self._refusals += 1
        if self._refusals > _MAX_REFUSALS:
            raise ProviderError("the provider's queue stays full; run again later, or lower provider.enqueued_tokens")
        tokens = sum(self._tokens.get(row, 0) for row in rows)
        if self._refusals == 1:
            self._min_tokens = tokens // _MIN_SHARE
        self._enqueued_tokens = max(self._min_tokens, min(self._enqueued_tokens, tokens) // 2)
        wait = min(self._service.poll_seconds * 2**self._refusals, 3600.0)
        self._resume_at = time.monotonic() + wait
        logger.info("the queue is full; sending at most %d tokens at once from now on", self._enqueued_tokens)

    def _submit(self) -> None:
        while time.monotonic() >= self._resume_at:
            rows = self._next_rows()
            if not rows:
                return
            content = "".join(self._line(row) for row in rows)
            key = f"{self._name}-{len(self._state.records)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
            write_text(content, self._file(key))
            self._state.update(key, kind="batch")
            self._sent[key] = rows
            self._create(key)

    def _create(self, key: str) -> None:
        file = upload(self._service, self._file(key), key, "batch")
        create_once(
            self._service,
            self._state,
            key,
            lambda: batches_of(self._service, self._name).get(key),
            lambda: self._service.once.batches.create(
                input_file_id=file,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={RUN: self._name, KEY: key},
            ),
        )

    def _waiting(self) -> list[str]:
        """The rows to send: not under way, not answered, and with tries left."""
        under_way = {row for rows in self._sent.values() for row in rows}
        return [
            row
            for row in self._questions
            if row not in self._answered and row not in under_way and len(self._failures.get(row, ())) < self._tries
        ]

    def _next_rows(self) -> list[str]:
        """The rows of the next batch; none while the batches under way leave no room for it."""
        queued = sum(self._tokens.get(row, 0) for rows in self._sent.values() for row in rows)
        rows: list[str] = []
        tokens = size = 0
        for row in self._waiting():
            tokens += self._tokens[row]
            size += self._bytes[row]
            full = len(rows) == self._limits.requests or size > self._limits.file_bytes
            if rows and (full or tokens > self._enqueued_tokens):
                tokens -= self._tokens[row]
                break
            rows.append(row)
        return [] if self._sent and queued + tokens > self._enqueued_tokens else rows

    def _line(self, row: str) -> str:
        body = self._chat.body(self._questions[row])
        line = {"custom_id": row, "method": "POST", "url": _ENDPOINT, "body": body}
        return json.dumps(line) + "\n"  # ASCII, so its length is its size in bytes

    def _collect(self, key: str) -> None:
        """Sort the lines of an ended batch into answers and failures, by `custom_id`."""
        record, told = self._state.records[key], {}
        for line in [*read_lines(self._file(key, "output")), *read_lines(self._file(key, "errors"))]:
            row, why = line.get("custom_id"), failure(line)
            if row in self._questions and why is None:
                completion = self._chat.completion(self._questions[row], line["response"].get("body") or {})
                self._answered.setdefault(row, completion)  # paid for, so never sent again, even if it is useless
            elif row in self._questions:
                told[row] = self._service.redact(str(why))
        if record.get("refused") or record["ended"] == "cancelled":
            return  # its rows did not fail
        said = record.get("reasons", {})
        at_fault = said.keys() - {""}
        for row in self._rows(key):
            if row in at_fault:  # the provider would refuse this line every time
                self._failures[row] = [said[row]] * self._tries
            elif row not in self._answered and not at_fault:
                why = told.get(row) or said.get("") or f"no answer in a batch that ended as {record['ended']}"
                self._failures.setdefault(row, []).append(why)

    def _rows(self, key: str) -> list[str]:
        return [line["custom_id"] for line in read_lines(self._file(key))]

    def _file(self, key: str, kind: str = "") -> Path:
        return self._state.folder / (f"{key}.{kind}.jsonl" if kind else f"{key}.jsonl")
