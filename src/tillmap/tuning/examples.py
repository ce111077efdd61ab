"""Training examples as tokens: the question exactly as an engine asks it, then the answer, which alone is learned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tillmap.core.completions import Message
from tillmap.core.errors import InputError

IGNORED = -100  # a label that PyTorch's cross entropy passes over


@dataclass(frozen=True)
class TokenisedExample:
    """`input_ids` of question and answer; the first `question_tokens` of them are shown and not learned."""

    input_ids: list[int]
    question_tokens: int

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.question_tokens + self.input_ids[self.question_tokens :]


def tokenise(messages: Sequence[Message], tokenizer: Any) -> TokenisedExample:
    """The tokens of an example whose last message is the answer.

    The question's tokens are those that an engine sends: the model's chat template, which writes its own BOS, up to
    where the answer begins. The answer is what the template writes next, tokenised apart, as a model writes it
    apart, up to and with the end-of-sequence token; a template that ends its turns otherwise gets that token added.
    """
    question = tokenizer.apply_chat_template(list(messages[:-1]), add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(list(messages), tokenize=False)
    # Some templates rewrite earlier turns or open a thought before the answer; then the bare answer is learned.
    answer = whole.removeprefix(question) if whole.startswith(question) else messages[-1]["content"]
    question_ids, answer_ids = (tokenizer.encode(text, add_special_tokens=False) for text in (question, answer))
    eos = tokenizer.eos_token_id
    end = answer_ids.index(eos) if eos in answer_ids else len(answer_ids)
    return TokenisedExample([*question_ids, *answer_ids[:end], eos], len(question_ids))


def tokenise_all(conversations: Iterable[Sequence[Message]], tokenizer: Any, max_length: int) -> list[TokenisedExample]:
    """Every example, in order. Raises InputError where there is none, or one is longer than `max_length` tokens.

    An example is never cut: a model that learns half an answer learns not to end it.
    """
    examples = [tokenise(messages, tokenizer) for messages in conversations]
    if not examples:
        raise InputError("there are no training examples; raise llama.sample_rows")
    longest = max(len(example.input_ids) for example in examples)
    if longest > max_length:
        raise InputError(
            f"the longest training example has {longest} tokens, max_seq_length is {max_length}; "
            f"set train_llama.max_seq_length={longest} or more, or choose a shorter llama.target"
        )
    return examples


def describe(example: TokenisedExample, tokenizer: Any) -> str:
    """What the loss sees of an example, for a person to read: the question that is masked, and the answer."""
    question, answer = (
        tokenizer.decode(ids)
        for ids in (example.input_ids[: example.question_tokens], example.input_ids[example.question_tokens :])
    )
    return f"shown ({example.question_tokens} tokens): {question!r}\nlearned ({len(example.input_ids) - example.question_tokens} tokens): {answer!r}"  # noqa: E501
