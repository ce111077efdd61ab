"""Why a row got its answer: the best paths, the nearest labelled rows, and the words that spoke most for the answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tillmap.core.taxonomy import KEY, Key, Levels
from tillmap.linear import BIAS

EXPLANATION = ("candidates", "neighbours", "words")  # the columns
MAX_EXPLAINED = 10  # an arm names no more candidates

Entries = list[dict[str, Any]]


def candidates_of(
    completions: Sequence[Mapping[str, Any]], answers: pd.DataFrame, levels: Levels, k: int
) -> list[Entries]:
    """The k best paths of each row, best first: `path` (labels, None where it has none) and `share`.

    The share is the arm's own, from 0 to 1. An arm that names no other paths gives its answer, with its confidence.
    """
    found = []
    paths, sure = levels.paths(answers), answers["confidence"].tolist()
    for record, path, confidence in zip(completions, paths, sure, strict=True):
        named = record["candidates"] or ()
        ranked: list[tuple[Sequence[str], float]]
        ranked = [(labels, share) for labels, share in named[:k] if isinstance(labels, list)]  # and no text
        found.append([{"path": _labels(each), "share": share} for each, share in ranked or [(path, confidence)]])
    return found


def neighbours_of(
    near: pd.DataFrame, training: pd.DataFrame, rows: pd.DataFrame, levels: Levels, k: int
) -> list[Entries]:
    """The k nearest labelled rows of each row, nearest first: `id`, `text`, `path` and `similarity`.

    Args:
        near: the neighbours table of the rows.
        training: the rows that the neighbours are from, with `given_id` if the ids of the user's files are others.
        rows: split and id of the rows.
        levels: the names of the levels.
        k: how many to give.
    """
    entries: dict[Key, Entries] = {key: [] for key in rows[KEY].itertuples(index=False, name=None)}
    near = near[near["rank"] < k]
    places = pd.Index(training["id"]).get_indexer(pd.Index(near["neighbour"]))
    used, where = pd.factorize(places)
    known = training.take(where)
    ids = known["given_id" if "given_id" in known else "id"].astype("str").tolist()
    named = list(zip(ids, known["description"].tolist(), map(_labels, levels.paths(known)), strict=True))
    columns = (
        near["split"].tolist(),
        near["id"].tolist(),
        used.tolist(),
        near["score"].astype(float).round(4).tolist(),
    )
    for split, row_id, at, score in zip(*columns, strict=True):
        given, text, path = named[at]
        entries[split, row_id].append({"id": given, "text": text, "path": path, "similarity": score})
    return list(entries.values())


def words_of(scores: Sequence[Mapping[str, float]], k: int) -> list[Entries]:
    """The k words of each row that speak most for its answer: `word`, and `adds`, what it adds to the answer's score.

    `scores` are those of `linear.words.word_scores`. A word that speaks against the answer is left out.
    """
    return [
        [
            {"word": word, "adds": round(value, 4)}
            for word, value in sorted(parts.items(), key=lambda part: -part[1])[: k + 1]
            if word != BIAS and value > 0
        ][:k]
        for parts in scores
    ]


def _labels(path: Sequence[str]) -> list[str | None]:
    return list(path) if all(path) else [label or None for label in path]
