"""Prompts: the same renderer writes the questions of training and those of inference."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tillmap.core.completions import LETTERS, Message
from tillmap.core.quantities import without_quantities
from tillmap.core.taxonomy import Chain, LabelPath, Levels, trim
from tillmap.core.text import cut
from tillmap.llm.interface.answer_formats import AnswerFormat


class Item(NamedTuple):
    """What is known of a row before it is labelled. `retailer` is "" and `price` None if unknown.

    `about` is a description of the product from outside, "" if there is none.
    """

    description: str
    retailer: str
    price: float | None
    about: str = ""


class Example(NamedTuple):
    """A few-shot example: a labelled row that is shown to the model."""

    item: Item
    path: LabelPath


class Candidate(NamedTuple):
    """A path to choose from, with a labelled row that has it and what such products usually cost, where known.

    `share` is its probability, as the free arm that proposes it sees it.
    """

    path: LabelPath
    item: Item | None = None
    usual: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How a question is written.

    Attributes:
        system: the system message; none if empty, which leaves it to the model's chat template. `{levels}` in it stands
            for the names of the levels.
        item_format: an item as a `line` ("baby bed mats 10 s | herbgrove | 2.99") or as a `json` object.
        examples: `turns` shows each example as an earlier question with its answer, a pattern that even very small
            models continue; `context` lists the examples in one message with the question, as GradientGurus did.
        show_retailer, show_price: whether an item includes them.
        item_end: follows every item in `turns`.
        show_numbers: if False, words with a digit (sizes, counts, codes) are left out of descriptions that have others.
        show_sizes: if False, quantities, weights and unit prices are left out (see `core.quantities`).
    """

    system: str
    item_format: Literal["line", "json"]
    examples: Literal["turns", "context"]
    show_retailer: bool
    show_price: bool
    item_end: str = ""
    show_numbers: bool = True
    show_sizes: bool = True


GRADIENTGURUS_RAG = Recipe(
    system=(
        "You label products. The user lists similar products with their labels, then one product without labels. "
        "Reply with one JSON object that has the keys {levels}, all taken from the list."
    ),
    item_format="json",
    examples="context",
    show_retailer=True,
    show_price=True,
)


GRADIENTGURUS_LLAMA = Recipe(system="", item_format="json", examples="turns", show_retailer=True, show_price=True)

_LIKELY = "Likely answers, the likeliest first:"
_UNORDERED = "Likely answers:"
_ABOUT = "What was found about the product:"
_MEANING = "What belongs to some labels:"
_MAX_DEFINITION = 200  # characters
_WITH_DIGITS = re.compile(r"\S*\d\S*")


def our_recipe(show_retailer: bool, show_price: bool, show_numbers: bool = True, show_sizes: bool = True) -> Recipe:
    """Our short prompt: each example is a turn, a line and its answer, with the nearest one last."""
    return Recipe("Label the receipt line.", "line", "turns", show_retailer, show_price,
                  show_numbers=show_numbers, show_sizes=show_sizes)  # fmt: skip


@dataclass(frozen=True)
class Renderer:
    """Renders questions with a recipe, and answers in an answer format.

    Attributes:
        definitions: how many labels are defined before the item, if the tree has definitions: those of the candidates,
            then those of the examples, both from the first on.
        layout: how candidates are shown. `list` lists them before the item. `turns` makes an example of each that has a
            row, the most likely last. The others may be answered and are not shown: a small model would prefer what is
            listed after the examples. If no candidate has a row, all are listed. `letters` lists them with letters, and
            the answer is a letter.
        ranking: `order` shows candidates as they are ranked, `scores` with their shares, too, and `hidden` sorted by
            their labels.
    """

    recipe: Recipe
    answer_format: AnswerFormat
    definitions: int = 0
    layout: Literal["list", "turns", "letters"] = "list"
    ranking: Literal["order", "scores", "hidden"] = "order"

    def ordered(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, the most likely first, in the order in which they are shown."""
        if self.ranking == "hidden":
            return sorted(candidates, key=lambda each: self.answer_format.encode(each.path))
        return list(candidates)

    def question(
        self, item: Item, examples: Sequence[Example] = (), candidates: Sequence[Candidate] = ()
    ) -> list[Message]:
        """The messages that ask for the labels of an item.

        `examples` are sorted by similarity, the most similar first. They are shown in reverse order, because a model
        relies most on what it read last. `candidates`, as `ordered` gives them, are shown as `layout` says. Before a
        list of them comes the item's description from outside, if there is one.
        """
        turns = [Example(each.item, each.path) for each in candidates if each.item] if self.layout == "turns" else []
        if turns:
            examples, candidates = [*examples, *turns], ()
        system = self.recipe.system.replace("{levels}", _in_words(self.answer_format.tree.levels))
        messages = [{"role": "system", "content": system}] if system else []
        shown = [(self._item(example.item), self.answer_format.encode(example.path)) for example in reversed(examples)]
        listed = self._defined([*(each.path for each in candidates), *(each.path for each in examples)])
        listed += [_ABOUT, item.about, ""] if item.about else []
        listed += self._listed(candidates)
        if self.recipe.examples == "turns":
            end = self.recipe.item_end
            for line, answer in shown:
                messages += [{"role": "user", "content": line + end}, {"role": "assistant", "content": answer}]
            return [*messages, {"role": "user", "content": "\n".join([*listed, self._item(item) + end])}]
        context = [*(f"{line} -> {answer}" for line, answer in shown), *listed]
        return [*messages, {"role": "user", "content": "\n".join([*context, f"{self._item(item)} ->"])}]

    def answer_text(self, path: LabelPath, candidates: Sequence[Candidate]) -> str:
        """The answer to a question with these candidates."""
        if self.layout != "letters" or not candidates:
            return self.answer_format.encode(path)
        return LETTERS[[each.path for each in candidates].index(path)]

    def _listed(self, candidates: Sequence[Candidate]) -> list[str]:
        """The lines that list some candidates, if there are any."""
        if not candidates:
            return []
        lines = map(self.candidate, candidates)
        if self.layout == "letters":
            lines = map(". ".join, zip(LETTERS, lines, strict=False))
        return [_UNORDERED if self.ranking == "hidden" else _LIKELY, *lines, ""]

    def candidate(self, candidate: Candidate) -> str:
        """A candidate in a list: `green tea | tetley (0.62; such as "ttly grn tea 100"; usually 2.99)`."""
        known = [] if candidate.share is None or self.ranking != "scores" else [f"{candidate.share:.2f}"]
        known += [] if candidate.item is None else [f'such as "{self._item(candidate.item)}"']
        known += [] if candidate.usual is None else [f"usually {candidate.usual:.2f}"]
        return self.answer_format.encode(candidate.path) + (f" ({'; '.join(known)})" if known else "")

    def training_example(
        self, item: Item, path: LabelPath, examples: Sequence[Example] = (), candidates: Sequence[Candidate] = ()
    ) -> list[Message]:
        """The same question and its answer, for tuning a model."""
        answer = self.answer_text(path, candidates)
        return [*self.question(item, examples, candidates), {"role": "assistant", "content": answer}]

    def _defined(self, paths: Sequence[LabelPath]) -> list[str]:
        """The lines that define the labels of some paths, as far as definitions are known."""
        tree, lines = self.answer_format.tree, dict[Chain, str]()
        for path in paths if tree.definitions else ():
            chain = trim(tree.levels.chain_of(path))
            if len(lines) < self.definitions and (text := tree.definition_of(path)):
                label = chain[-1] if len(tree.chains_ending(chain[-1])) == 1 else " | ".join(chain)
                lines[chain] = f"{label}: {cut(' '.join(text.split()), _MAX_DEFINITION)}"
        return [_MEANING, *lines.values(), ""] if lines else []

    def _item(self, item: Item) -> str:
        price = None if item.price is None else f"{item.price:.2f}"
        text = item.description if self.recipe.show_sizes else without_quantities(item.description)
        text = text if self.recipe.show_numbers else _WITH_DIGITS.sub(" ", text)
        # Join again without line breaks, which would look like the start of another item.
        shown = {"description": " ".join(text.split()) or " ".join(item.description.split())}
        if self.recipe.show_retailer:
            shown["retailer"] = item.retailer or "?"
        if self.recipe.item_format == "json":
            fields: dict[str, str | float | None] = dict(shown)
            if self.recipe.show_retailer:
                fields["retailer"] = item.retailer or None
            if self.recipe.show_price:
                fields["price"] = None if price is None else float(price)
            return json.dumps(fields, ensure_ascii=False)
        if self.recipe.show_price:
            shown["price"] = price or "?"
        return " | ".join(shown.values())


def _in_words(levels: Levels) -> str:
    """The names of the levels: "supergroup, group, module and brand"."""
    *others, last = levels
    return f"{', '.join(others)} and {last}" if others else last
