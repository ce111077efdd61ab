"""The `vote` arm: the other arms vote for whole label paths, weighted by the odds of their confidences."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tillmap.config.blocks import VOTE
from tillmap.core.completions import Completion
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import KEY, Key, LabelPath, LabelTree, Levels, RankedPaths
from tillmap.postprocessing.calibration import CandidateScores, calibrate, make_signals
from tillmap.postprocessing.predictions import predictions_table

logger = logging.getLogger(__name__)


# Weights of a whole path, of what is above its last level, and of each start above that. A path also gets votes for its
# upper labels, so arms that agree on the module but not on the brand support each other. Choosing level by level from
# the top instead got fewer items right.
_WHOLE, _STEM, _ABOVE = 1.0, 0.4, 0.2
# Votes are weighted by odds, so that two arms in doubt do not outvote one that is confident. On held-out rows of the
# demo and of real receipts, odds are right more often than confidences and than log odds, which are optimal for
# independent voters (Nitzan and Paroush, 1982).
_MAX_CONFIDENCE = 0.999  # odds of 1 would be infinite


def elect(ballots: Sequence[tuple[float, RankedPaths]]) -> list[tuple[LabelPath, float]]:
    """Hold the vote for one row.

    A ballot is an arm's calibrated confidence and its candidates with their shares, or its answer alone. Each candidate
    gets the odds of the confidence times its share. The winner is always a path on some ballot, never a combination of
    two.

    Returns the paths on the ballots, best first, with shares that sum to 1; equal ones in sorted order. Raises
    ValueError if no ballot has a path.
    """
    votes: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for confidence, candidates in ballots:
        capped = min(confidence, _MAX_CONFIDENCE)
        odds = capped / (1 - capped)
        for path, share in candidates:
            for depth in range(1, len(path) + 1):
                votes[path[:depth]] += odds * share
    # Sorted, because the order of a set differs between runs, and with it the last digits of a sum.
    paths = sorted({path for _, candidates in ballots for path, _ in candidates})
    if not paths:
        raise ValueError("no ballot names a path; give each arm's answer")
    weights = level_weights(len(paths[0]))
    scores = {path: sum(weight * votes[path[:depth]] for depth, weight in enumerate(weights, 1)) for path in paths}
    total = sum(scores.values())
    ranked = sorted(paths, key=lambda path: -scores[path])
    return [(path, scores[path] / total if total else 1 / len(paths)) for path in ranked]


def level_weights(levels: int) -> tuple[float, ...]:
    """The weight of the labels down to each level.

    >>> level_weights(4)
    (0.2, 0.2, 0.4, 1.0)
    """
    return (*[_ABOVE] * (levels - 2), *[_STEM] * (levels > 1), _WHOLE)


def completions(elected: Mapping[Key, RankedPaths], levels: Levels, count: int = 10) -> Iterator[Completion]:
    """The results of `elect` as completions: the winner is the answer, the first `count` paths are the candidates."""
    for (split, row_id), ranked in elected.items():
        candidates = [[list(path), round(share, 6)] for path, share in ranked[:count]]
        answer = json.dumps(levels.of(ranked[0][0]), ensure_ascii=False)
        yield Completion(split, row_id, answer, "ok", candidates=candidates)


def choose_voters(wanted: Sequence[str], answered: Sequence[str]) -> list[str]:
    """The wanted arms that have answered. Raises ParamsError if there is none."""
    voters = [arm for arm in wanted if arm in answered]
    if not voters:
        raise ParamsError(
            f"{VOTE}.arms: {', '.join(wanted)}: these arms are all off; switch one on in `run`, "
            f"or switch the vote off with `-S run.{VOTE}=false`"
        )
    return voters


@dataclass(frozen=True)
class Election:
    """The result of the vote.

    Attributes:
        completions: its completions, as records.
        predictions: its predictions table, with calibrated confidences.
        agreed: the number of rows on which all voters gave the same answer.
    """

    completions: list[dict[str, Any]]
    predictions: pd.DataFrame
    agreed: int

    def usage(self, seconds: float) -> dict[str, Any]:
        """What the vote took, for the bill and the metrics; `seconds` were spent on it."""
        rows = len(self.predictions)
        return {
            "rows": rows,
            "test_rows": int((self.predictions["split"] == "test").sum()),
            "agreed": self.agreed,
            "rows_per_second": round(rows / seconds, 2),
        }


def hold_election(
    predictions: Mapping[str, pd.DataFrame],
    free: Mapping[str, CandidateScores],
    rows: pd.DataFrame,
    training: LabelTree,
) -> Election:
    """Let arms vote on every row that all of them answered.

    Args:
        predictions: each voter's predictions table, with calibrated confidences.
        free: the candidate scores of the free arms among the voters; the others vote for their answer alone.
        rows: the split's rows.
        training: the paths of the training subset.
    """
    tables = list(predictions.values())
    shared = tables[0][KEY]
    for table in tables[1:]:
        shared = shared.merge(table[KEY], on=KEY)
    tables = [shared.merge(table, on=KEY) for table in tables]
    levels = training.levels
    cast = [_ballots(table, levels, free.get(arm)) for arm, table in zip(predictions, tables, strict=True)]
    keys = list(shared.itertuples(index=False, name=None))
    elected = {key: elect(row) for key, row in zip(keys, zip(*cast, strict=True), strict=True)}
    said = [answer.as_record() for answer in completions(elected, levels)]
    tree = LabelTree.from_rows(rows[rows["split"] == "train"], levels, declared=training)
    table = predictions_table(
        ((key, path, share, "none", path in tree, VOTE, "ok") for key, ((path, share), *_) in elected.items()), levels
    )
    if rows.loc[rows["subset"] == "calibration", KEY].merge(table, on=KEY).empty:
        logger.warning("no row of the calibration subset was answered by all voters: the vote is not calibrated")
    else:
        table, _ = calibrate(table, make_signals(said, table, rows, free, training), rows, levels)
    answers = (levels.paths(voter) for voter in tables)
    return Election(said, table, sum(len(set(row)) == 1 for row in zip(*answers, strict=True)))


def _ballots(
    predictions: pd.DataFrame, levels: Levels, scores: CandidateScores | None
) -> Iterator[tuple[float, RankedPaths]]:
    """One arm's ballot for each row of its predictions, in order. A free arm's ballot has all its candidates."""
    columns = [*KEY, "confidence"]
    asked = predictions[columns].itertuples(index=False, name=None)
    for (split, row_id, confidence), answer in zip(asked, levels.paths(predictions), strict=True):
        yield confidence, (scores or {}).get((split, row_id)) or [(answer, 1.0)]
