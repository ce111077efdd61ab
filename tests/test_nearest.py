"""The nearest arm: what the neighbours' vote becomes as completions."""

import json

import pandas as pd
import pytest

from arm_context import make_context
from tillmap.arms import ARMS
from tillmap.arms.nearest import MAX_CANDIDATES, Nearest
from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.retrieval.vote import vote

PATHS = [LabelPath("food", "dairy", "milk", f"brand {number}") for number in range(12)]
TRAINING = pd.DataFrame([(70 + number, *path) for number, path in enumerate(PATHS)], columns=["id", *CONTEST])
ASKED = pd.DataFrame({"split": ["test", "train", "test"], "id": [5, 5, 3], "subset": ["test", "holdout", "test"]})
NEIGHBOURS = pd.DataFrame(
    [("test", 3, rank, 70 + rank, 1 - rank / 20) for rank in range(12)] + [("train", 5, 0, 81, 0.3)],
    columns=["split", "id", "rank", "neighbour", "score"],
)


def answer(k=20, power=5.0, asked=ASKED):
    seen = []
    context = make_context("nearest", Nearest.Settings(retriever="dense", k=k, power=power), TRAINING, NEIGHBOURS)
    context.neighbours = lambda rows, retriever: seen.append((len(rows), retriever)) or NEIGHBOURS
    answers = list(ARMS["nearest"].answer(context, asked))
    assert seen == [(len(asked), "dense")], "the retriever of its settings, asked once"
    return context, answers


def test_every_row_is_answered_in_order_with_its_candidates():
    context, answers = answer()
    assert [(one.split, one.id) for one in answers] == list(ASKED[["split", "id"]].itertuples(index=False, name=None))
    alone, far, near = answers
    assert near.candidates[0][0] == list(PATHS[0])
    assert len(near.candidates) == MAX_CANDIDATES < 12
    shares = [share for _, share in near.candidates]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1
    assert far.candidates == [[list(PATHS[11]), 1.0]]
    assert alone.candidates[0][0] == list(PATHS[0]), "without neighbours: the commonest path, of equals the first"
    for one in answers:
        assert (one.status, one.logprob) == ("ok", None)
        path = make_answer_format(ARMS["nearest"].answer_format(context.settings), context.tree).decode(one.text)
        assert list(path) == one.candidates[0][0] == list(json.loads(one.text).values())


@pytest.mark.parametrize(("k", "power"), [(20, 5.0), (3, 0.0), (1, 2.0)])
def test_the_shares_are_those_of_the_vote(k, power):
    _, answers = answer(k, power)
    table = vote(NEIGHBOURS, TRAINING, ASKED[["split", "id"]], CONTEST, k, power)
    expected = table[(table["split"] == "test") & (table["id"] == 3)].head(MAX_CANDIDATES)
    assert [share for _, share in answers[2].candidates] == expected["score"].round(6).tolist()


def test_the_answers_of_paths_that_end_early():
    levels = Levels(("division", "class"))
    training = pd.concat([pd.DataFrame({"id": [70, 71]}), levels.columns([("food", ""), ("food", "rye")])], axis=1)
    settings = Nearest.Settings(retriever="dense", k=2, power=0.0)
    context = make_context("nearest", settings, training, NEIGHBOURS[NEIGHBOURS["rank"] < 2].iloc[:2], levels=levels)
    one, *_ = Nearest().answer(context, ASKED.tail(1))
    assert json.loads(one.text) == {"division": "food"}
    assert one.candidates == [[["food", ""], 0.5], [["food", "rye"], 0.5]]


def test_one_row_alone_is_answered_as_among_others():
    _, together = answer()
    assert [answer(asked=ASKED.iloc[[place]])[1][0] for place in range(3)] == together
