"""Which tokens may come next when only known answers are to be decoded."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

_Node: TypeAlias = "dict[int, _Node]"  # from a token id to what may follow it


class TokenTrie:
    """A prefix tree over the token ids of every allowed answer.

    For transformers' `prefix_allowed_tokens_fn(batch_id, input_ids)`, with prompts padded on the left to one length:
    `lambda _, ids: trie.allowed(ids[prompt_length:].tolist())`.
    """

    def __init__(self, answers: Iterable[Sequence[int]], eos: int) -> None:
        """Build from token id sequences that do not hold `eos`, the id that ends each answer.

        Raises ValueError where there is no answer, or one is empty or holds `eos`.
        """
        self._root: _Node = {}
        self._eos = eos
        for answer in answers:
            if not answer or eos in answer:
                raise ValueError(f"an answer of the trie must have tokens, and no eos ({eos}); got {list(answer)}")
            node = self._root
            for token in answer:
                node = node.setdefault(token, {})
            node[eos] = {}
        if not self._root:
            raise ValueError("the trie has no answers; give at least one")

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, sorted.

        After a whole answer `eos` is one of them. Past an answer's end, and off the trie, it is the only one, for a
        decoder goes on asking about the finished answers of a batch and takes no empty list.
        """
        node = self._root
        for token in prefix:
            if token not in node:
                return [self._eos]
            node = node[token]
        return sorted(node) or [self._eos]
