"""Any server with OpenAI's chat interface, asked many questions at once: vLLM serve, TGI, SGLang, llama.cpp."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import openai

from tillmap.core.completions import Completion, Question, failed
from tillmap.providers.client import Service, is_passing
from tillmap.providers.requests import Asking

# Refusals of one question; any other refusal is of the key, the model or the address, and so of every question.
_OF_THE_QUESTION = (400, 413, 422)


class ServerEngine:
    """A model behind a server. Overload and lost connections are tried again by the client, later each time."""

    def __init__(
        self, service: Service, asking: Asking, *, concurrency: int = 16, requests_a_minute: float | None = None
    ) -> None:
        """At most `concurrency` questions are under way at once, and no more a minute than `requests_a_minute`."""
        self._service, self._asking, self._concurrency = service, asking, concurrency
        self._pace = _Pace(60.0 / requests_a_minute if requests_a_minute else 0.0)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """One completion for each question, in order; one the server can't answer gets an `error`.

        Raises ProviderError where the server refuses the key, the model or the address.
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(self._ask, questions))

    def _ask(self, question: Question) -> Completion:
        self._pace.wait()
        # As raw JSON: the client's own method knows only OpenAI's fields, and a server may have others.
        body = self._asking.body(question)
        try:
            response = self._service.client.post("/chat/completions", body=body, cast_to=object)
        except openai.APIError as error:
            told = self._service.explain(error)
            if is_passing(error) or getattr(error, "status_code", None) in _OF_THE_QUESTION:
                return failed(question, str(told)[:500])
            raise told from error
        return self._asking.completion(question, response if isinstance(response, dict) else {})


class _Pace:
    """Lets callers through one by one, `seconds` apart."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next, self._lock = seconds, 0.0, threading.Lock()

    def wait(self) -> None:
        if not self._seconds:
            return
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + self._seconds
        time.sleep(max(0.0, start - time.monotonic()))
