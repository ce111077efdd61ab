"""Conversations as a model's own text: its chat template, without a thinking mode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tillmap.core.completions import Message
from tillmap.core.errors import ModelError, model_errors

_DATE = "26 Jul 2024"  # which Llama 3.1 takes without one
_PROBE: list[Message] = [{"role": "system", "content": "Label."}, {"role": "user", "content": "oat milk 1 l"}]


def chat_text(tokenizer: Any, messages: Sequence[Message], *, ask: bool) -> str:
    """The messages in the tokenizer's chat template, with its BOS; `ask` adds the start of the answer.

    Models that may think before they answer, such as Qwen3, are told not to: an answer here is a few tokens, and
    training shows no thoughts. Models that are told the date, such as Llama 3.2, are always told the same one, so that
    an answer does not depend on the day. Other templates ignore both.
    """
    return str(
        tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=ask, tokenize=False, enable_thinking=False, date_string=_DATE
        )
    )


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint's files; no code is run. Raises ModelError if it cannot be loaded."""
    from transformers import AutoTokenizer

    with model_errors(f"{folder}: the tokenizer cannot be loaded", "use another base"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def check_chat(folder: Path) -> None:
    """Raise ModelError unless a checkpoint's tokenizer has a chat template that takes a system and a user message.

    It must name the token that ends an answer, too.
    """
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{folder}: the tokenizer has no chat template; use the model's variant for instructions (Instruct, chat)"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{folder}: the tokenizer names no token that ends an answer (eos_token); use another base")
    with model_errors(f"{folder}: the chat template takes no system and user message", "use another base"):
        text = chat_text(tokenizer, _PROBE, ask=True)
    if _PROBE[-1]["content"] not in text:
        raise ModelError(f"{folder}: the chat template leaves out what the user says; use another base")
