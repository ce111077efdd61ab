"""Ranks labelled rows by how clearly the evidence speaks against their label, and estimates the share of wrong labels.

The idea is that of confident learning (Northcutt, Jiang and Chuang 2021, JAIR 70): compare each given label with
probabilities that were found without it. With thousands of label paths most have few rows, and a path that no other row
has gets no probability at all. So the labels are compared level by level, and only where other rows have the label.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from tillmap.audit.evidence import Evidence
from tillmap.core.taxonomy import KEY, LabelPath, Levels, RankedPaths
from tillmap.evaluation.bootstrap import cluster_codes, mean_interval

Floats = NDArray[np.float64]

GUESS = "guess_{}"  # a column, to be filled in with a level's name
_EPS = 0.01  # added to shares: smaller ones say the same
_SUREST = 0.2  # the share of the rows on which wrong labels are counted


@dataclass(frozen=True)
class Share:
    """The estimated share of rows with a wrong label, with its 95% interval, and on how many rows it was counted."""

    share: float
    low: float
    high: float
    rows: int


def find_suspects(rows: pd.DataFrame, evidence: Evidence, levels: Levels, share: float) -> pd.DataFrame:
    """The rows with a label that is less likely than another, the most suspicious first.

    At each level, the share of the candidates with the row's label there is compared with that of the best other label.
    The row counts by its most suspicious level. A level does not count if no row of another fold has the row's label.

    Args:
        rows: labelled rows: split, id, description, retailer, price and the levels.
        evidence: about these rows.
        levels: their names.
        share: of the rows whose label is wrong, see `estimate_share`.

    Returns: the columns of `rows` named above, `guess_LEVEL` (the most probable path with another label at the most
    suspicious level), `level` (the first level that looks wrong), and `suspicion`: the share of the other label among
    the two, 0.5 to 1; `confidence`, the probability that the whole label is right, if it is wrong for `share` of all
    rows; and the shares that the row's own path and that of the guess have: `model_own`, `model_guess`, `votes_own`,
    `votes_guess`.
    """
    given = levels.paths(rows)
    odds = np.where(_known(given, evidence.fold, levels), _odds(given, evidence.paths, levels), -np.inf)
    worst = odds.argmax(axis=1)
    suspicion = expit(odds.max(axis=1))
    confidence = 1 - _doubts(odds.max(axis=1), share)
    listed = np.flatnonzero(suspicion > 0.5)
    listed = listed[np.argsort(-suspicion[listed], kind="stable")]
    names = _columns(levels)
    guesses = [_guess(given[row], evidence.paths[row], worst[row], levels) for row in listed]
    table = rows.iloc[listed][["split", "id", "description", "retailer", "price", *levels]].reset_index(drop=True)
    shown = levels.columns(guesses).rename(columns={level: GUESS.format(level) for level in levels})
    first = [names[int(np.argmax(odds[row] > 0))] for row in listed]
    table = pd.concat([table, shown], axis=1).assign(level=first, suspicion=suspicion[listed].round(4))
    table = table.assign(confidence=confidence[listed].round(4))
    for name, ranked in (("model", evidence.model), ("votes", evidence.votes)):
        for which, named in (("own", [given[row] for row in listed]), ("guess", guesses)):
            shares = [dict(ranked[row]).get(path, 0.0) for row, path in zip(listed, named, strict=True)]
            table[f"{name}_{which}"] = np.round(shares, 4)
    return table


def similar_rows(suspects: pd.DataFrame, rows: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """The most similar rows of other products of each suspect, as a neighbours table.

    Columns: split and id of the suspect, rank (from 0), neighbour (an id of `rows`) and score, the similarity.
    """
    place = pd.MultiIndex.from_frame(rows[KEY]).get_indexer(pd.MultiIndex.from_frame(suspects[KEY]))
    near, score = evidence.similar[place], evidence.similarity[place]
    who, rank = np.nonzero(near >= 0)
    table = suspects[KEY].iloc[who].reset_index(drop=True)
    neighbour = rows["id"].to_numpy()[near[who, rank]]
    return table.assign(rank=rank, neighbour=neighbour, score=score[who, rank].round(4))


def estimate_share(rows: pd.DataFrame, evidence: Evidence, levels: Levels, *, seed: int) -> Share:
    """Estimate the share of rows with a wrong label.

    It is the share of other labels among the fifth of the rows whose evidence is surest of one path, where the evidence
    itself is hardly ever wrong. It assumes that wrong labels are as frequent there as elsewhere; what the evidence gets
    wrong counts as wrong labels, so with clean labels it is somewhat too high. The interval is that of
    `bootstrap.mean_interval`, by product.
    """
    sure = np.array([ranked[0][1] if ranked else 0.0 for ranked in evidence.paths])
    surest = np.argsort(-sure, kind="stable")[: max(1, round(_SUREST * len(rows)))]
    given = levels.paths(rows)
    wrong = np.array([not evidence.paths[row] or evidence.paths[row][0][0] != given[row] for row in surest])
    clusters = cluster_codes(rows["product"].iloc[surest]) if "product" in rows else None
    low, high = mean_interval(wrong, clusters, seed=seed)
    return Share(float(wrong.mean()), low, high, len(surest))


def _columns(levels: Levels) -> list[str]:
    """The levels in the order in which they are compared: the chain, then the brand."""
    return [*levels.chain, *([levels.brand] if levels.brand else [])]


def _part(path: Sequence[str], column: int, levels: Levels) -> Hashable:
    """What is compared at a level: the chain down to it, or the brand alone."""
    depth = len(levels.chain)
    return tuple(path[: column + 1]) if column < depth else path[-1]


def _known(given: Sequence[LabelPath], fold: NDArray[np.int64], levels: Levels) -> NDArray[np.bool_]:
    """Whether a row of another fold has the same label (rows, levels)."""
    known = []
    for column in range(len(_columns(levels))):
        parts = [_part(path, column, levels) for path in given]
        everywhere, here = Counter(parts), Counter(zip(parts, fold.tolist(), strict=True))
        known.append([everywhere[part] > here[part, number] for part, number in zip(parts, fold.tolist(), strict=True)])
    return np.array(known, dtype=bool).T


def _odds(given: Sequence[LabelPath], evidence: Sequence[RankedPaths], levels: Levels) -> Floats:
    """The log of the best other label's share over that of the row's own label (rows, levels)."""
    columns = range(len(_columns(levels)))
    odds = np.zeros((len(given), len(columns)))
    for row, (path, ranked) in enumerate(zip(given, evidence, strict=True)):
        for column in columns:
            shares: dict[Hashable, float] = {}
            for candidate, share in ranked:
                part = _part(candidate, column, levels)
                shares[part] = shares.get(part, 0.0) + share
            own = shares.pop(_part(path, column, levels), 0.0)
            odds[row, column] = np.log((max(shares.values(), default=0.0) + _EPS) / (own + _EPS))
    return odds


def _doubts(odds: Floats, share: float) -> Floats:
    """The logistic function of the odds plus that number which makes its mean the share (rows,).

    Odds of minus infinity, of a label that no other row has, stay without a doubt, so the share is below that of the
    others.
    """
    doubtful, least = float(np.isfinite(odds).mean()), 1 / (2 * len(odds))
    if not doubtful:
        return np.zeros(len(odds))
    wanted = float(np.clip(share, least, min(0.5, doubtful - least)))
    plus = brentq(lambda plus: float(expit(odds + plus).mean()) - wanted, -50, 50)
    return np.asarray(expit(odds + plus), dtype=np.float64)


def _guess(path: LabelPath, ranked: RankedPaths, column: int, levels: Levels) -> LabelPath:
    """The most probable path with another label at a level."""
    own = _part(path, column, levels)
    return next(candidate for candidate, _ in ranked if _part(candidate, column, levels) != own)
