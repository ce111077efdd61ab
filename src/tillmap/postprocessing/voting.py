"""The vote: the other arms vote for whole label paths, all levels together, each with the odds of its confidence."""

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
from tillmap.core.taxonomy import KEY, LEVELS, Key, LabelPath, LabelTree, RankedPaths
from tillmap.postprocessing.calibration import CandidateScores, calibrate, make_signals
from tillmap.postprocessing.predictions import COLUMNS

logger = logging.getLogger(__name__)


# A path counts the votes for each of its labels, as linear scores it: arms that agree on the module but not on the
# brand still help each other. Going down level by level instead, with no way back, gets fewer items right.
LEVEL_WEIGHTS = (0.2, 0.2, 0.4, 1.0)
# Odds, not confidences: two arms in doubt do not outvote one that is sure. Right on more held-out rows of the demo and
# of real receipts than either confidences or log odds, best for independent voters (Nitzan and Paroush, 1982).
_SUREST = 0.999


def elect(ballots: Sequence[tuple[float, RankedPaths]]) -> list[tuple[LabelPath, float]]:
    """The paths on the ballots, best first, with their shares of the votes, which sum to 1.

    A ballot is an arm's calibrated confidence in its answer, and its candidates with their shares, or its answer alone.
    A candidate gets the confidence's odds times its share. The winner is always a path that some arm named: never put
    together from two. Equals go in sorted order.

    Raises ValueError where no ballot names a path.
    """
    votes: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for confidence, candidates in ballots:
        sure = min(confidence, _SUREST)
        odds = sure / (1 - sure)
        for path, share in candidates:
            for depth in range(1, len(path) + 1):
                votes[path[:depth]] += odds * share
    # Sorted, for the order of a set is another in every run, and with it the last bits of a sum.
    paths = sorted({path for _, candidates in ballots for path, _ in candidates})
    if not paths:
        raise ValueError("no ballot names a path; give each arm's answer")
    scores = {
        path: sum(weight * votes[path[:depth]] for depth, weight in enumerate(LEVEL_WEIGHTS, 1)) for path in paths
    }
    total = sum(scores.values())
    ranked = sorted(paths, key=lambda path: -scores[path])
    return [(path, scores[path] / total if total else 1 / len(paths)) for path in ranked]


def completions(elected: Mapping[Key, RankedPaths], most: int = 10) -> Iterator[Completion]:
    """The elections as completions: the winner as the answer, the first `most` paths as candidates."""
    for (split, row_id), ranked in elected.items():
        candidates = [[list(path), round(share, 6)] for path, share in ranked[:most]]
        answer = json.dumps(ranked[0][0]._asdict(), ensure_ascii=False)
        yield Completion(split, row_id, answer, "ok", candidates=candidates)


def choose_voters(wanted: Sequence[str], answered: Sequence[str]) -> list[str]:
    """The arms that vote: those wanted that answered. Raises ParamsError where there is none."""
    voters = [arm for arm in wanted if arm in answered]
    if not voters:
        raise ParamsError(
            f"{VOTE}.arms: {', '.join(wanted)}: every arm is off that could vote; switch one on in `run`, "
            f"or the vote off with `-S run.{VOTE}=false`"
        )
    return voters


@dataclass(frozen=True)
class Election:
    """What the vote came to: its completions (records), its predictions, and on how many rows all voters agreed."""

    completions: list[dict[str, Any]]
    predictions: pd.DataFrame
    agreed: int


def hold_election(
    predictions: Mapping[str, pd.DataFrame],
    free: Mapping[str, CandidateScores],
    rows: pd.DataFrame,
    training: LabelTree,
) -> Election:
    """Let some arms vote on every row that all of them answered.

    Args:
        predictions: each voter's table, with calibrated confidences.
        free: the candidate scores of the voters that have them; the others vote for their answer alone.
        rows: the split's rows.
        training: the paths of the training subset.
    """
    tables = list(predictions.values())
    shared = tables[0][KEY]
    for table in tables[1:]:
        shared = shared.merge(table[KEY], on=KEY)
    tables = [shared.merge(table, on=KEY) for table in tables]
    cast = [_ballots(table, free.get(arm)) for arm, table in zip(predictions, tables, strict=True)]
    keys = list(shared.itertuples(index=False, name=None))
    elected = {key: elect(row) for key, row in zip(keys, zip(*cast, strict=True), strict=True)}
    said = [answer.as_record() for answer in completions(elected)]
    tree = LabelTree.from_rows(rows[rows["split"] == "train"])
    table = pd.DataFrame(
        [(*key, *path, share, "none", path in tree, VOTE, "ok") for key, ((path, share), *_) in elected.items()],
        columns=COLUMNS,
    )
    if rows.loc[rows["subset"] == "calibration", KEY].merge(table, on=KEY).empty:
        logger.warning("no row of the calibration subset was answered by all voters: the vote is not calibrated")
    else:
        table, _ = calibrate(table, make_signals(said, table, rows, free, training), rows)
    answers = (voter[list(LEVELS)].itertuples(index=False, name=None) for voter in tables)
    return Election(said, table, sum(len(set(row)) == 1 for row in zip(*answers, strict=True)))


def _ballots(predictions: pd.DataFrame, scores: CandidateScores | None) -> Iterator[tuple[float, RankedPaths]]:
    """One arm's ballot for each row of its predictions, in order; a free arm's has all its candidates."""
    columns = [*KEY, *LEVELS, "confidence"]
    for split, row_id, *labels, confidence in predictions[columns].itertuples(index=False, name=None):
        answer = LabelPath(*labels)
        yield confidence, (scores or {}).get((split, row_id)) or [(answer, 1.0)]
