"""Turns any answer of a model into a label path of the tree."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from rapidfuzz import fuzz, process

from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.interface.answer_formats import AnswerFormat, unescape
from tillmap.postprocessing.matching import Embed, NearestPath, PathMatcher, fold
from tillmap.postprocessing.parsing import Reading, readings, runs

_MIN_SURE = 0.8  # a text whose first reading scores this is not compared in its other readings
# A brand with this RapidFuzz ratio to a brand of its chain is that brand misspelt ("hugies" for huggies), and not new.
_MIN_MISSPELT = 80

Repair = Literal["none", "folded", "parsed", "snapped", "vote"]
Neighbours = Sequence[tuple[LabelPath, float]]  # the paths of an item's neighbours and their weights


class Repaired(NamedTuple):
    """A path, the kind of repair, the confidence of the repair (0 to 1), and whether the path is in the tree.

    The confidence is 1 if no label was guessed. For `snapped` it is the similarity, divided among equally near paths by
    their rows; for `vote` the winner's share of the weights. It does not tell whether the model's answer is right.
    """

    path: LabelPath
    repair: Repair
    confidence: float
    in_tree: bool = True


class Repairer:
    """Turns answers into paths, by the first of these steps that succeeds:

    `none`     The answer is exactly a path in the answer format: "green tea | tetley".
    `folded`   It differs in case, punctuation or separators: "Green Tea / TETLEY".
    `parsed`   Read leniently, it names one path: "module: green tea, brand: Tetley"; or it holds an answer among other
               words: "Answer: green tea | Tetley | 2.99".
    `snapped`  Its labels, all together, are near a path: "gren tea | tetly".
    `vote`     The weighted vote of the neighbours, or the most frequent path if there are none.
    """

    def __init__(
        self,
        tree: LabelTree,
        answer_format: AnswerFormat,
        *,
        embed: Embed | None = None,
        unseen_brand: bool = False,
        min_score: float = 0.6,
        exact_only: bool = False,
    ) -> None:
        """Prepare the look-ups.

        Args:
            tree: the known paths.
            answer_format: how the model was asked to write a path.
            embed: finds paraphrases ("nappies" for diapers), which share no characters; None: not done.
            unseen_brand: whether an answer may pair a known chain with a brand that the chain does not have.
            min_score: an answer with a lower similarity to every path is not snapped.
            exact_only: no repair. What is not exactly a path goes to the vote.
        """
        self.tree = tree
        self._answer_format = answer_format
        self._unseen_brand = unseen_brand
        self._min_score = min_score
        self._exact_only = exact_only
        self._matcher = PathMatcher(tree, embed)
        self._by_answer = _unambiguous((fold(unescape(answer)), path) for answer, path in answer_format.answers.items())
        self._by_labels = _unambiguous((suffix, path) for path in tree for suffix in _suffixes(_fold_all(path)))
        # Two labels may differ in punctuation only, such as "dr.oetker's" and "dr oetker's". These keep it.
        self._by_cased_answer = _unambiguous(
            (answer.casefold(), path) for answer, path in answer_format.answers.items()
        )
        self._by_cased_labels = _unambiguous((suffix, path) for path in tree for suffix in _suffixes(_uncase_all(path)))
        # The labels of a path as one run of words, for answers without separators ("green tea tetley"); and
        # the last two or three labels, for answers among other words.
        self._whole_names = _unambiguous((" ".join(_fold_all(path)), path) for path in tree)
        self._names = _unambiguous(
            (" ".join(suffix), path) for path in tree for suffix in _suffixes(_fold_all(path)) if len(suffix) > 1
        )
        self._by_chain = _unambiguous((suffix, c) for c in tree.chains for suffix in _suffixes(_fold_all(c)))
        self._by_brand = _unambiguous((fold(brand), brand) for brand in tree.labels("brand"))
        self._brands_of: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        for path in tree:
            self._brands_of[path[:3]].append(fold(path.brand))

    def repair(self, text: str, neighbours: Neighbours = ()) -> Repaired:
        """The path of one answer. Any text gives a path."""
        return self.repair_all([text], [neighbours])[0]

    def repair_all(self, texts: Sequence[str], neighbours: Sequence[Neighbours] | None = None) -> list[Repaired]:
        """The paths of many answers, in order. Equal texts are repaired once.

        `neighbours` has an item per text. Only the items of answers that need the vote are read, so it may be lazy.
        Raises ValueError if the lengths differ.
        """
        if neighbours is not None and len(neighbours) != len(texts):
            raise ValueError(f"{len(texts)} texts, but {len(neighbours)} lists of neighbours; give one list per text")
        looked_up = {text: self._look_up(text) for text in dict.fromkeys(texts)}
        found = {text: repaired for text, repaired in looked_up.items() if isinstance(repaired, Repaired)}
        found |= self._snap(
            {text: read for text, read in looked_up.items() if isinstance(read, list) and read and read[0].labels}
        )
        return [
            found.get(text) or self._vote(neighbours[row] if neighbours is not None else ())
            for row, text in enumerate(texts)
        ]

    def _look_up(self, text: str) -> Repaired | list[Reading]:
        """The steps without similarity: `none`, `folded` and `parsed`. If none succeeds, the readings of the text."""
        text = text.encode(errors="replace").decode()  # half a surrogate pair cannot be encoded as UTF-8
        exact = self._answer_format.decode(text) or self._answer_format.decode(text.strip())
        if exact:
            return Repaired(exact, "none", 1.0)
        if self._exact_only:
            return self._unseen(text) or []
        folded = fold(unescape(text))
        folded_path = self._by_cased_answer.get(text.strip().casefold()) or self._by_answer.get(folded)
        if folded_path:
            return Repaired(folded_path, "folded", 1.0)
        written = (
            Repaired(self._whole_names[folded], "parsed", 1.0) if folded in self._whole_names else self._unseen(text)
        )
        if written:
            return written
        options = readings(text)
        for reading in options:
            parsed = self._named_by(reading.labels)
            if parsed:
                return Repaired(parsed, "parsed", 1.0, parsed in self.tree)
        # A part of the text may name a path: the last line of "tetley 250 g\ngreen tea | tetley". But four labels
        # that name no path contradict each other. In "beverages__tea__green tea__vahdam" the last two do name a path,
        # but are no more reliable than the first two.
        whole = len(options[0].labels) == len(LEVELS)
        names, stretches = (self._whole_names, runs(text, len(LEVELS))) if whole else (self._names, runs(text))
        among_others = next((names[stretch] for stretch in stretches if stretch in names), None)
        return Repaired(among_others, "parsed", 1.0) if among_others else options

    def _unseen(self, text: str) -> Repaired | None:
        """A known chain with an unseen brand, written exactly in the answer format, if unseen brands are allowed."""
        written = self._answer_format.decode_open(text.strip()) if self._unseen_brand else None
        if written and (written in self.tree or self._path_outside(written) == written):
            return Repaired(written, "none", 1.0, in_tree=written in self.tree)
        return None

    def _named_by(self, labels: Mapping[str, str]) -> LabelPath | None:
        """The only path that ends in these labels, or a known chain with an unseen brand if these are allowed.

        The labels must be the last one to four levels, such as module and brand.
        """
        levels = LEVELS[-len(labels) :]
        if not labels or set(levels) != set(labels):
            return None
        given = tuple(labels[level] for level in levels)
        folded = _fold_all(given)
        path = self._by_cased_labels.get(_uncase_all(given)) or self._by_labels.get(folded)
        chain = self._by_chain.get(folded[:-1])
        if path or not chain or not self._unseen_brand:
            return path
        return self._path_outside(LabelPath(chain.supergroup, chain.group, chain.module, labels["brand"]))

    def _path_outside(self, path: LabelPath) -> LabelPath | None:
        """The path, with its brand spelt as in other chains; None if it is a misspelt brand of its own chain."""
        brand = fold(path.brand)
        if brand in self._by_brand:
            return path._replace(brand=self._by_brand[brand])
        misspelt = process.extractOne(brand, self._brands_of[path[:3]], scorer=fuzz.ratio, score_cutoff=_MIN_MISSPELT)
        return None if misspelt else path

    def _snap(self, options: Mapping[str, Sequence[Reading]]) -> dict[str, Repaired]:
        """The nearest path of each text that is near one. If the first reading is not near enough, all are compared."""
        best: dict[str, NearestPath] = {}
        self._find_nearer(best, [(text, reading) for text, (reading, *_) in options.items()], by_meaning=True)
        open_texts = [text for text, (_, *others) in options.items() if others and best[text].score < _MIN_SURE]
        others = [(text, reading) for text in open_texts for reading in options[text][1:]]
        self._find_nearer(best, others, by_meaning=False)  # other readings may take a brand for a module
        return {
            text: Repaired(near.path, "snapped", min(near.score * near.share, 1.0))
            for text, near in best.items()
            if near.score >= self._min_score
        }

    def _find_nearer(
        self, best: dict[str, NearestPath], tried: Sequence[tuple[str, Reading]], by_meaning: bool
    ) -> None:
        """Replace the entries of `best` for which one of the readings has a nearer path."""
        found = self._matcher.nearest([reading.labels for _, reading in tried], by_meaning)
        for (text, _), near in zip(tried, found, strict=True):
            if text not in best or (near.score, near.share) > (best[text].score, best[text].share):
                best[text] = near

    def _vote(self, neighbours: Neighbours) -> Repaired:
        """The path with the highest sum of weights; of equal ones that with more rows."""
        weights: defaultdict[LabelPath, float] = defaultdict(float)
        for path, weight in neighbours:
            if path in self.tree:
                weights[path] += max(weight, 0.0)
        if not weights:
            weights |= {path: float(self.tree.rows_of(path)) for path in self.tree}
        winner = min(weights, key=lambda path: (-weights[path], -self.tree.rows_of(path), path))
        total = sum(weights.values())
        return Repaired(winner, "vote", weights[winner] / total if total else 0.0)


_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


def _unambiguous(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, _Value]:
    """The pairs as a mapping, without the keys that have different values."""
    found: dict[_Key, _Value] = {}
    ambiguous = {key for key, value in pairs if found.setdefault(key, value) != value}
    return {key: value for key, value in found.items() if key not in ambiguous}


def _fold_all(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(fold, labels))


def _uncase_all(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(str.casefold, labels))


def _suffixes(labels: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """(a, b, c), (b, c) and (c) of (a, b, c)."""
    return (labels[start:] for start in range(len(labels)))
