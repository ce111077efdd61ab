"""The vote: always one of the paths that were named, and louder where an arm is sure."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.taxonomy import LabelPath
from tillmap.postprocessing.voting import completions, elect

PATHS = [LabelPath(*path) for path in (("a", "b", "c", brand) for brand in "xyz")]
PATHS += [LabelPath("a", "b", "d", "x"), LabelPath("e", "f", "c", "x"), LabelPath("e", "f", "g", "w")]
SHARE = st.floats(0, 1)
RANKED = st.lists(st.tuples(st.sampled_from(PATHS), SHARE), min_size=1, max_size=6, unique_by=lambda pair: pair[0])


@given(st.lists(st.tuples(SHARE, RANKED), min_size=1, max_size=5))
def test_the_winner_is_always_a_path_that_somebody_named(ballots):
    elected = elect(ballots)
    named = {path for _, ranked in ballots for path, _ in ranked}
    assert {path for path, _ in elected} == named
    assert sum(share for _, share in elected) == pytest.approx(1)
    assert [share for _, share in elected] == sorted((share for _, share in elected), reverse=True)
    assert elect(ballots[::-1])[0][1] == pytest.approx(elected[0][1])


def test_the_surer_arm_wins_and_two_outvote_it():
    x, y, z, *_, other = PATHS
    assert elect([(0.8, [(x, 1.0)]), (0.3, [(other, 1.0)])])[0][0] == x
    assert elect([(0.8, [(x, 1.0)]), (0.7, [(other, 1.0)]), (0.7, [(other, 1.0)])])[0][0] == other
    assert elect([(0.8, [(x, 1.0)]), (0.5, [(other, 1.0)]), (0.5, [(other, 1.0)])])[0][0] == x, "two in doubt do not"
    assert elect([(1.0, [(x, 1.0)]), (0.99, [(other, 1.0)])])[0][0] == x
    assert elect([(0.4, [(other, 1.0)])]) == [(other, 1.0)]
    # Two that agree on all but the brand outvote one that is as sure as they are.
    assert elect([(0.5, [(other, 1.0)]), (0.5, [(y, 1.0)]), (0.49, [(z, 1.0)])])[0][0] == y


def test_a_second_candidate_counts_with_its_share():
    x, y, *_ = PATHS
    assert elect([(0.5, [(x, 0.6), (y, 0.4)]), (0.5, [(y, 0.7)])])[0][0] == y
    with pytest.raises(ValueError, match="no ballot"):
        elect([(0.5, [])])


def test_an_election_is_a_completion():
    [answer] = completions({("test", 4): elect([(0.5, [(PATHS[0], 0.7), (PATHS[3], 0.3)])])}, most=1)
    assert (answer.split, answer.id, answer.status) == ("test", 4, "ok")
    assert tuple(json.loads(answer.text).values()) == PATHS[0]
    assert [path for path, _ in answer.candidates] == [list(PATHS[0])]


ELECT = """
import random
from tillmap.postprocessing.voting import elect
from tillmap.core.taxonomy import LabelPath
draw = random.Random(1)
paths = [LabelPath("a", "b", module, brand) for module in "cdef" for brand in "uvwxyz"]
for _ in range(50):
    print(elect([(draw.random(), [(path, draw.random()) for path in draw.sample(paths, 10)]) for _ in range(3)]))
"""


def test_the_shares_are_the_same_to_the_last_bit_in_every_process():
    """Python orders a set of texts anew in each."""
    said = {
        subprocess.run(
            [sys.executable, "-c", ELECT], env=os.environ | {"PYTHONHASHSEED": str(seed)}, text=True,
            capture_output=True, check=True,
        ).stdout
        for seed in (1, 2, 3)
    }  # fmt: skip
    assert len(said) == 1
