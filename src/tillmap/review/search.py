"""Finds label paths by any part of any label."""

from collections.abc import Sequence
from heapq import nlargest
from operator import itemgetter

from tillmap.core.taxonomy import LabelPath, LabelTree, trim
from tillmap.core.text import normalise

# What a word of the query is worth that is a whole word of the path, or starts one; and a query that is a whole label.
_WORD, _START, _LABEL = 2, 1, 4


class PathSearch:
    """A search over the paths of a tree."""

    def __init__(self, tree: LabelTree) -> None:
        self._tree = tree
        self._paths = tree.ranked
        self._texts = [_text(tree, path) for path in self._paths]

    def find(self, query: str, limit: int) -> tuple[list[LabelPath], int]:
        """The best paths for a query, and the number of all that it finds.

        Each word of the query must be part of a label or of the code, in any order. Case, accents and punctuation do
        not matter. A path is better the more of the words are whole words of it, or start one. Of equally good paths,
        the one with more rows comes first. A query without a word finds nothing.
        """
        words = normalise(query).split()
        if not words:
            return [], 0
        label = f"| {' '.join(words)} |"
        forms = [(f" {word} ", f" {word}") for word in words]
        found = []
        for place, text in enumerate(self._texts):
            if all(word in text for word in words):
                worth = _LABEL if label in text else 0
                for whole, start in forms:
                    worth += _WORD if whole in text else _START if start in text else 0
                found.append((worth, -place))
        best = nlargest(limit, found)
        return [self._paths[-place] for _, place in best], len(found)

    def near(self, path: LabelPath, limit: int) -> list[LabelPath]:
        """Other paths that start like this one, those with the most labels in common and the most rows first."""
        found: dict[LabelPath, None] = {}
        stem: Sequence[str] = trim(self._tree.levels.stem(path))
        while stem and len(found) <= limit:
            siblings = [(self._tree.rows_of(other), other) for other in self._tree.starting(*stem)]
            found |= dict.fromkeys(other for _, other in nlargest(limit + 1, siblings, key=itemgetter(0)))
            stem = stem[:-1]
        return [other for other in found if other != path][:limit]


def _text(tree: LabelTree, path: LabelPath) -> str:
    """The words of a path and of its code: a space on both sides of each word, a bar on both sides of each label."""
    labels = filter(None, map(normalise, (*path, tree.code_of(path))))
    return f"| {' | '.join(labels)} |"
