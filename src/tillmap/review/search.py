"""Finds label paths by any part of any label."""

from collections.abc import Iterable, Sequence
from heapq import nlargest
from operator import itemgetter

from tillmap.core.taxonomy import LabelPath, LabelTree, trim
from tillmap.core.text import normalise

_Entry = tuple[LabelPath, str]  # a path and its text, see `_text`


class PathSearch:
    """A search over the paths of a tree."""

    def __init__(self, tree: LabelTree) -> None:
        self._tree = tree
        self._texts = {path: _text(tree, path) for path in tree.ranked}

    def find(self, query: str, limit: int) -> tuple[list[LabelPath], int]:
        """The best paths for a query, and the number of all that it finds.

        Each word of the query must be part of a label or of the code, in any order. Case, accents and punctuation do
        not matter. Paths of which the query is a whole label come first, then those that have all its words, then those
        with words that start with them, then the others. Among these, paths with more rows come first. A query without
        a word finds nothing.
        """
        words = normalise(query).split()
        if not words:
            return [], 0
        matching = _having(self._texts.items(), words)
        best: dict[LabelPath, None] = {}
        for parts in ([f"| {' '.join(words)} |"], [f" {word} " for word in words], [f" {word}" for word in words], []):
            best |= dict.fromkeys(path for path, _ in _having(matching, parts)[:limit])
            if len(best) >= limit:
                break
        return list(best)[:limit], len(matching)

    def near(self, path: LabelPath, limit: int) -> list[LabelPath]:
        """Other paths that start like this one, those with the most labels in common and the most rows first."""
        found: dict[LabelPath, None] = {}
        stem: Sequence[str] = trim(self._tree.levels.stem(path))
        while stem and len(found) <= limit:
            siblings = [(self._tree.rows_of(other), other) for other in self._tree.starting(*stem)]
            found |= dict.fromkeys(other for _, other in nlargest(limit + 1, siblings, key=itemgetter(0)))
            stem = stem[:-1]
        return [other for other in found if other != path][:limit]


def _having(entries: Iterable[_Entry], parts: Iterable[str]) -> Sequence[_Entry]:
    """The entries whose texts have all these parts."""
    for part in parts:
        entries = [entry for entry in entries if part in entry[1]]
    return list(entries)


def _text(tree: LabelTree, path: LabelPath) -> str:
    """The words of a path and of its code: a space on both sides of each word, a bar on both sides of each label."""
    labels = filter(None, map(normalise, (*path, tree.code_of(path))))
    return f"| {' | '.join(labels)} |"
