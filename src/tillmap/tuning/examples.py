"""Training examples as tokens: the question as an engine sends it, then the answer. Only the answer is learned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tillmap.core.completions import Message
from tillmap.core.errors import InputError
from tillmap.llm.chat import chat_text

IGNORED = -100  # the label that PyTorch's cross entropy ignores


@dataclass(frozen=True)
class TokenisedExample:
    """The `input_ids` of question and answer; the first `question_tokens` of them are the question, not learned."""

    input_ids: list[int]
    question_tokens: int

    @property
    def labels(self) -> list[int]:
        return [IGNORED] * self.question_tokens + self.input_ids[self.question_tokens :]


def tokenise(messages: Sequence[Message], tokenizer: Any) -> TokenisedExample:
    """The tokens of an example whose last message is the answer.

    The question is what an engine sends: the model's chat template, with its BOS, up to where the answer starts. The
    answer is what the template writes next, up to and including the end-of-sequence token, which is added if the
    template ends turns with something else. Question and answer are tokenised separately, because a model starts its
    answer at a token boundary.
    """
    question, whole = chat_text(tokenizer, messages[:-1], ask=True), chat_text(tokenizer, messages, ask=False)
    # Some templates rewrite earlier turns, or add an empty "<think></think>" to the question only. Then the answer is
    # learned as it is, without what the template puts around it.
    answer = whole.removeprefix(question) if whole.startswith(question) else messages[-1]["content"]
    question_ids, answer_ids = (tokenizer.encode(text, add_special_tokens=False) for text in (question, answer))
    eos = tokenizer.eos_token_id
    end = answer_ids.index(eos) if eos in answer_ids else len(answer_ids)
    return TokenisedExample([*question_ids, *answer_ids[:end], eos], len(question_ids))


def tokenise_all(conversations: Iterable[Sequence[Message]], tokenizer: Any, max_length: int) -> list[TokenisedExample]:
    """The tokens of all examples, in order. Raises InputError if there are none, or one has over `max_length` tokens.

    Examples are never truncated. From a truncated answer a model learns not to end its answers.
    """
    examples = [tokenise(messages, tokenizer) for messages in conversations]
    if not examples:
        raise InputError("there are no training examples; set the arm's `sample_rows` to 1 or more")
    longest = max(len(example.input_ids) for example in examples)
    if longest > max_length:
        raise InputError(
            f"the longest training example has {longest} tokens, but max_seq_length is {max_length}; "
            f"set train_llama.max_seq_length={longest} or more, or choose a shorter `answer_format`"
        )
    return examples


def describe(example: TokenisedExample, tokenizer: Any) -> str:
    """An example as readable text: the question, which is masked, and the answer, which is learned."""
    question, answer = (
        tokenizer.decode(ids)
        for ids in (example.input_ids[: example.question_tokens], example.input_ids[example.question_tokens :])
    )
    learned = len(example.input_ids) - example.question_tokens
    return f"shown ({example.question_tokens} tokens): {question!r}\nlearned ({learned} tokens): {answer!r}"
