"""Turns any answer of a model into a label path of the tree."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from rapidfuzz import fuzz, process

from tillmap.core.taxonomy import LabelPath, LabelTree, trim
from tillmap.llm.interface.answer_formats import AnswerFormat, unescape
from tillmap.postprocessing.matching import Embed, NearestPath, PathMatcher, fold
from tillmap.postprocessing.parsing import KEYS, SEPARATED, Reading, readings, runs

_MIN_SURE = 0.8  # a text whose first reading scores this is not compared in its other readings
# A brand with this RapidFuzz ratio to a brand of its chain is that brand misspelt ("hugies" for huggies), and not new.
_MIN_MISSPELT = 80

Repair = Literal["none", "new_brand", "folded", "parsed", "snapped", "vote"]
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
    `new_brand`  So it is, of a known chain with a brand that no path has, where such answers are allowed.
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
            unseen_brand: whether an answer may pair a known chain with a brand that the chain does not have. Without a
                brand level it changes nothing.
            min_score: an answer with a lower similarity to every path is not snapped.
            exact_only: no repair. What is not exactly a path goes to the vote.
        """
        self.tree = tree
        self._answer_format = answer_format
        self._unseen_brand = unseen_brand and tree.levels.brand is not None
        self._min_score = min_score
        self._exact_only = exact_only
        self._by_level = self._from_end = PathMatcher(tree, embed)
        self._ragged = any("" in chain for chain in tree.chains)  # whether paths end early
        self._one_label_names = self._ragged or tree.levels.brand is None
        if self._ragged:
            self._from_end = PathMatcher(tree, embed, from_end=True)
        self._by_answer = _unambiguous((fold(unescape(answer)), path) for answer, path in answer_format.answers.items())
        ends = [(end, path) for path in tree for end in self._ends(path)]
        self._by_labels = self._by_end(_fold_all)
        # Two labels may differ in punctuation only, such as "dr.oetker's" and "dr oetker's". These keep it.
        self._by_cased_answer = _unambiguous(
            (answer.casefold(), path) for answer, path in answer_format.answers.items()
        )
        self._by_cased_labels = self._by_end(_uncase_all)
        # The labels of a path as one run of words, for answers without separators ("green tea tetley"); and
        # its last labels, for answers among other words. A brand alone is not enough.
        levels = tree.levels
        self._whole_names = _unambiguous((" ".join(_fold_all(tuple(filter(None, path)))), path) for path in tree)
        self._names = _unambiguous(
            (" ".join(_fold_all(end)), path) for end, path in ends if len(end) > 1 or levels.brand is None
        )
        self._by_chain = _unambiguous((_fold_all(end), c) for c in tree.chains for end in _suffixes(trim(c)))
        self._by_brand: dict[str, str] = {}
        self._brands_of: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
        if levels.brand is not None:
            self._by_brand = _unambiguous((fold(brand), brand) for brand in tree.labels(levels.brand))
            for path in tree:
                self._brands_of[levels.chain_of(path)].append(fold(path[-1]))

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
        levels = self.tree.levels
        options = readings(text, levels)
        for reading in options:
            parsed = self._named_by(reading, options[0])
            if parsed:
                return Repaired(parsed, "parsed", 1.0, parsed in self.tree)
        # A part of the text may name a path: the last line of "tetley 250 g\ngreen tea | tetley". But labels of all
        # levels that name no path contradict each other. In "beverages__tea__green tea__vahdam" the last two do name a
        # path, but are no more reliable than the first two. So do all labels where one of them may name a path.
        first = options[0]
        names = self._whole_names if len(first.labels) == len(levels) else self._names
        whole = names is self._whole_names or (self._one_label_names and first.style in SEPARATED)
        stretches = runs(text, levels, len(first.labels) if whole else 1)
        among_others = next((names[stretch] for stretch in stretches if stretch in names), None)
        return Repaired(among_others, "parsed", 1.0) if among_others else options

    def _unseen(self, text: str) -> Repaired | None:
        """A known chain with an unseen brand, written exactly in the answer format, if unseen brands are allowed."""
        written = self._answer_format.decode_open(text.strip()) if self._unseen_brand else None
        if written and (written in self.tree or self._path_outside(written) == written):
            known = written in self.tree or fold(written[-1]) in self._by_brand
            return Repaired(written, "none" if known else "new_brand", 1.0, in_tree=written in self.tree)
        return None

    def _named_by(self, reading: Reading, first: Reading) -> LabelPath | None:
        """The only path that ends in a reading's labels, or a known chain with an unseen brand if these are allowed.

        Labels with keys must be of the path's last levels, such as module and brand. `first` is the first reading of
        the same text: where paths may end early, labels that it has, and this one leaves out, would name another path.
        """
        labels, levels = reading.labels, self.tree.levels
        if not labels or (self._ragged and reading.style == first.style and len(labels) < len(first.labels)):
            return None
        given = tuple(labels[level] for level in levels if level in labels)
        folded = _fold_all(given)
        at_end = self._at_end(reading)
        path = self._by_cased_labels.get(_uncase_all(given)) or self._by_labels.get(folded)
        if path and (at_end if reading.style != KEYS else _ends_with(levels.of(path), labels)):
            return path
        chain = self._by_chain.get(folded[:-1])
        if not chain or not self._unseen_brand or not at_end:
            return None
        return self._path_outside(LabelPath(*chain, given[-1]))

    def _by_end(self, fold_all: Callable[[tuple[str, ...]], tuple[str, ...]]) -> dict[tuple[str, ...], LabelPath]:
        """The paths by each end of their labels that no other path has, or that are all labels of just one path."""
        ends = [(fold_all(end), path, place == 0) for path in self.tree for place, end in enumerate(self._ends(path))]
        named = _unambiguous((end, path) for end, path, _ in ends)
        return named | _unambiguous((end, path) for end, path, whole in ends if whole)

    def _ends(self, path: LabelPath) -> Iterable[tuple[str, ...]]:
        """The ends of a path's labels. A path without a known brand is also named by its chain alone."""
        written = self.tree.written(path)
        ends = _suffixes(written)
        return ends if written[-1] else _suffixes(written[:-1])

    def _path_outside(self, path: LabelPath) -> LabelPath | None:
        """The path, with its brand spelt as in other chains; None if it is a misspelt brand of its own chain."""
        chain, brand = self.tree.levels.chain_of(path), fold(path[-1])
        if brand in self._by_brand:
            return LabelPath(*chain, self._by_brand[brand])
        misspelt = process.extractOne(brand, self._brands_of[chain], scorer=fuzz.ratio, score_cutoff=_MIN_MISSPELT)
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
        for matcher in dict.fromkeys((self._from_end, self._by_level)):
            some = [(text, reading.labels) for text, reading in tried if self._matcher_for(reading) is matcher]
            found = matcher.nearest([labels for _, labels in some], by_meaning)
            for (text, _), near in zip(some, found, strict=True):
                if text not in best or (near.score, near.share) > (best[text].score, best[text].share):
                    best[text] = near

    def _matcher_for(self, reading: Reading) -> PathMatcher:
        """What a reading is compared with: labels without keys that are not of the last levels count from the first."""
        return self._from_end if reading.style != KEYS and self._at_end(reading) else self._by_level

    def _at_end(self, reading: Reading) -> bool:
        return set(reading.labels) == set(self.tree.levels.names[-len(reading.labels) :])

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


def _ends_with(labels: Mapping[str, str], last: Mapping[str, str]) -> bool:
    """Whether the levels of `last` are the last ones of a path's labels by level."""
    return set(list(labels)[-len(last) :]) == set(last)


def _suffixes(labels: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    """(a, b, c), (b, c) and (c) of (a, b, c)."""
    return (labels[start:] for start in range(len(labels)))
