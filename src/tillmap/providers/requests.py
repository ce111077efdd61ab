"""One chat request and its response, the same for a line of a batch and a call to a server."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tillmap.core.completions import Completion, Question, failed, finished
from tillmap.core.errors import ParamsError
from tillmap.llm.interface.generation import Generation

Constraint = Literal["off", "structured_outputs", "json_schema"]

# https://developers.openai.com/api/docs/guides/structured-outputs: an enum has at most 1,000 values, and if it has more
# than 250, at most 15,000 letters in all.
_MAX_VALUES, _MANY_VALUES, _MAX_LETTERS = 1000, 250, 15_000
_MAX_TOKENS = 2**31  # of one answer; more is no count


@dataclass(frozen=True)
class ChatSettings:
    """How a model is asked.

    Attributes:
        model: the provider's name of the model.
        generation: length and sampling of the answers.
        stop: texts that end an answer.
        logprobs: whether to ask for log probabilities.
        constraint: how to restrict a question to its allowed answers: `structured_outputs` is vLLM's own field,
            `json_schema` OpenAI's.
        more: fields added to every request. None removes a field, for models that do not accept `stop`, `temperature`
            or `logprobs`. A text that `stop` would have ended is cut here.
    """

    model: str
    generation: Generation
    stop: tuple[str, ...] = ()
    logprobs: bool = True
    constraint: Constraint = "off"
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer_tokens(self) -> int:
        """The most tokens of an answer. Raises ParamsError if `more` leaves no field that limits them."""
        limits = {"max_completion_tokens": self.generation.max_new_tokens, **self.more}
        found = [limits[name] for name in ("max_completion_tokens", "max_tokens") if limits.get(name) is not None]
        if not found:
            raise ParamsError(
                "the arm's `request` removes max_completion_tokens; add max_tokens, which limits an answer, too"
            )
        return int(max(found))

    def body(self, question: Question) -> dict[str, Any]:
        """The JSON body of a request. Raises ParamsError if a question has too many allowed answers for a schema."""
        drawn = self.generation.temperature > 0
        body: dict[str, Any] = {
            "model": self.model,
            "messages": question.messages,
            "max_completion_tokens": self.generation.max_new_tokens,
            "temperature": self.generation.temperature,
            "stop": list(self.stop) or None,
            "seed": self.generation.seed_for(question) if drawn else None,
            "logprobs": self.logprobs or None,
            **self._constrained(self.generation.allowed(question)),
            **self.more,
        }
        return {name: value for name, value in body.items() if value is not None}

    def completion(self, question: Question, response: Mapping[str, Any]) -> Completion:
        """Read a response's answer and its token counts; a malformed response gives an `error`."""
        try:
            choice = response["choices"][0]
            message, usage = choice["message"], response.get("usage") or {}
            text = message.get("content") or ""
            if self.constraint == "json_schema" and self.generation.allowed(question) and text:
                text = json.loads(text)["answer"]
            elif self.more.get("stop", self.stop) is None:
                for stop in self.stop:
                    text = text.lstrip().partition(stop)[0]
            if not text and message.get("refusal"):
                return failed(question, f"refused: {message['refusal']}"[:500])
            details = usage.get("prompt_tokens_details") or {}
            return finished(
                question,
                text,
                logprob=_logprob(choice),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                cached_tokens=_count(details.get("cached_tokens")),
                cache_write_tokens=_count(details.get("cache_write_tokens")),
                completion_tokens=_count(usage.get("completion_tokens")),
            )
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            return failed(question, f"not a chat completion: {type(error).__name__} {error}"[:500])

    def schema(self, question: Question) -> str:
        """The part of a request beside the messages that is billed as part of the prompt; empty if there is none."""
        told = self._constrained(self.generation.allowed(question)).get("response_format")
        return json.dumps(told, ensure_ascii=False) if told else ""

    def _constrained(self, answers: tuple[str, ...] | None) -> dict[str, Any]:
        if not answers or self.constraint == "off":
            return {}
        if self.constraint == "structured_outputs":
            return {"structured_outputs": {"choice": list(answers)}}
        many = len(answers) > _MANY_VALUES and sum(map(len, answers)) > _MAX_LETTERS
        if len(answers) > _MAX_VALUES or many:
            raise ParamsError(
                f"constraint json_schema: {len(answers)} answers are too many for a schema; "
                "set the arm's `constrain` to retrieved or off"
            )
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": list(answers)}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "labels", "strict": True, "schema": schema},
            }
        }


def _logprob(choice: Mapping[str, Any]) -> float | None:
    """The sum over the tokens; None if the server gives none, or one that is no number."""
    tokens = (choice.get("logprobs") or {}).get("content")
    logprobs = [float(token["logprob"]) for token in tokens or ()]
    return round(math.fsum(logprobs), 4) if logprobs and all(map(math.isfinite, logprobs)) else None


def _count(given: Any) -> int:
    """Tokens; 0 if the server gives none. Raises ValueError or ArithmeticError if it is no count."""
    count = int(given or 0)
    if not 0 <= count <= _MAX_TOKENS:
        raise ValueError(f"{count} tokens")
    return count
