"""Labelled rows whose label looks wrong: evidence, ranking, the estimated share, and the rows for the review page."""

import numpy as np
import pandas as pd
import pytest

from tillmap.audit.evidence import Evidence, gather, neighbours_votes
from tillmap.audit.suspects import GUESS, estimate_share, find_suspects, similar_rows
from tillmap.config import paths
from tillmap.core.errors import InputError
from tillmap.core.files import write_table
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels
from tillmap.linear.model import Recipe
from tillmap.review import sources

LEVELS = Levels(("group", "kind", "brand"), "brand")
TAXONOMIES = {
    "a brand": (LEVELS, [("food", "tea", "alder"), ("food", "milk", "birch"), ("home", "soap", "cedar")]),
    "no brand": (Levels(("group", "kind")), [("food", "tea"), ("food", "milk"), ("home", "soap")]),
    "one level": (Levels(("kind",)), [("tea",), ("milk",), ("soap",)]),
    "ragged": (Levels(("group", "kind", "sort")), [("food", "tea", "green"), ("food", "milk", ""), ("home", "", "")]),
}
WORDS = (("tea", "leaf", "green"), ("milk", "fresh", "whole"), ("soap", "wash", "hands"))


def make_rows(levels, paths_of_kinds, wrong=(), count=240):
    """Lines of three kinds of product. The rows in `wrong` have the path of the next kind."""
    rng = np.random.default_rng(5)
    kinds = np.arange(count) % 3
    texts = [f"{rng.choice(WORDS[kind])} {rng.choice(WORDS[kind])} no{row:03d}x" for row, kind in enumerate(kinds)]
    given = [paths_of_kinds[(kind + (row in wrong)) % 3] for row, kind in enumerate(kinds)]
    rows = pd.DataFrame({"split": "train", "id": range(count), "description": texts, "retailer": "shop", "price": 1.0})
    return pd.concat([rows.assign(product=[f"p{row}" for row in range(count)]), levels.columns(given)], axis=1)


def ev(rows, *ranked):
    """The model's evidence alone, each row in a fold of its own."""
    said = [[(LabelPath(*path), share) for path, share in each] for each in ranked]
    none = np.full((len(rows), 3), -1)
    return Evidence(said, [()] * len(rows), none, np.zeros(none.shape), np.arange(len(rows)))


@pytest.mark.parametrize("name", TAXONOMIES)
def test_swapped_labels_come_first_with_their_level_and_the_right_path(name):
    levels, kinds = TAXONOMIES[name]
    wrong = set(range(0, 240, 20))
    rows = make_rows(levels, kinds, wrong)
    evidence = gather(rows, LabelTree.from_rows(rows, levels), Recipe(epochs=3), 3, 1)
    share = estimate_share(rows, evidence, levels, seed=1)
    assert share.low <= len(wrong) / len(rows) <= share.high
    found = find_suspects(rows, evidence, levels, share.share)
    assert set(found["id"][: len(wrong)]) == wrong
    assert found["suspicion"].is_monotonic_decreasing and found["suspicion"].min() > 0.5
    assert (1 - found["confidence"]).sum() <= share.share * len(rows) + 0.1
    shares = found[["model_own", "model_guess", "votes_own", "votes_guess"]]
    assert shares.to_numpy().min() >= 0 and shares.to_numpy().max() <= 1
    assert (found["model_guess"] + found["votes_guess"] > found["model_own"] + found["votes_own"])[: len(wrong)].all()
    first = found.head(len(wrong))
    guesses = levels.paths(first[[GUESS.format(level) for level in levels]].set_axis(list(levels), axis=1))
    assert guesses == [LabelPath(*kinds[row % 3]) for row in first["id"]]
    given = levels.paths(first)
    for path, guess, level in zip(given, guesses, first["level"], strict=True):
        differs = [each for each, one, other in zip(levels, path, guess, strict=True) if one != other]
        assert level == differs[0]


def test_each_suspect_has_its_most_similar_lines():
    rows = make_rows(*TAXONOMIES["a brand"], {0, 20}, count=60)
    evidence = gather(rows, LabelTree.from_rows(rows, LEVELS), Recipe(epochs=3), 3, 1)
    found = find_suspects(rows, evidence, LEVELS, 0.05)
    near = similar_rows(found, rows, evidence)
    assert set(near["id"]) <= set(found["id"]) and near.groupby("id").size().max() == 3
    for _, own in near.groupby("id"):
        assert own["rank"].tolist() == list(range(len(own))) and own["score"].is_monotonic_decreasing
    assert (near["id"] % 3 == near["neighbour"] % 3).mean() > 0.9 and (near["id"] != near["neighbour"]).all()


def test_a_label_that_no_other_row_has_is_no_reason_for_doubt():
    tea, rare = ("food", "tea", "alder"), ("food", "tea", "rowan")
    rows = make_rows(LEVELS, [tea, tea, tea], count=4)
    rows.loc[0, "brand"] = "rowan"
    evidence = ev(rows, [(tea, 1.0)], [(tea, 0.9), (rare, 0.1)], [(tea, 1.0)], [(tea, 1.0)])
    assert find_suspects(rows, evidence, LEVELS, 0.1).empty
    rows.loc[1, "brand"] = "rowan"  # now another fold has it
    assert find_suspects(rows, evidence, LEVELS, 0.1)["id"].tolist() == [0, 1]
    rows.loc[1, "brand"] = "alder"
    rows.loc[0, "group"] = rows.loc[2, "group"] = "home"  # a level above, which another row has
    [suspect] = find_suspects(rows, evidence, LEVELS, 0.1).query("id == 0").itertuples()
    assert suspect.level == "group"


def test_only_lines_of_other_products_vote():
    rows = make_rows(LEVELS, TAXONOMIES["a brand"][1], count=6).assign(description=["green tea"] * 5 + ["zzz qqq"])
    rows["product"] = ["one", "one", "one", "two", "two", "three"]
    votes, similar, similarity = neighbours_votes(rows, LEVELS)
    paths_of_rows = LEVELS.paths(rows)
    assert {path for path, _ in votes[0]} == set(paths_of_rows[3:5])
    assert sum(share for _, share in votes[0]) == pytest.approx(1)
    assert votes[5] == [], "a line like no other gets none"
    assert similar[0].tolist() == [3, 4, -1] and similar[3].tolist() == [0, 1, 2] and similar[5].tolist() == [-1] * 3
    assert similarity[0].tolist() == pytest.approx([1, 1, 0])


def test_no_evidence_accuses_nobody():
    rows = make_rows(LEVELS, TAXONOMIES["a brand"][1], count=3)
    assert find_suspects(rows, ev(rows, [], [], []), LEVELS, 0.5).empty


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_whose_labels_no_other_row_has_accuse_nobody(count):
    paths = [(f"food {row}", f"tea {row}", f"brand {row}") for row in range(count)]
    rows = make_rows(LEVELS, paths, count=count)
    rows[list(LEVELS)] = paths
    evidence = ev(rows, *[[(("food", "cake", "rowan"), 1.0)]] * count)
    assert find_suspects(rows, evidence, LEVELS, 0.9).empty
    if count > 1:
        rows.loc[:1, list(LEVELS)] = [("food", "tea", "alder")] * 2  # fewer than the share that is wrong
        assert find_suspects(rows, evidence, LEVELS, 0.9)["id"].tolist() == [0, 1]


def test_the_review_page_gets_the_rows_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"suspects.parquet: file not found; run `dvc repro audit`"):
        sources.from_audit(LEVELS)
    tea, milk = ("food", "tea", "alder"), ("food", "milk", "birch")
    rows = make_rows(LEVELS, [tea, milk, milk], count=6)
    evidence = ev(
        rows, [(milk, 0.9), (tea, 0.1)], *[[(milk, 1.0)]] * 2, [(milk, 0.6), (tea, 0.4)], *[[(milk, 1.0)]] * 2
    )
    found = find_suspects(rows.assign(price=[1.5, *[float("nan")] * 5]), evidence, LEVELS, 0.2)
    for folder in (paths.AUDIT, paths.SPLIT):
        folder.mkdir(parents=True)
    write_table(found, paths.SUSPECTS)
    write_table(rows.assign(subset="train"), paths.ROWS)
    queue = sources.from_audit(LEVELS)
    first, second = (item[0] for item in queue.items)
    assert (first.id, second.id) == (0, 3) and first.gain > second.gain
    assert first.answer == tea and first.candidates[0][0] == milk and (first.split, first.price) == ("train", "1.50")
    assert second.price == "" and 0 < first.confidence < second.confidence < 1
    assert queue.total == 6 and queue.source == "audit"
