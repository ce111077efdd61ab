"""From a model's answer to a label path of the tree, whatever the answer looks like."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from rapidfuzz import fuzz, process

from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.llm.interface.answer_formats import AnswerFormat, unescape
from tillmap.postprocessing.matching import Embed, NearestPath, PathMatcher, fold
from tillmap.postprocessing.parsing import Reading, readings, runs

_SURE = 0.8  # from this score on, a text's likeliest reading is taken without a look at the others
_MISSPELT = 80  # from this RapidFuzz ratio to one of its chain's brands on, a brand is that one misspelt, and not new

Repair = Literal["none", "folded", "parsed", "snapped", "vote"]
Neighbours = Sequence[tuple[LabelPath, float]]  # the paths of an item's neighbours, each with a weight


class Repaired(NamedTuple):
    """A path, what it took to get there, how sure that is (0 to 1), and whether the path is one of the tree's.

    The confidence is 1 where no label had to be guessed; for `snapped` it is the similarity, shared among the paths
    that are as near by their rows; for `vote` the winner's share of the weights. It says nothing of the model's answer.
    """

    path: LabelPath
    repair: Repair
    confidence: float
    in_tree: bool = True


class Repairer:
    """Turns answers into paths by the first of these that succeeds:

    `none`     the answer is exactly the encoding of a path;
    `folded`   it is that but for case, punctuation and separators;
    `parsed`   read leniently, its labels, folded, name one path; or an answer stands among other words;
    `snapped`  its labels, taken together, are near a path;
    `vote`     the neighbours' weighted vote, or the tree's commonest path where there are none.
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
        """Prepare the look-ups of a tree whose answers are written as `answer_format`.

        `embed` finds paraphrases, which no similarity of characters can. `unseen_brand` lets a path through whose
        chain is known and whose brand is none of that chain's. Under `min_score` an answer is like no path.
        `exact_only` repairs nothing: what is not exactly a path goes to the vote.
        """
        self.tree = tree
        self._answer_format = answer_format
        self._unseen_brand = unseen_brand
        self._least_score = min_score
        self._exact_only = exact_only
        self._matcher = PathMatcher(tree, embed)
        self._by_answer = _unambiguous((fold(unescape(answer)), path) for answer, path in answer_format.answers.items())
        self._by_labels = _unambiguous((suffix, path) for path in tree for suffix in _suffixes(_fold_all(path)))
        # Where punctuation is all that tells two labels apart, it is heeded.
        self._by_cased_answer = _unambiguous(
            (answer.casefold(), path) for answer, path in answer_format.answers.items()
        )
        self._by_cased_labels = _unambiguous((suffix, path) for path in tree for suffix in _suffixes(_uncase_all(path)))
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
        """The path that one answer stands for. Never fails, whatever the text."""
        return self.repair_all([text], [neighbours])[0]

    def repair_all(self, texts: Sequence[str], neighbours: Sequence[Neighbours] | None = None) -> list[Repaired]:
        """The paths of many answers, in their order; a text that comes more than once is repaired once.

        `neighbours`, as long as `texts`, is only asked about answers that need the vote, so it may be lazy.
        Raises ValueError where the lengths differ.
        """
        if neighbours is not None and len(neighbours) != len(texts):
            raise ValueError(f"{len(texts)} texts but neighbours of {len(neighbours)}; give each text its own")
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
        """The steps without similarity, `none`, `folded` and `parsed`; failing these, the text's readings, if any."""
        text = text.encode(errors="replace").decode()  # half a surrogate pair could be neither embedded nor stored
        exact = self._answer_format.decode(text) or self._answer_format.decode(text.strip())
        if exact:
            return Repaired(exact, "none", 1.0)
        if self._exact_only:
            return self._unseen(text) or []
        folded = fold(unescape(text))
        meant = self._by_cased_answer.get(text.strip().casefold()) or self._by_answer.get(folded)
        if meant:
            return Repaired(meant, "folded", 1.0)
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
        # Four labels that name no path contradict each other: no two of them are believed without the others.
        whole = len(options[0].labels) == len(LEVELS)
        names, stretches = (self._whole_names, runs(text, len(LEVELS))) if whole else (self._names, runs(text))
        among_others = next((names[stretch] for stretch in stretches if stretch in names), None)
        return Repaired(among_others, "parsed", 1.0) if among_others else options

    def _unseen(self, text: str) -> Repaired | None:
        """A known chain with an unseen brand, exactly as the answer format writes it, where these are let through."""
        written = self._answer_format.decode_open(text.strip()) if self._unseen_brand else None
        if written and (written in self.tree or self._path_outside(written) == written):
            return Repaired(written, "none", 1.0, in_tree=written in self.tree)
        return None

    def _named_by(self, labels: Mapping[str, str]) -> LabelPath | None:
        """The one path with these labels, which must be the last levels; or a known chain with an unseen brand."""
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
        """A path of a known chain with its brand as other chains spell it; None where one of its chain's is meant."""
        brand = fold(path.brand)
        if brand in self._by_brand:
            return path._replace(brand=self._by_brand[brand])
        misspelt = process.extractOne(brand, self._brands_of[path[:3]], scorer=fuzz.ratio, score_cutoff=_MISSPELT)
        return None if misspelt else path

    def _snap(self, options: Mapping[str, Sequence[Reading]]) -> dict[str, Repaired]:
        """The nearest path of each text that is near any; where the likeliest reading names none, in any reading."""
        best: dict[str, NearestPath] = {}
        self._find_nearer(best, [(text, reading) for text, (reading, *_) in options.items()], by_meaning=True)
        open_texts = [text for text, (_, *others) in options.items() if others and best[text].score < _SURE]
        others = [(text, reading) for text in open_texts for reading in options[text][1:]]
        self._find_nearer(best, others, by_meaning=False)  # a brand taken for a module means nothing
        return {
            text: Repaired(near.path, "snapped", min(near.score * near.share, 1.0))
            for text, near in best.items()
            if near.score >= self._least_score
        }

    def _find_nearer(
        self, best: dict[str, NearestPath], tried: Sequence[tuple[str, Reading]], by_meaning: bool
    ) -> None:
        found = self._matcher.nearest([reading.labels for _, reading in tried], by_meaning)
        for (text, _), near in zip(tried, found, strict=True):
            if text not in best or (near.score, near.share) > (best[text].score, best[text].share):
                best[text] = near

    def _vote(self, neighbours: Neighbours) -> Repaired:
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
    """The pairs as a mapping, without the keys that come with different values."""
    found: dict[_Key, _Value] = {}
    ambiguous = {key for key, value in pairs if found.setdefault(key, value) != value}
    return {key: value for key, value in found.items() if key not in ambiguous}


def _fold_all(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(fold, labels))


def _uncase_all(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(str.casefold, labels))


def _suffixes(labels: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    return (labels[start:] for start in range(len(labels)))
