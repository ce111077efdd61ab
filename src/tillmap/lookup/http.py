"""Descriptions from a search API over HTTP: one GET request a text, answered with JSON.

An answer may be anything: it is read up to a size and a time, must be JSON, and redirects are not followed.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from tillmap.core.errors import ParamsError, ResourceError
from tillmap.lookup.base import Found, LookupFailedError, Source, cleaned

log = logging.getLogger(__name__)

MAX_BYTES = 2**20  # of an answer
_TRIES = 3  # of a request, while the server has passing trouble
_MAX_WAIT = 60.0  # seconds that a server may ask to wait
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_IN_A_ROW = 5  # failed texts, after which the run stops


@dataclass(frozen=True)
class SearchApi:
    """How an API is asked.

    Attributes:
        url: its address, without the query.
        query: the name of the parameter with the text.
        field: where the description is in the answer: `results.0.snippet` is the first of `results`, there `snippet`.
        key_variable: the environment variable with the key; None for an API without one.
        key_header: the header that carries the key, as it is.
        timeout: seconds until an answer must be complete.
        requests_a_minute: at most; None for no limit.
        usd_per_request: its price, also of requests that fail.
        budget_usd: for one run.
    """

    url: str
    query: str
    field: str
    key_variable: str | None = None
    key_header: str = "Authorization"
    timeout: float = 10.0
    requests_a_minute: float | None = None
    usd_per_request: float = 0.0
    budget_usd: float = 0.0


class HttpSource(Source):
    """A search API. It is asked one text after the other."""

    def __init__(self, api: SearchApi, *, most: int = 200, retry_seconds: float = 1.0) -> None:
        """Nothing is sent. `most` characters are kept. Raises ParamsError if the environment has no key."""
        self.key = f"{api.url}?{api.query} {api.field}"
        self._api, self._most, self._retry_seconds = api, most, retry_seconds
        self._secret = os.environ.get(api.key_variable, "").strip() if api.key_variable else ""
        if api.key_variable and not self._secret:
            raise ParamsError(
                f"no key in the environment variable {api.key_variable}; export one, name another variable in "
                "context.http.key_variable, or set context.provider to none"
            )
        self._sent = 0
        self._next = 0.0  # when the next request may be sent

    def find(self, texts: Iterable[str]) -> Iterator[tuple[str, Found]]:
        """See `Source.find`. A text whose answer cannot be used is left out, and asked again by the next run."""
        todo = list(texts)
        self._require_budget(len(todo))
        failed = 0
        headers = {"Accept": "application/json"} | ({self._api.key_header: self._secret} if self._secret else {})
        with httpx.Client(headers=headers, follow_redirects=False, timeout=self._api.timeout) as client:
            for text in tqdm(todo, desc="descriptions", unit="text", leave=None, disable=None):
                before = self._sent
                try:
                    about = self._ask(client, text)
                except _UnusableError as error:
                    failed += 1
                    log.warning("context: nothing usable about %r: %s", text, error)
                    if failed == _IN_A_ROW:
                        raise LookupFailedError(
                            f"{self._host}: {failed} failures in a row, the last one: {error}; check `context.http`, "
                            "then run again: what was found is kept"
                        ) from None
                    continue
                failed = 0
                yield text, Found(about, self._sent - before)

    @property
    def usd(self) -> Decimal:
        """What the requests of this run cost, in unrounded dollars."""
        return self._sent * Decimal(str(self._api.usd_per_request))

    @property
    def _host(self) -> str:
        return urlsplit(self._api.url).netloc

    def _require_budget(self, requests: int) -> None:
        cost = self.usd + requests * Decimal(str(self._api.usd_per_request))
        log.info("context: %d requests to %s, $%.2f if none is repeated", requests, self._host, cost)
        if cost > Decimal(str(self._api.budget_usd)):
            raise ResourceError(
                f"{self._host}: {requests} more requests make ${cost:.2f}, above budget_usd {self._api.budget_usd:.2f};"
                " raise context.http.budget_usd, or ask about fewer rows with run.pilot_rows"
            )

    def _ask(self, client: httpx.Client, text: str) -> str:
        for attempt in range(_TRIES):
            if attempt:
                self._require_budget(1)
            wait = max(0.0, self._next - time.monotonic())
            time.sleep(wait)
            if self._api.requests_a_minute:
                self._next = time.monotonic() + 60 / self._api.requests_a_minute
            self._sent += 1
            try:
                status, body, retry_after = self._read(client, text)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}"
                pause = self._retry_seconds * 2**attempt
            else:
                if status not in _PASSING:
                    return self._described(status, body)
                fault = f"status {status}"
                pause = retry_after or self._retry_seconds * 2**attempt
            if attempt + 1 < _TRIES:
                log.info("context: %s: %s; trying again", self._host, fault)
                time.sleep(min(pause, _MAX_WAIT))
        raise _UnusableError(fault)

    def _read(self, client: httpx.Client, text: str) -> tuple[int, bytes, float]:
        """The status, the body and the seconds to wait. Raises _UnusableError if the body is too long or too slow."""
        deadline = time.monotonic() + self._api.timeout
        with client.stream("GET", self._api.url, params={self._api.query: text}) as answer:
            if answer.is_redirect:
                to = urlsplit(answer.headers.get("location", "")).netloc or "another path"
                raise LookupFailedError(
                    f"{self._host} redirects to {cleaned(to, 100)}, which is not followed, so that the key goes "
                    "nowhere else; set context.http.url to the address that answers"
                )
            body = bytearray()
            for part in answer.iter_bytes(2**14):
                body += part
                if len(body) > MAX_BYTES:
                    raise _UnusableError(f"the answer is longer than {MAX_BYTES:,} bytes")
                if time.monotonic() > deadline:
                    raise _UnusableError(f"the answer took more than {self._api.timeout:g} seconds")
            after = answer.headers.get("retry-after", "")
            return answer.status_code, bytes(body), float(after) if after.isdecimal() else 0.0

    def _described(self, status: int, body: bytes) -> str:
        if status in (401, 403):
            variable = self._api.key_variable or "context.http.key_variable"
            raise LookupFailedError(f"{self._host} answered {status}; check the key in {variable}, then run again")
        if status == 404:
            return ""  # how some APIs say that they know nothing
        if status != 200:
            raise _UnusableError(f"status {status}")
        try:
            value: Any = json.loads(body)
        except (ValueError, RecursionError):
            raise _UnusableError("the answer is not JSON") from None
        for part in self._api.field.split("."):
            if isinstance(value, list) and part.isdecimal():
                value = value[int(part)] if int(part) < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                return ""
        if not isinstance(value, str):
            raise _UnusableError(f"{self._api.field} is no text")
        text = cleaned(value, self._most)
        return text.replace(self._secret, "[key]") if self._secret else text


class _UnusableError(Exception):
    """Why the answer about one text cannot be used."""
