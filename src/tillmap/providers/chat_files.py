"""Checks a provider's training examples (JSON Lines) before anything is sent."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tillmap.core.errors import InputError
from tillmap.core.files import read_jsonl
from tillmap.providers.costs import TokenCounter

# https://developers.openai.com/api/docs/guides/supervised-fine-tuning. The maximum tokens are those of
# gpt-4o-mini-2024-07-18; the provider cuts longer examples, answers included, without an error.
MIN_EXAMPLES = 10
MAX_EXAMPLE_TOKENS = 65_536
MAX_FILE_BYTES = 512 * 10**6

_ROLES = ("system", "user", "assistant")


def check_examples(path: Path, counter: TokenCounter) -> tuple[int, int]:
    """Check training examples, one line `{"messages": [...]}` each. Returns their number and their tokens in one epoch.

    An example is an optional system message, then user and assistant messages in turn, ending with the assistant's.
    No message is empty. Raises InputError that names the first wrong line.
    """
    examples = tokens = 0
    for number, messages in _read(path):
        wrong = _mistake(messages)
        if wrong:
            raise InputError(f"{path}:{number}: {wrong}; write the examples again with `dvc repro prompts`")
        length = counter.example(messages)
        if length > MAX_EXAMPLE_TOKENS:
            raise InputError(f"{path}:{number}: the example has {length} tokens; shorten it to {MAX_EXAMPLE_TOKENS}")
        examples, tokens = examples + 1, tokens + length
    if examples < MIN_EXAMPLES:
        raise InputError(f"{path}: {examples} examples; a provider requires at least {MIN_EXAMPLES}: add rows")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: larger than {MAX_FILE_BYTES // 10**6} MB; lower the arm's `sample_rows`")
    return examples, tokens


def _read(path: Path) -> Iterator[tuple[int, Any]]:
    for number, record in enumerate(read_jsonl(path), 1):
        yield number, record["messages"] if set(record) == {"messages"} else None


def _mistake(messages: Any) -> str | None:
    if not isinstance(messages, list) or not messages:
        return 'not an object with "messages" alone'
    for message in messages:
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in _ROLES:
            return f"a message must have a role ({', '.join(_ROLES)}), a content, and nothing else"
        if not isinstance(message["content"], str) or not message["content"].strip():
            return f"the content of the {message['role']} message is empty or not a text"
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
        return f"the roles are {', '.join(roles)}; expected user and assistant in turn, ending with assistant"
    return None
