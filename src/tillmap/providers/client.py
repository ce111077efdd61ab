"""A provider with OpenAI's interface: calls that wait out trouble, and errors that say what to do.

Whatever only reads is tried again for as long as it may take. What creates something that costs money is tried once;
`adopting` decides what follows.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import openai

from tillmap.core.errors import ParamsError, TillmapError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRIES = 4  # by the client itself, seconds apart; it heeds Retry-After
_PATIENCE = 60  # failed reads in a row, `poll_seconds` apart, before a run stops; the next one goes on
MIN_LOOKS = 5  # at something just made, however slow they are
_TRANSIENT = (408, 409, 429)


class ProviderError(TillmapError):
    """A provider refuses, fails, or can't be reached."""


class Service:
    """One provider's client with the pauses that its users keep.

    `poll_seconds` lie between two looks at a running job. For `settle_seconds` something just made may not be found.
    """

    def __init__(
        self,
        base_url: str,
        key_variable: str = "OPENAI_API_KEY",
        *,
        poll_seconds: float = 60.0,
        settle_seconds: float = 60.0,
        timeout: float = 120.0,
        retries: int = _RETRIES,
    ) -> None:
        """Connect. Raises ParamsError where the environment has no key."""
        self._key = os.environ.get(key_variable, "").strip()
        if not self._key:
            raise ParamsError(
                f"openai: no key in the environment variable {key_variable}; export one, name another variable in "
                "provider.key_variable, or switch the arm off with `-S run.openai=false`"
            )
        self.base_url, self.key_variable = base_url, key_variable
        self.poll_seconds, self.settle_seconds = poll_seconds, settle_seconds
        self.client = openai.OpenAI(api_key=self._key, base_url=base_url, timeout=timeout, max_retries=retries)
        self.once = self.client.with_options(max_retries=0)

    def pause(self) -> None:
        time.sleep(self.poll_seconds)

    def read(self, call: Callable[[], T], *, may_lag: bool = False) -> T:
        """The result of a call that changes nothing, or does no harm twice.

        With `may_lag` the thing may have been made just now: that it can't be found counts only after
        `settle_seconds`. Raises ProviderError.
        """
        began, failures, looks = time.monotonic(), 0, 0
        while True:
            try:
                return call()
            except openai.APIError as error:
                lags = isinstance(error, openai.NotFoundError) and may_lag
                looks += lags
                in_time = looks < MIN_LOOKS or time.monotonic() - began < self.settle_seconds
                failures += not lags
                if not (lags and in_time) and not (is_passing(error) and failures < _PATIENCE):
                    raise self.explain(error) from error
                logger.info("%s: %s; trying again", self.base_url, type(error).__name__)
            time.sleep(min(self.poll_seconds, 1.0) if lags else self.poll_seconds)

    def explain(self, error: openai.APIError) -> ProviderError:
        """The same failure, with what to do; without the key, should a provider repeat it."""
        said = self.redact(" ".join(error.message.split()))[:300]
        status = getattr(error, "status_code", None)
        if status is None:
            return ProviderError(f"{self.base_url} can't be reached ({said}); what is under way goes on: run again")
        hint = {
            401: f"check the key in {self.key_variable}",
            403: "tuning may be closed to this organisation: set train_openai.tuned_model to a model tuned earlier, or "
            "openai.mode to retrieved",
            404: "check openai.model and provider.base_url",
            429: "check the account's credit and limits, then run again",
        }.get(status, "run again to go on" if status >= 500 else "see docs/openai.md")
        return ProviderError(f"{self.base_url} answered {status}: {said}; {hint}")

    def redact(self, text: str) -> str:
        return text.replace(self._key, "[key]")


def is_passing(error: openai.APIError) -> bool:
    """Whether the same call may succeed later: no connection, overload, or a limit that time lifts."""
    if isinstance(error, openai.APIStatusError):
        spent = error.code == "insufficient_quota"
        return not spent and (error.status_code in _TRANSIENT or error.status_code >= 500)
    return isinstance(error, openai.APIConnectionError)
