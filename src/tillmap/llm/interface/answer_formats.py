"""Answer formats: how a label path is written as a model's answer, and read back: `json`, `joined` or `short`.

Labels are written as they are. A character that has a meaning in the format is escaped as in JSON, `\\u` and four hex
digits, so that a separator or stop sequence never occurs inside a label: "salt | vinegar" becomes
"salt \\u007c vinegar".
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import Chain, LabelPath, LabelTree, trim

# The bar is a separator, and the stop sequence of GradientGurus' recipe. Line ends stop a model, too.
_RESERVED = r"[\\|\x00-\x1f\x7f\x85\u2028\u2029]"
_RESERVED_IN_SHORT = re.compile(_RESERVED)
_RESERVED_IN_JOINED = re.compile(rf"{_RESERVED}|^_|_\Z|_(?=_)|(?<=_)_")
# A free brand has no control characters, no spaces but the plain one, and no replacement character (invalid bytes).
_SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c != " ")
_NEVER_FREE = "".join(map(chr, [*range(0x09), *range(0x0E, 0x1C), 0x7F])) + _SPACES + "\ufffd"
NO_BRAND = (
    "`unseen_brand` is true, but the taxonomy has no brand level; set it to false, or name the level in "
    "`taxonomy.brand`"
)
_MAX_BRAND = 40  # characters; the longest of the contest's 5,679 brands has 39
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


def unescape(text: str) -> str:
    r"""Undo the escapes of `joined` and `short`.

    >>> unescape(r"salt \u007c vinegar")
    'salt | vinegar'
    """
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def _escape(pattern: re.Pattern[str], label: str) -> str:
    return pattern.sub(lambda match: f"\\u{ord(match[0]):04x}", label)


@dataclass(frozen=True)
class OpenAnswers:
    """Answers with a free brand: one of `openings`, then `lead`, the brand and `closing`.

    In the format `short`: opening "green tea |", lead " ", brand "organic india", closing "". A brand has 1 to
    `longest` characters, not counting single spaces between them, and none of `reserved`. `lead` is separate from the
    openings because tokenizers join a space to the word after it.
    """

    openings: tuple[str, ...]
    lead: str
    closing: str
    reserved: str
    longest: int

    @property
    def character(self) -> str:
        """The character class of a brand, without the space, in the syntax of regular expressions and grammars."""
        return "[^ " + "".join(f"\\u{ord(reserved):04x}" for reserved in self.reserved) + "]"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches exactly these answers, with `fullmatch`."""
        openings = "|".join(map(re.escape, self.openings))
        brand = f"{self.character}(?: ?{self.character}){{0,{self.longest - 1}}}"
        return re.compile(f"(?:{openings}){re.escape(self.lead)}{brand}{re.escape(self.closing)}")


@dataclass(frozen=True)
class Allowed:
    """What `AnswerFormat.allowed_to_all` gives, as it is saved."""

    answers: list[str] | None
    open_answers: OpenAnswers | None


class Limits(Protocol):
    """The params of an arm that restrict its answers."""

    constrain: Literal["off", "tree", "retrieved"]
    unseen_brand: bool


class AnswerFormat(ABC):
    """A way to write paths. `decode(encode(path))` is the path, for every path of the tree."""

    name: ClassVar[str]
    _lead: ClassVar[str] = ""
    _closing: ClassVar[str] = ""
    _reserved: ClassVar[str]

    def __init__(self, tree: LabelTree) -> None:
        self.tree = tree

    @abstractmethod
    def encode(self, path: LabelPath) -> str:
        """The answer for a path, which need not be in the tree."""

    @abstractmethod
    def _labels(self, text: str) -> tuple[str, ...]:
        """The labels in an answer with a brand, which is last. For any other text the result has no meaning."""

    def decode(self, text: str) -> LabelPath | None:
        """The path of the tree whose answer is exactly this text, or None."""
        return self.answers.get(text)

    def decode_open(self, text: str) -> LabelPath | None:
        """Like `decode`, but accepts any brand with a known chain. The path may then be outside the tree."""
        known = self.decode(text)
        if known is not None or self.tree.levels.brand is None:
            return known
        *labels, brand = self._labels(text)
        chain = self._chain_named(labels)
        if chain is None or not brand.strip():
            return None
        path = LabelPath(*chain, brand)
        return path if text in (self.encode(path), self._encode_open(path)) else None

    def is_open_to(self, path: LabelPath) -> bool:
        """Whether `decode_open` reads the answer of this path: a path of the tree, or a known chain with any brand."""
        return self.decode_open(self.encode(path)) == path

    def _chain_named(self, labels: Sequence[str]) -> Chain | None:
        """The only chain of the tree that ends in these labels. If there are more, the one that has no others."""
        chains = self.tree.chains_ending(*labels)
        named = chains if len(chains) == 1 else [chain for chain in chains if trim(chain) == tuple(labels)]
        return named[0] if named else None

    @abstractmethod
    def opening(self, chain: Chain) -> str:
        """The start of an answer with this chain of the tree and any brand, up to the brand."""

    @abstractmethod
    def _encode_open(self, path: LabelPath) -> str:
        """Like `encode`, but as if the brand were unseen, even if the path is known."""

    @cached_property
    def open_answers(self) -> OpenAnswers:
        """The answers with a known chain and any brand of a usual length. `decode_open` reads all of them.

        Raises ParamsError if the taxonomy has no brand level.
        """
        brand = self.tree.levels.brand
        if brand is None:
            raise ParamsError(NO_BRAND)
        return OpenAnswers(
            openings=tuple(self.opening(chain) for chain in self.tree.chains),
            lead=self._lead,
            closing=self._closing,
            reserved=self._reserved + _NEVER_FREE,
            longest=max([_MAX_BRAND, *map(len, self.tree.labels(brand))]),
        )

    @cached_property
    def answers(self) -> Mapping[str, LabelPath]:
        """All answers and their paths, in the order of the tree."""
        return {self.encode(path): path for path in self.tree}

    def allowed_to_all(self, chosen: "Limits") -> dict[str, Any]:
        """The answers allowed to all questions (None: any), and the open answers (None: no unseen brands), for JSON.

        Raises ParamsError if brands that no row has are to be allowed, and the taxonomy has no brand level.
        """
        return {
            "answers": list(self.answers) if chosen.constrain == "tree" else None,
            "open_answers": asdict(self.open_answers) if chosen.unseen_brand else None,
        }


class JsonFormat(AnswerFormat):
    """`{"supergroup": "baby care", "group": ..., "module": ..., "brand": ...}`, with the levels that the path has."""

    name = "json"
    _closing = '"}'
    _reserved = '"\\'

    def encode(self, path: LabelPath) -> str:
        return json.dumps(self.tree.levels.of(path), ensure_ascii=False)

    def opening(self, chain: Chain) -> str:
        levels = self.tree.levels
        shown = {name: label for name, label in zip(levels.chain, chain, strict=True) if label}
        return json.dumps({**shown, levels.brand: ""}, ensure_ascii=False).removesuffix(self._closing)

    _encode_open = encode

    def _labels(self, text: str) -> tuple[str, ...]:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            return ("",)
        levels = self.tree.levels
        names = (*levels.chain[: len(answer) - 1], levels.brand) if isinstance(answer, dict) and answer else ()
        labels = tuple(answer.values()) if names and tuple(answer) == names else ()
        return labels if labels and all(isinstance(label, str) for label in labels) else ("",)


class JoinedFormat(AnswerFormat):
    """`supergroup__group__module__brand`: the labels that the path has, and always the brand if there is that level."""

    name = "joined"
    _reserved = "\\|_"

    def encode(self, path: LabelPath) -> str:
        return "__".join(_escape(_RESERVED_IN_JOINED, label) for label in self.tree.written(path))

    def opening(self, chain: Chain) -> str:
        return self.encode(LabelPath(*chain, ""))

    _encode_open = encode

    def _labels(self, text: str) -> tuple[str, ...]:
        return tuple(unescape(label) for label in text.split("__"))


class ShortFormat(AnswerFormat):
    """`module | brand` if only one path of the tree ends so, else with as many parents in front as are needed.

    Without a brand level the last label alone is enough where no other path ends in it. A path whose labels are the end
    of a longer one is written in full, and the longer one with a parent more. An unknown brand is left out: `module |`.
    """

    name = "short"
    _lead = " "
    _reserved = "\\|"

    def encode(self, path: LabelPath) -> str:
        """The fewest labels, counted from the last, that tell the path from all others of the tree.

        A path of the tree needs labels that no other path ends in: "tea | tata" if one path has them. A path outside it
        needs labels that name one chain: "hot | tea | new" if there are two modules called tea.
        """
        labels = self.tree.written(path)
        for length in range(self._least, len(labels)):
            alike = self.tree.ending(*labels[-length:])
            if alike == (path,) or (not alike and self._is_chain(path, labels[-length:])):
                return self._write(labels[-length:])
        return self._write(labels)

    def opening(self, chain: Chain) -> str:
        return self._encode_open(LabelPath(*chain, ""))

    def _encode_open(self, path: LabelPath) -> str:
        labels = self.tree.written(path)
        ends = (labels[-length:] for length in range(self._least, len(labels)))
        return self._write(next((end for end in ends if self._is_chain(path, end)), labels))

    @property
    def _least(self) -> int:
        return 1 if self.tree.levels.brand is None else 2

    def _is_chain(self, path: LabelPath, end: tuple[str, ...]) -> bool:
        """Whether a path's last labels, without the brand, name its chain and no other one of the tree."""
        above = end if self.tree.levels.brand is None else end[:-1]
        return self.tree.chains_ending(*above) == (self.tree.levels.chain_of(path),)

    def _write(self, labels: tuple[str, ...]) -> str:
        text = " | ".join(_escape(_RESERVED_IN_SHORT, label) for label in labels)
        return text if labels[-1] else text.removesuffix(self._lead)

    def _labels(self, text: str) -> tuple[str, ...]:
        return tuple(unescape(label) for label in text.split(" | "))


ANSWER_FORMATS = {kind.name: kind for kind in (JsonFormat, JoinedFormat, ShortFormat)}


def make_answer_format(name: str, tree: LabelTree) -> AnswerFormat:
    """The answer format of that name. Raises ParamsError if it is not `json`, `joined` or `short`."""
    if name not in ANSWER_FORMATS:
        raise ParamsError(f"answer_format is {name!r}; expected one of {', '.join(ANSWER_FORMATS)}")
    return ANSWER_FORMATS[name](tree)
