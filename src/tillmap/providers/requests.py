"""One chat request and its response, the same for a batch's line and a server's call."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tillmap.core.completions import Completion, Question, failed, finished
from tillmap.core.errors import ParamsError
from tillmap.llm.generation import Generation

Constraint = Literal["off", "structured_outputs", "json_schema"]

# https://developers.openai.com/api/docs/guides/structured-outputs: values of an enum, and their length where many.
_MAX_VALUES, _MANY_VALUES, _MAX_LETTERS = 1000, 250, 15_000


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    `constraint` is how a server is told a question's only answers: vLLM's own `structured_outputs`, or OpenAI's
    `json_schema`. `more` is added to every request as it is; a None in it takes a field away, which a model that
    knows no `stop`, `temperature` or `max_tokens` needs.
    """

    model: str
    generation: Generation
    stop: tuple[str, ...] = ()
    logprobs: bool = True
    constraint: Constraint = "off"
    more: Mapping[str, Any] = field(default_factory=dict)

    def body(self, question: Question) -> dict[str, Any]:
        """The JSON body of a request. Raises ParamsError where a schema cannot hold the question's answers."""
        drawn = self.generation.temperature > 0
        body: dict[str, Any] = {
            "model": self.model,
            "messages": question.messages,
            "max_tokens": self.generation.max_new_tokens,
            "temperature": self.generation.temperature,
            "stop": list(self.stop) or None,
            "seed": self.generation.seed_for(question) if drawn else None,
            "logprobs": self.logprobs or None,
            **self._constrained(self.generation.allowed(question)),
            **self.more,
        }
        return {name: value for name, value in body.items() if value is not None}

    def completion(self, question: Question, response: Mapping[str, Any]) -> Completion:
        """A response's answer with its counts; an `error` where it is none."""
        try:
            choice = response["choices"][0]
            message, usage = choice["message"], response.get("usage") or {}
            text = message.get("content") or ""
            if self.constraint == "json_schema" and self.generation.allowed(question) and text:
                text = json.loads(text)["answer"]
            if not text and message.get("refusal"):
                return failed(question, f"refused: {message['refusal']}"[:500])
            details = usage.get("prompt_tokens_details") or {}
            return finished(
                question,
                text,
                logprob=_logprob(choice),
                prompt_tokens=int(usage.get("prompt_tokens") or 0),
                cached_tokens=int(details.get("cached_tokens") or 0),
                completion_tokens=int(usage.get("completion_tokens") or 0),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return failed(question, f"not a chat completion: {type(error).__name__} {error}"[:500])

    def _constrained(self, answers: tuple[str, ...] | None) -> dict[str, Any]:
        if not answers or self.constraint == "off":
            return {}
        if self.constraint == "structured_outputs":
            return {"structured_outputs": {"choice": list(answers)}}
        many = len(answers) > _MANY_VALUES and sum(map(len, answers)) > _MAX_LETTERS
        if len(answers) > _MAX_VALUES or many:
            raise ParamsError(
                f"openai.constraint json_schema: {len(answers)} answers are too many for a schema; "
                "set openai.constrain to retrieved or off"
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
    tokens = (choice.get("logprobs") or {}).get("content")
    return round(math.fsum(token["logprob"] for token in tokens), 4) if tokens else None
