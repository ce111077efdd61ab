"""Which tokens may come next when only known answers are to be decoded, or those and a free brand."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import TypeAlias

from tillmap.llm.interface.answer_formats import OpenAnswers

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
        self.longest = 0  # answer, in tokens, with the eos
        for answer in answers:
            if not answer or eos in answer:
                raise ValueError(f"an answer of the trie must have tokens, and no eos ({eos}); got {list(answer)}")
            node = self._root
            for token in answer:
                node = node.setdefault(token, {})
            node[eos] = {}
            self.longest = max(self.longest, len(answer) + 1)
        if not self._root:
            raise ValueError("the trie has no answers; give at least one")

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, sorted.

        After a whole answer `eos` is one of them. Past an answer's end, and off the trie, it is the only one, for a
        decoder goes on asking about the finished answers of a batch and takes no empty list.
        """
        return self.following(prefix) or [self._eos]

    def following(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, sorted; none past an answer's end, and off the trie."""
        nodes = list(self.nodes(prefix))
        return sorted(nodes[-1]) if len(nodes) > len(prefix) else []

    def branch(self, prefix: Sequence[int]) -> tuple[list[int], list[int]]:
        """A prefix on the trie, extended by the tokens that must follow, and the tokens to choose from then, sorted.

        There is nothing to choose from where the extended prefix ends in `eos`, and so is a whole answer.
        """
        *_, node = self.nodes(prefix)
        extended = list(prefix)
        while len(node) == 1:
            [(token, node)] = node.items()
            extended.append(token)
        return extended, sorted(node)

    def nodes(self, prefix: Iterable[int]) -> Iterator[_Node]:
        """What may follow none of the prefix's tokens, the first, the first two, and so on while on the trie."""
        node = self._root
        yield node
        for token in prefix:
            if token not in node:
                return
            node = node[token]
            yield node


class OpenTrie:
    """A trie of known answers and of those with a free brand, used like a `TokenTrie`."""

    def __init__(
        self,
        known: TokenTrie | None,
        openings: Sequence[Sequence[int]],
        form: OpenAnswers,
        *,
        closing: Sequence[int],
        texts: Mapping[int, str],
        eos: int,
    ) -> None:
        """`openings` and `closing` are the form's, as tokens. `texts` are what the vocabulary's tokens stand for.

        Brands are made of tokens that are part of a word, a space and part of a word, or a space: a character that
        takes several tokens is none of a free brand's.
        """
        self.form = form
        self._known, self._openings = known, TokenTrie(openings, eos)
        self._end = [*closing, eos]
        longest = max(map(len, openings)) + 2 * form.longest + len(self._end)
        self.longest = max(longest, 0 if known is None else known.longest)  # answer, in tokens, with the eos
        self._begun = re.compile(f"{form.lead}(?:{form.character} ?){{0,{form.longest}}}")
        self._texts = {
            token: text
            for token, text in texts.items()
            if text and set(form.reserved).isdisjoint(text) and (text == " " or " " not in text[1:])
        }

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, in no order, some perhaps twice; past the end of an answer `eos` alone."""
        eos = self._end[-1]
        found = [] if self._known is None else self._known.following(prefix)
        for length, node in enumerate(self._openings.nodes(prefix)):
            if eos in node:
                found += self._behind_opening(prefix[length:])
            if length == len(prefix):
                found += [token for token in node if token != eos]
        return found or [eos]

    def _behind_opening(self, tokens: Sequence[int]) -> list[int]:
        brand = list(takewhile(self._texts.__contains__, tokens))
        ending = list(tokens[len(brand) :])
        text = "".join(self._texts[token] for token in brand)
        room = self.form.longest - len(text.replace(" ", ""))
        if not text and not ending:
            return self._pieces(bool(self.form.lead), room)
        if not self._begun.fullmatch(text):  # a known answer went on where no free brand could
            return []
        if ending:
            ends = not text.endswith(" ") and ending == self._end[: len(ending)]
            return self._end[len(ending) : len(ending) + 1] if ends else []
        if text.endswith(" "):
            return self._pieces(False, room)
        return [*self._pieces(False, room), *self._pieces(True, room), self._end[0]] if room else self._end[:1]

    @lru_cache(maxsize=256)  # noqa: B019  # lives as long as its engine, and so its process
    def _pieces(self, spaced: bool, room: int) -> list[int]:
        """The tokens with at most `room` characters besides a space in front, which they have or have not."""
        return [
            token for token, text in self._texts.items()
            if text.startswith(" ") == spaced and len(text) <= room + spaced
        ]  # fmt: skip
