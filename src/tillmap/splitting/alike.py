"""Finds labels that are probably meant to be one: those that differ only in case, spaces or signs."""

import logging
from collections import defaultdict

import pandas as pd

from tillmap.core.taxonomy import Levels
from tillmap.core.text import normalise

logger = logging.getLogger(__name__)


def alike_labels(rows: pd.DataFrame, levels: Levels) -> dict[str, list[list[str]]]:
    """For each level that has some, the groups of labels that `normalise` makes equal, each group sorted.

    Accents count: "pate" and "pâté" are two things.

    >>> rows = pd.DataFrame({"group": ["dairy", "dairy ", "Dairy", "bread"]})
    >>> alike_labels(rows, Levels(("group",)))
    {'group': [['Dairy', 'dairy', 'dairy ']]}
    """
    found: dict[str, list[list[str]]] = {}
    for level in levels:
        groups: defaultdict[str, list[str]] = defaultdict(list)
        for label in sorted(rows[level].dropna().unique()):
            groups[normalise(label, keep_accents=True) or label].append(label)
        if alike := [group for group in groups.values() if len(group) > 1]:
            found[level] = alike
    return found


def count_alike(rows: pd.DataFrame, levels: Levels) -> dict[str, int]:
    """How many such groups each level has, if any. Each level is said in the log, with an example."""
    found = alike_labels(rows, levels)
    for level, groups in found.items():
        logger.warning(
            "stratify: %s: %s differ only in case, spaces or signs (groups of such labels: %s); they stay apart: if "
            "they mean the same, write them alike in your files",
            level,
            " and ".join(map(repr, groups[0])),
            f"{len(groups):,}",
        )
    return {level: len(groups) for level, groups in found.items()}
