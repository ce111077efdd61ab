"""A provider with OpenAI's interface: calls that are retried, and errors that say what to do.

Calls that only read are retried for up to an hour. A call that creates something that costs money is sent once;
`idempotent_create` decides what to do if its outcome is unclear.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import openai
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_fixed,
)

from tillmap.core.errors import TillmapError, first_line
from tillmap.core.services import connecting, read_key

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RETRIES = 4  # by the openai client itself, seconds apart; it respects Retry-After
_MAX_READS = 60  # failed reads in a row, `poll_seconds` apart, before a run stops; another run resumes it
MIN_LOOKS = 5  # for something just created, even if each look takes longer than `settle_seconds`
_OF_A_FIELD = ("unsupported_parameter", "unsupported_value")
_TRANSIENT = (408, 409, 429)  # request timeout, conflict, too many requests


class ProviderError(TillmapError):
    """A provider refuses a request, fails, or cannot be reached."""


class Service:
    """A provider's client, with the pauses between its calls.

    Attributes:
        poll_seconds: the pause between two looks at a running job.
        settle_seconds: how long something just created may not be found yet.
        client: retries by itself. once: does not, for calls that create something that costs money.
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
        """Make the clients; nothing is sent.

        Raises ParamsError if the environment has no sound key, or the address, a proxy or a certificate is none.
        """
        self._key = read_key(
            key_variable, "name another variable in provider.key_variable, or switch off the arm that needs it"
        )
        self.base_url, self.key_variable = base_url, key_variable
        self.poll_seconds, self.settle_seconds = poll_seconds, settle_seconds
        with connecting(base_url, "provider.base_url"):
            self.client = openai.OpenAI(api_key=self._key, base_url=base_url, timeout=timeout, max_retries=retries)
        self.once = self.client.with_options(max_retries=0)

    def pause(self) -> None:
        time.sleep(self.poll_seconds)

    def read(self, call: Callable[[], T], *, may_lag: bool = False) -> T:
        """Call, and retry while the provider has passing trouble. The call must be harmless if repeated.

        With `may_lag`, the thing may have been created just now: "not found" is retried for `settle_seconds`. Raises
        ProviderError.
        """
        through_trouble = Retrying(
            retry=retry_if_exception(is_passing),
            stop=stop_after_attempt(_MAX_READS),
            wait=wait_fixed(self.poll_seconds),
            before_sleep=self._log_retry,
            reraise=True,
        )
        until_found = Retrying(
            retry=retry_if_exception_type(openai.NotFoundError),
            stop=stop_after_attempt(MIN_LOOKS) & stop_after_delay(self.settle_seconds),
            wait=wait_fixed(min(self.poll_seconds, 1.0)),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            return until_found(through_trouble, call) if may_lag else through_trouble(call)
        except openai.APIError as error:
            raise self.explain(error) from error

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        logger.info("%s: %s; trying again", self.base_url, type(error).__name__)

    def explain(self, error: openai.APIError) -> ProviderError:
        """Turn an error into one that says what to do. The key is removed, in case the provider repeats it."""
        said = self.redact(" ".join(error.message.split()))[:300]
        status = getattr(error, "status_code", None)
        if status is None:
            return ProviderError(f"{self.base_url} can't be reached ({said}); what is under way goes on: run again")
        hint = field_hint(error.code, error.param) or {
            401: f"check the key in {self.key_variable}",
            403: "this key may not use this model: check the arm's `model` and the key's permissions",
            404: "check the arm's `model` and provider.base_url",
            429: "check the account's credit and limits, then run again",
        }.get(status, "run again to continue" if status >= 500 else "see docs/openai.md")
        return ProviderError(f"{self.base_url} answered {status}: {said}; {hint}")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise ProviderError where a block cannot make sense of what the provider answered.

        The openai client makes objects of any JSON, whatever the types in it, and fails in its own ways if it is none.
        """
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            said = self.redact(f"{type(error).__name__}: {first_line(error)}")
            raise ProviderError(
                f"{self.base_url} answered what cannot be read ({said}); check provider.base_url, and run again: what "
                "is under way goes on"
            ) from error

    def redact(self, text: str) -> str:
        """Replace the key, for texts that are logged or saved."""
        return text.replace(self._key, "[key]")


def field_hint(code: str | None, field: str | None) -> str | None:
    """What to do if the model does not accept a field of the request; None if an error is about something else."""
    if field and code in _OF_A_FIELD:
        return f"the model does not take this: `request: {{{field}: null}}` in the arm's params leaves it out"
    return None


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later: no connection, an overloaded server, or a rate limit."""
    if isinstance(error, openai.APIStatusError):
        spent = error.code == "insufficient_quota"  # a 429, too, but waiting does not help
        return not spent and (error.status_code in _TRANSIENT or error.status_code >= 500)
    return isinstance(error, openai.APIConnectionError)
