"""How a label path is written as a model's answer, and read back: `json`, `joined` or `short`.

An ordinary label is written as it is. A character that could be mistaken for the format's own is written as JSON
would write it, `\\u` and four hex digits, so that a separator or stop sequence never occurs inside a label.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import LEVELS, Chain, LabelPath, LabelTree

# The bar is a separator and the stop sequence of GradientGurus' recipe; line ends stop a model, too.
_RESERVED = r"[\\|\x00-\x1f\x7f\x85\u2028\u2029]"
_RESERVED_IN_SHORT = re.compile(_RESERVED)
_RESERVED_IN_JOINED = re.compile(rf"{_RESERVED}|^_|_\Z|_(?=_)|(?<=_)_")
# A free brand holds no controls and no spaces but plain ones, nor what stands for bytes that are no text.
_SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c != " ")
_NEVER_FREE = "".join(map(chr, [*range(0x09), *range(0x0E, 0x1C), 0x7F])) + _SPACES + "\ufffd"
_LONGEST_BRAND = 40  # characters; the longest of the contest's 5,679 has 39
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
    """Answers with a free brand: one of `openings`, then `lead`, the brand, and `closing`.

    A brand has 1 to `longest` characters besides single spaces between them; none of them is one of `reserved`.
    `lead` stands apart from the openings because tokenizers join a space to the word behind it.
    """

    openings: tuple[str, ...]
    lead: str
    closing: str
    reserved: str
    longest: int

    @property
    def character(self) -> str:
        """The class of a brand's characters but the space, as regular expressions and grammars write it."""
        return "[^ " + "".join(f"\\u{ord(reserved):04x}" for reserved in self.reserved) + "]"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches these answers, and nothing else, as a whole."""
        openings = "|".join(map(re.escape, self.openings))
        brand = f"{self.character}(?: ?{self.character}){{0,{self.longest - 1}}}"
        return re.compile(f"(?:{openings}){re.escape(self.lead)}{brand}{re.escape(self.closing)}")


class Limits(Protocol):
    """The params of an arm that limit its answers."""

    constrain: Literal["off", "tree", "retrieved"]
    unseen_brand: bool


class AnswerFormat(ABC):
    """One way to write paths. `decode(encode(path))` is the path itself, for every path of the tree."""

    name: ClassVar[str]
    _lead: ClassVar[str] = ""
    _closing: ClassVar[str] = ""
    _reserved: ClassVar[str]

    def __init__(self, tree: LabelTree) -> None:
        self.tree = tree

    @abstractmethod
    def encode(self, path: LabelPath) -> str:
        """The answer that stands for a path, of the tree or not."""

    @abstractmethod
    def _labels(self, text: str) -> tuple[str, ...]:
        """The labels written in a text, the last being the brand; anything at all where it is no answer."""

    def decode(self, text: str) -> LabelPath | None:
        """The tree's path that is written as exactly this text, or None."""
        return self.answers.get(text)

    def decode_open(self, text: str) -> LabelPath | None:
        """As `decode`, but a known chain with any brand will do: the path may then be outside the tree."""
        known = self.decode(text)
        if known is not None:
            return known
        labels = self._labels(text)
        chains = self.tree.chains_ending(*labels[:-1])
        if len(chains) != 1 or not labels[-1].strip():
            return None
        path = LabelPath(*chains[0], labels[-1])
        return path if text in (self.encode(path), self._encode_open(path)) else None

    @abstractmethod
    def opening(self, chain: Chain) -> str:
        """How an answer begins, up to its brand, that has this chain of the tree and any brand."""

    @abstractmethod
    def _encode_open(self, path: LabelPath) -> str:
        """As `encode`, but the way an answer with an unseen brand is written, even where the path is known."""

    @cached_property
    def open_answers(self) -> OpenAnswers:
        """The answers of known chains with any brand of a usual length: `decode_open` reads all of them."""
        return OpenAnswers(
            openings=tuple(self.opening(chain) for chain in self.tree.chains),
            lead=self._lead,
            closing=self._closing,
            reserved=self._reserved + _NEVER_FREE,
            longest=max(_LONGEST_BRAND, *map(len, self.tree.labels("brand"))),
        )

    @cached_property
    def answers(self) -> Mapping[str, LabelPath]:
        """Every answer with its path, in the order of the tree."""
        return {self.encode(path): path for path in self.tree}

    def allowed_to_all(self, chosen: "Limits") -> dict[str, Any]:
        """What a question that names no answers of its own may be answered with, and the shape of unseen brands.

        As JSON can write it; None where there is no limit, or no such shape.
        """
        return {
            "answers": list(self.answers) if chosen.constrain == "tree" else None,
            "open_answers": asdict(self.open_answers) if chosen.unseen_brand else None,
        }


class JsonFormat(AnswerFormat):
    """`{"supergroup": "baby care", "group": ..., "module": ..., "brand": ...}`."""

    name = "json"
    _closing = '"}'
    _reserved = '"\\'

    def encode(self, path: LabelPath) -> str:
        return json.dumps(path._asdict(), ensure_ascii=False)

    def opening(self, chain: Chain) -> str:
        return self.encode(LabelPath(*chain, "")).removesuffix(self._closing)

    _encode_open = encode

    def _labels(self, text: str) -> tuple[str, ...]:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            return ("",)
        labels = tuple(answer.values()) if isinstance(answer, dict) and tuple(answer) == LEVELS else ()
        return labels if labels and all(isinstance(label, str) for label in labels) else ("",)


class JoinedFormat(AnswerFormat):
    """`supergroup__group__module__brand`."""

    name = "joined"
    _reserved = "\\|_"

    def encode(self, path: LabelPath) -> str:
        return "__".join(_escape(_RESERVED_IN_JOINED, label) for label in path)

    def opening(self, chain: Chain) -> str:
        return self.encode(LabelPath(*chain, ""))

    _encode_open = encode

    def _labels(self, text: str) -> tuple[str, ...]:
        return tuple(unescape(label) for label in text.split("__"))


class ShortFormat(AnswerFormat):
    """`module | brand` where the tree has one such path, else with the group, or group and supergroup, in front."""

    name = "short"
    _lead = " "
    _reserved = "\\|"

    def encode(self, path: LabelPath) -> str:
        return self._write(path[-self._length(path) :])

    def opening(self, chain: Chain) -> str:
        return self._encode_open(LabelPath(*chain, "")).removesuffix(self._lead)

    def _encode_open(self, path: LabelPath) -> str:
        lengths = (length for length in (2, 3) if self.tree.chains_ending(*path[-length:-1]) == (path[:3],))
        return self._write(path[-next(lengths, len(LEVELS)) :])

    def _write(self, labels: tuple[str, ...]) -> str:
        return " | ".join(_escape(_RESERVED_IN_SHORT, label) for label in labels)

    def _labels(self, text: str) -> tuple[str, ...]:
        return tuple(unescape(label) for label in text.split(" | "))

    def _length(self, path: LabelPath) -> int:
        """The fewest labels, counted from the brand, that no other path shares and that name a single chain.

        A path of the tree needs the first condition only; one outside it is known by its chain.
        """
        for length in (2, 3):
            alike = self.tree.ending(*path[-length:])
            if alike == (path,) or (not alike and self.tree.chains_ending(*path[-length:-1]) == (path[:3],)):
                return length
        return len(LEVELS)


_FORMATS = {kind.name: kind for kind in (JsonFormat, JoinedFormat, ShortFormat)}


def make_answer_format(name: str, tree: LabelTree) -> AnswerFormat:
    """The answer format of that name. Raises ParamsError for a name that is not `json`, `joined` or `short`."""
    if name not in _FORMATS:
        raise ParamsError(f"answer_format: there is no format {name!r}; expected one of {', '.join(_FORMATS)}")
    return _FORMATS[name](tree)
