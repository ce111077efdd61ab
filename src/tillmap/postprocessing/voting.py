"""The `vote` arm: the other arms vote for whole label paths, all levels together, each as loudly as it is sure."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tillmap.core.completions import Completion
from tillmap.core.taxonomy import LabelPath

Key = tuple[str, int]
Ranked = Sequence[tuple[LabelPath, float]]

# A path counts the votes for each of its labels, as linear scores it: arms that agree on the module but not on the
# brand still help each other. Going down level by level instead, with no way back, gets fewer items right.
LEVEL_WEIGHTS = (0.2, 0.2, 0.4, 1.0)
# Odds, not confidences: two arms in doubt do not outvote one that is sure. Right on more held-out rows of the demo and
# of real receipts than either confidences or log odds, best for independent voters (Nitzan and Paroush, 1982).
_SUREST = 0.999


def elect(ballots: Sequence[tuple[float, Ranked]]) -> list[tuple[LabelPath, float]]:
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


def completions(elected: Mapping[Key, Ranked], most: int = 10) -> Iterator[Completion]:
    """The elections as completions: the winner as the answer, the first `most` paths as candidates."""
    for (split, row_id), ranked in elected.items():
        candidates = [[list(path), round(share, 6)] for path, share in ranked[:most]]
        answer = json.dumps(ranked[0][0]._asdict(), ensure_ascii=False)
        yield Completion(split, row_id, answer, "ok", candidates=candidates)
