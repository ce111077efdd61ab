"""Any server with OpenAI's chat interface, with many requests at once: vLLM serve, TGI, SGLang, llama.cpp."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import openai
from pyrate_limiter import InMemoryBucket, Limiter, Rate

from tillmap.core.completions import Completion, Question, failed
from tillmap.core.errors import first_line
from tillmap.providers.client import Service, field_hint, is_passing
from tillmap.providers.requests import ChatSettings

# Bad request, too large, unprocessable: errors of one question. Any other refusal is about the key, the model or the
# address, so every question would get it.
_OF_THE_QUESTION = (400, 413, 422)


class ServerEngine:
    """A model behind a server. The client retries overload and lost connections, with growing pauses."""

    def __init__(
        self, service: Service, chat: ChatSettings, *, concurrency: int = 16, requests_a_minute: float | None = None
    ) -> None:
        """Send at most `concurrency` requests at once, and at most `requests_a_minute`, evenly spaced (None: any)."""
        self._service, self._chat, self._concurrency = service, chat, concurrency
        self._limiter: Limiter | None = None
        if requests_a_minute:
            milliseconds = math.ceil(60_000 / requests_a_minute)
            # Without a buffer, which would add 50 ms to every pause.
            self._limiter = Limiter(InMemoryBucket([Rate(1, milliseconds)]), buffer_ms=0)

    def answer(self, questions: Sequence[Question]) -> list[Completion]:
        """Answer the questions, in order. A question that the server cannot answer gets an `error`.

        Raises ProviderError if the server refuses the key, the model, the address or a field of the requests.
        """
        with ThreadPoolExecutor(self._concurrency) as pool:
            return list(pool.map(self._ask, questions))

    def _ask(self, question: Question) -> Completion:
        if self._limiter:
            self._limiter.try_acquire()
        # Raw JSON: the client's typed method only knows OpenAI's fields, not for example `structured_outputs`.
        body = self._chat.body(question)
        try:
            response = self._service.client.post("/chat/completions", body=body, cast_to=object)
        except openai.APIError as error:
            told = self._service.explain(error)
            of_every_question = field_hint(error.code, error.param)
            if is_passing(error) or (getattr(error, "status_code", None) in _OF_THE_QUESTION and not of_every_question):
                return failed(question, str(told)[:500])
            raise told from error
        except (ValueError, RecursionError) as error:  # no JSON, of a server that says that it is
            return failed(question, f"not a chat completion: {first_line(error)}")
        return self._chat.completion(question, response if isinstance(response, dict) else {})
