"""The vote: always one of the paths that were named, and louder where an arm is sure."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.postprocessing.predictions import prediction_columns
from tillmap.postprocessing.voting import choose_voters, completions, elect, hold_election

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
    [answer] = completions({("test", 4): elect([(0.5, [(PATHS[0], 0.7), (PATHS[3], 0.3)])])}, CONTEST, count=1)
    assert (answer.split, answer.id, answer.status) == ("test", 4, "ok")
    assert tuple(json.loads(answer.text).values()) == PATHS[0]
    assert [path for path, _ in answer.candidates] == [list(PATHS[0])]


@pytest.mark.parametrize(
    "levels", [Levels(("class",)), Levels(("division", "group", "class")), Levels(tuple("abcdefgh"))]
)
def test_paths_of_any_levels_are_elected(levels):
    first, second = LabelPath("a", *[""] * (len(levels) - 1)), LabelPath(*["b"] * len(levels))
    elected = elect([(0.6, [(first, 1.0)]), (0.5, [(second, 0.9), (first, 0.1)])])
    assert [path for path, _ in elected] == [first, second]
    assert sum(share for _, share in elected) == pytest.approx(1)
    [answer] = completions({("test", 1): elected}, levels)
    assert json.loads(answer.text) == {levels.names[0]: "a"}


def test_a_path_that_ends_early_is_supported_by_those_below_it_but_not_by_the_others():
    bread, rye, rolls, soap = (
        LabelPath(*path) for path in (("food", "bread", ""), ("food", "bread", "rye"), ("food", "bread", "rolls"),
                                      ("home", "soap", "bars"))
    )  # fmt: skip
    assert elect([(0.5, [(rye, 1.0)]), (0.49, [(bread, 1.0)]), (0.51, [(soap, 1.0)])])[0][0] == rye
    assert elect([(0.5, [(bread, 1.0)]), (0.5, [(bread, 1.0)]), (0.5, [(rolls, 1.0)])])[0][0] == bread


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
    seeds = [os.environ | {"PYTHONHASHSEED": str(seed)} for seed in (1, 2, 3)]
    running = [subprocess.Popen([sys.executable, "-c", ELECT], env=env, stdout=subprocess.PIPE) for env in seeds]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1 and len(said.pop()) > 1000
    assert not any(process.returncode for process in running)


# The election of all rows


def rows_of(subsets):
    """A rows table, alternating between the first two paths, whose test rows are labelled, too."""
    table = pd.DataFrame([PATHS[number % 2] for number in range(len(subsets))], columns=list(CONTEST))
    split = ["test" if subset == "test" else "train" for subset in subsets]
    return table.assign(split=split, id=range(len(subsets)), subset=subsets, description="d", product=range(len(table)))


def says(rows, paths, confidence=0.6, arm="nearest"):
    table = pd.DataFrame(paths, columns=list(CONTEST))
    table = pd.concat([rows[["split", "id"]].reset_index(drop=True), table], axis=1)
    return table.assign(confidence=confidence, repair="none", in_tree=True, source=arm, status="ok")[
        prediction_columns(CONTEST)
    ]


def test_only_rows_that_all_voters_answered_are_voted_on(caplog):
    rows = rows_of(["train"] * 2 + ["test"] * 4)
    asked = rows[2:]
    all_rows = says(asked, [PATHS[0]] * 4)
    piloted = says(asked.iloc[[2, 0]], [PATHS[0], PATHS[1]], 0.9, "rag")
    found = hold_election({"nearest": all_rows, "rag": piloted}, {}, rows, LabelTree.from_rows(rows[:2], CONTEST))
    assert found.predictions[["split", "id"]].to_numpy().tolist() == [["test", 2], ["test", 4]]
    assert [record["id"] for record in found.completions] == [2, 4]
    answers = [tuple(answer) for answer in found.predictions[list(CONTEST)].itertuples(index=False)]
    assert answers == [PATHS[1], PATHS[0]], "each row by its own ballots, whatever the order of a table"
    assert found.agreed == 1
    assert "no row of the calibration subset was answered by all voters" in caplog.text
    assert list(found.predictions) == prediction_columns(CONTEST)
    assert set(found.predictions["source"]) == {"vote"} and found.predictions["in_tree"].all()


def test_a_path_that_no_labelled_row_has_is_marked():
    rows = rows_of(["train", "train", "test"])
    found = hold_election({"rag": says(rows[2:], [PATHS[4]])}, {}, rows, LabelTree.from_rows(rows[:2], CONTEST))
    assert not found.predictions["in_tree"].any()


def test_an_election_of_ragged_paths_keeps_their_ends():
    levels = Levels(("division", "class"))
    paths = [LabelPath("food", ""), LabelPath("food", "rye")]
    rows = pd.concat([rows_of(["train", "train", "test"])[["split", "id", "subset", "description"]],
                      levels.columns([*paths, paths[0]])], axis=1)  # fmt: skip
    said = (
        rows.loc[[2], ["split", "id", *levels]]
        .reset_index(drop=True)
        .assign(confidence=0.6, repair="none", in_tree=True, source="rag", status="ok")
    )
    found = hold_election({"rag": said, "llama": said}, {}, rows, LabelTree.from_rows(rows[:2], levels))
    assert list(found.predictions) == prediction_columns(levels)
    assert levels.paths(found.predictions) == [paths[0]] and found.predictions["class"].isna().all()
    assert (found.agreed, found.predictions["in_tree"].tolist()) == (1, [True])


def test_free_arms_vote_with_their_candidates_and_others_with_their_answer():
    rows = rows_of(["train", "train", "test"])
    free = {"nearest": {("test", 2): [(PATHS[0], 0.55), (PATHS[1], 0.45)]}}
    voters = {"nearest": says(rows[2:], [PATHS[0]]), "rag": says(rows[2:], [PATHS[1]], 0.5, "rag")}
    tree = LabelTree.from_rows(rows[:2], CONTEST)
    assert tuple(hold_election(voters, free, rows, tree).predictions.loc[0, list(CONTEST)]) == PATHS[1]
    assert tuple(hold_election(voters, {}, rows, tree).predictions.loc[0, list(CONTEST)]) == PATHS[0]


def test_the_votes_confidences_are_calibrated_on_the_calibration_subset():
    rows = rows_of(["train"] * 4 + ["calibration"] * 200 + ["test"] * 200)
    asked = rows[4:].reset_index(drop=True)
    right = asked["id"] % 4 > 0  # three of four
    paths = [PATHS[(row % 2) ^ (not ok)] for row, ok in zip(asked["id"], right, strict=True)]
    found = hold_election({"nearest": says(asked, paths, 0.2)}, {}, rows, LabelTree.from_rows(rows[:4], CONTEST))
    new = found.predictions[found.predictions["split"] == "test"]
    assert new["confidence"].mean() == pytest.approx(0.75, abs=0.02)
    assert found.agreed == len(asked)


def test_the_voters_are_those_wanted_that_are_on():
    assert choose_voters(["rag", "linear", "nearest"], ["nearest", "linear", "openai"]) == ["linear", "nearest"]
    with pytest.raises(ParamsError, match=r"^vote\.arms: rag, openai: these arms are all off; switch one on"):
        choose_voters(["rag", "openai"], ["nearest"])
