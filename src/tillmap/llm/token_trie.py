"""Constrained decoding: which tokens may come next if only known answers, or these and free brands, are allowed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import TypeAlias

from tillmap.llm.interface.answer_formats import OpenAnswers

_Node: TypeAlias = "dict[int, _Node]"  # from a token id to the node of what may follow it


class TokenTrie:
    """A prefix tree of the allowed answers' token ids.

    It is made for `prefix_allowed_tokens_fn(batch_id, input_ids)` of transformers, with prompts padded on the left to
    one length: `lambda _, ids: trie.allowed(ids[prompt_length:].tolist())`.
    """

    def __init__(self, answers: Iterable[Sequence[int]], eos: int) -> None:
        """Build the tree from sequences of token ids, without `eos`, the id that ends each answer.

        Raises ValueError if there is no answer, or an answer is empty or has `eos`.
        """
        self._root: _Node = {}
        self._eos = eos
        self.longest = 0  # number of tokens of the longest answer, eos included
        for answer in answers:
            if not answer or eos in answer:
                raise ValueError(f"trie: expected an answer with tokens and without eos ({eos}); got {list(answer)}")
            node = self._root
            for token in answer:
                node = node.setdefault(token, {})
            node[eos] = {}
            self.longest = max(self.longest, len(answer) + 1)
        if not self._root:
            raise ValueError("trie: there are no answers; expected at least one")

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, sorted.

        After a complete answer `eos` is one of them. After the end of an answer, and for a prefix that is not in the
        trie, it is the only one: a decoder also asks for the finished answers of a batch, and accepts no empty list.
        """
        return self.following(prefix) or [self._eos]

    def following(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, sorted; none after the end of an answer or for a prefix not in the trie."""
        nodes = list(self.nodes(prefix))
        return sorted(nodes[-1]) if len(nodes) > len(prefix) else []

    def branch(self, prefix: Sequence[int]) -> tuple[list[int], list[int]]:
        """Extend a prefix of the trie by all tokens that must follow; return it and the tokens to choose from, sorted.

        There are none to choose from if the extended prefix is a complete answer, which ends in `eos`.
        """
        *_, node = self.nodes(prefix)
        extended = list(prefix)
        while len(node) == 1:
            [(token, node)] = node.items()
            extended.append(token)
        return extended, sorted(node)

    def nodes(self, prefix: Iterable[int]) -> Iterator[_Node]:
        """The nodes after none of the tokens, the first, the first two and so on, as far as they are in the trie."""
        node = self._root
        yield node
        for token in prefix:
            if token not in node:
                return
            node = node[token]
            yield node


class OpenTrie:
    """A trie of known answers and of answers with a free brand. It is used like a `TokenTrie`."""

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
        """Build the trie.

        Args:
            known: the trie of the known answers; None if only free brands are allowed.
            openings: the openings of `form`, as tokens.
            form: the answers with a free brand.
            closing: the closing of `form`, as tokens.
            texts: the text of each token of the vocabulary.
            eos: the id that ends an answer.

        A brand is made of tokens such as "tea", " tea" and " ", with at most one space, at the start. A character that
        needs several tokens, such as a rare emoji, is in no free brand.
        """
        self.form = form
        self._known, self._openings = known, TokenTrie(openings, eos)
        self._end = [*closing, eos]
        longest = max(map(len, openings)) + 2 * form.longest + len(self._end)
        self.longest = max(longest, 0 if known is None else known.longest)  # as in TokenTrie
        self._begun = re.compile(f"{form.lead}(?:{form.character} ?){{0,{form.longest}}}")
        self._texts = {
            token: text
            for token, text in texts.items()
            if text and set(form.reserved).isdisjoint(text) and (text == " " or " " not in text[1:])
        }
        self._pieces = lru_cache(maxsize=256)(self._find_pieces)

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """The token ids that may follow, unsorted, possibly repeated; only `eos` after the end of an answer."""
        eos = self._end[-1]
        found = [] if self._known is None else self._known.following(prefix)
        # An opening may end at any node of the prefix: "tea |" and "tea | herbal |" may both be openings.
        for length, node in enumerate(self._openings.nodes(prefix)):
            if eos in node:
                found += self._behind_opening(prefix[length:])
            if length == len(prefix):
                found += [token for token in node if token != eos]
        return found or [eos]

    def _behind_opening(self, tokens: Sequence[int]) -> list[int]:
        """The token ids that may follow an opening and these tokens, which may be of a brand and of the closing."""
        brand = list(takewhile(self._texts.__contains__, tokens))
        ending = list(tokens[len(brand) :])
        text = "".join(self._texts[token] for token in brand)
        room = self.form.longest - len(text.replace(" ", ""))
        if not text and not ending:  # the brand starts: with the space of `lead`, if there is one
            return self._pieces(bool(self.form.lead), room)
        if not self._begun.fullmatch(text):  # a known answer, which no free brand can continue
            return []
        if ending:  # only the rest of the closing may follow, if the brand did not end in a space
            ends = not text.endswith(" ") and ending == self._end[: len(ending)]
            return self._end[len(ending) : len(ending) + 1] if ends else []
        if text.endswith(" "):
            return self._pieces(False, room)
        return [*self._pieces(False, room), *self._pieces(True, room), self._end[0]] if room else self._end[:1]

    def _find_pieces(self, spaced: bool, room: int) -> list[int]:
        """The tokens of at most `room` characters, with a space in front of them (`spaced`) or without."""
        return [
            token for token, text in self._texts.items()
            if text.startswith(" ") == spaced and len(text) <= room + spaced
        ]  # fmt: skip
