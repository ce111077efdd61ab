"""The neighbours' vote."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.retrieval.vote import vote, votes_by_key

PATHS = [("food", "dairy", "milk", "alder"), ("food", "dairy", "milk", "purely"), ("home", "bags", "bin bags", "alder")]
ROWS = pd.DataFrame(
    [(row_id, *PATHS[path]) for row_id, path in ((70, 0), (71, 0), (72, 1), (73, 2), (90, 0))], columns=["id", *CONTEST]
)
QUERIES = pd.DataFrame({"split": ["test", "train", "test"], "id": [5, 5, 3]})


def table(*found: tuple[str, int, list[int], list[float]]) -> pd.DataFrame:
    rows = [
        (split, query, rank, neighbour, score)
        for split, query, neighbours, scores in found
        for rank, (neighbour, score) in enumerate(zip(neighbours, scores, strict=True))
    ]
    return pd.DataFrame(rows, columns=["split", "id", "rank", "neighbour", "score"]).astype({"score": np.float32})


def ranked(candidates: pd.DataFrame, split: str, query: int) -> list[tuple[tuple[str, ...], float]]:
    mine = candidates[(candidates["split"] == split) & (candidates["id"] == query)]
    assert mine["rank"].tolist() == list(range(len(mine)))
    paths = mine[list(CONTEST)].itertuples(index=False, name=None)
    return [(path, round(score, 6)) for path, score in zip(paths, mine["score"], strict=True)]


def test_votes_are_weighed_and_whole_paths_win() -> None:
    neighbours = table(
        ("test", 5, [72, 70, 71], [0.8, 0.6, 0.4]), ("train", 5, [73], [0.1]), ("test", 3, [90, 73], [0.5, 0.5])
    )
    candidates = vote(neighbours, ROWS, QUERIES, CONTEST, k=3, power=2)
    weights = np.array([0.64, 0.36, 0.16])
    assert ranked(candidates, "test", 5) == [
        (PATHS[1], pytest.approx(0.64 / weights.sum(), abs=1e-6)),
        (PATHS[0], pytest.approx(0.52 / weights.sum(), abs=1e-6)),
    ]
    assert ranked(candidates, "train", 5) == [(PATHS[2], 1.0)]
    assert ranked(candidates, "test", 3) == [(PATHS[0], 0.5), (PATHS[2], 0.5)]  # a tie: the nearer one
    assert ranked(vote(neighbours, ROWS, QUERIES, CONTEST, k=3, power=0), "test", 5)[0] == (PATHS[0], round(2 / 3, 6))
    assert ranked(vote(neighbours, ROWS, QUERIES, CONTEST, k=1), "test", 5) == [(PATHS[1], 1.0)]


def test_the_order_is_that_of_the_queries_and_others_are_left_out() -> None:
    neighbours = table(("test", 3, [70], [1]), ("test", 99, [73], [1]), ("test", 5, [72], [1]), ("train", 5, [73], [1]))
    candidates = vote(neighbours, ROWS, QUERIES, CONTEST)
    assert candidates[["split", "id"]].to_numpy().tolist() == QUERIES.to_numpy().tolist()


def test_no_neighbours_gives_the_commonest_path_and_no_similarity_counts_alike() -> None:
    candidates = vote(table(("test", 5, [72, 73], [-0.2, -0.1])), ROWS, QUERIES, CONTEST)
    assert ranked(candidates, "test", 3) == [(PATHS[0], 0.6)]
    assert ranked(candidates, "test", 5) == [(PATHS[1], 0.5), (PATHS[2], 0.5)]


def test_paths_that_end_early_vote_as_whole_paths() -> None:
    levels = Levels(("division", "class"))
    paths = [LabelPath("food", "rye"), LabelPath("food", ""), LabelPath("home", "")]
    rows = pd.concat([pd.DataFrame({"id": [1, 2, 3, 4]}), levels.columns([*paths, paths[1]])], axis=1)
    found = vote(table(("test", 5, [1, 2, 4, 3], [1.0, 0.9, 0.9, 0.9])), rows, QUERIES, levels, power=1)
    assert found["class"].isna().sum() == 4
    ranking = votes_by_key(found, levels)
    assert [path for path, _ in ranking["test", 5]] == [paths[1], paths[0], paths[2]]
    assert ranking["test", 3] == [(paths[1], 0.5)], "the commonest path"


def test_unknown_neighbours_and_unlabelled_rows_are_told() -> None:
    with pytest.raises(InputError, match="neighbour 8 is not"):
        vote(table(("test", 5, [70, 8], [1, 1])), ROWS, QUERIES, CONTEST)
    with pytest.raises(InputError, match="no labelled rows"):
        vote(table(("test", 5, [70], [1])), ROWS.assign(supergroup=None), QUERIES, CONTEST)


@settings(max_examples=40, deadline=None)
@given(
    found=st.lists(
        st.lists(st.tuples(st.sampled_from(ROWS["id"].tolist()), st.floats(-1, 1, width=32)), max_size=6),
        min_size=1,
        max_size=5,
    ),
    k=st.integers(1, 6),
    power=st.floats(0, 8),
)
def test_every_query_is_answered_with_shares(found: list[list[tuple[int, float]]], k: int, power: float) -> None:
    queries = pd.DataFrame({"split": "test", "id": range(len(found))})
    neighbours = table(*(("test", i, [n for n, _ in each], [s for _, s in each]) for i, each in enumerate(found)))
    candidates = vote(neighbours, ROWS, queries, CONTEST, k, power)
    assert candidates.loc[candidates["rank"] == 0, "id"].tolist() == queries["id"].tolist()
    for i, each in enumerate(found):
        mine = candidates[candidates["id"] == i]
        assert not mine.duplicated(list(CONTEST)).any()
        assert (mine["score"].diff().dropna() <= 1e-12).all()
        if each:
            assert mine["score"].sum() == pytest.approx(1)
            heard = ROWS.set_index("id").loc[[n for n, _ in each[:k]], list(CONTEST)].drop_duplicates()
            assert set(mine[list(CONTEST)].itertuples(index=False)) == set(heard.itertuples(index=False))
