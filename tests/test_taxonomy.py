import copy
import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels, right_labels, trim

TEA = LabelPath("drinks", "hot", "tea", "tata")
TEA_TWICE = LabelPath("gourmet", "hot drinks", "tea", "tata")
SOAP = LabelPath("care", "bath", "soap", "dettol")
SOAP_LUX = LabelPath("care", "bath", "soap", "lux")


def table(*paths: LabelPath) -> pd.DataFrame:
    return pd.DataFrame(paths, columns=list(CONTEST))


@pytest.fixture
def tree() -> LabelTree:
    return LabelTree.from_rows(table(SOAP_LUX, TEA, SOAP, TEA, TEA), CONTEST)


def test_a_tree_holds_the_sorted_paths_and_their_rows(tree: LabelTree) -> None:
    assert list(tree) == [SOAP, SOAP_LUX, TEA]
    assert len(tree) == 3
    assert tree.rows == (1, 1, 3)
    assert tree.labels("brand") == ("dettol", "lux", "tata")
    assert repr(tree) == "LabelTree(3 paths, 5 rows)"


def test_what_is_not_of_the_tree_is_empty_and_no_error(tree: LabelTree) -> None:
    assert TEA in tree
    assert TEA_TWICE not in tree
    assert "tea" not in tree
    assert tree.rows_of(TEA_TWICE) == 0
    assert tree.ending("no such brand") == ()
    assert tree.chains_ending() == ()


def test_paths_and_chains_are_found_by_their_last_labels(tree: LabelTree) -> None:
    assert tree.ending("lux") == (SOAP_LUX,)
    assert tree.ending("soap", "dettol") == (SOAP,)
    assert tree.ending(*TEA) == (TEA,)
    assert tree.ending("bath", "dettol") == ()
    assert tree.chains_ending("soap") == (("care", "bath", "soap"),)


def test_a_module_with_two_parents_makes_the_tree_not_strict(tree: LabelTree) -> None:
    loose = LabelTree.from_rows(table(TEA, TEA_TWICE, SOAP), CONTEST)
    assert tree.is_strict
    assert not loose.is_strict
    assert loose.ending("tea", "tata") == (TEA, TEA_TWICE)
    assert loose.chains_ending("tea") == (TEA[:3], TEA_TWICE[:3])


def test_a_group_with_two_parents_makes_the_tree_not_strict() -> None:
    assert not LabelTree.from_rows(table(TEA, LabelPath("office", "hot", "mugs", "x")), CONTEST).is_strict


def test_ranked_goes_by_rows_then_by_order(tree: LabelTree) -> None:
    assert tree.ranked == (TEA, SOAP, SOAP_LUX)


def test_rows_without_labels_are_ignored() -> None:
    rows = pd.concat([table(TEA, SOAP), pd.DataFrame({"description": ["new"]})], ignore_index=True)
    tree = LabelTree.from_rows(rows, CONTEST)
    assert len(tree) == 2


def test_a_tree_comes_back_from_parquet(tree: LabelTree, tmp_path: Path) -> None:
    file = tmp_path / "tree.parquet"
    tree.to_table().to_parquet(file)
    stored = pd.read_parquet(file)
    assert list(stored.columns) == [*CONTEST, "rows"]
    assert stored["rows"].dtype == "int64"
    assert LabelTree.from_table(stored) == tree


def test_a_tree_cannot_be_changed(tree: LabelTree) -> None:
    with pytest.raises(FrozenInstanceError):
        tree.rows = (1, 2, 3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (table(TEA).drop(columns="brand"), "lacks brand"),
        (table(TEA, SOAP).assign(group=["hot", None]), "has a module but no group; expected no gap"),
        (table(), "no labelled row"),
        (table(LabelPath(*TEA[:3], " ")), "blank label"),
    ],
)
def test_a_table_that_makes_no_tree_is_refused(rows: pd.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        LabelTree.from_rows(rows, CONTEST)


def test_a_path_of_another_length_makes_no_table() -> None:
    with pytest.raises(InputError, match=r"a path has 5 labels, expected 4 \(supergroup"):
        CONTEST.columns([("a", "b", "c", "d"), ("a", "b", "c", "d", "e")])


def test_a_stored_tree_that_was_tampered_with_is_refused(tree: LabelTree) -> None:
    stored = tree.to_table()
    with pytest.raises(InputError, match="twice or out of order"):
        doubled = pd.concat([stored, stored])
        doubled.attrs = stored.attrs
        LabelTree.from_table(doubled)
    with pytest.raises(InputError, match="not one of this version"):
        LabelTree.from_table(pd.DataFrame(stored.to_dict("list")))
    with pytest.raises(InputError, match="lacks rows"):
        LabelTree.from_table(stored[list(CONTEST)])
    with pytest.raises(InputError, match="fewer than 0 rows"):
        LabelTree.from_table(stored.assign(rows=-2))
    with pytest.raises(InputError, match="differ in length"):
        LabelTree(CONTEST, tree.paths, tree.rows[1:])


def test_right_labels_go_by_place_and_a_missing_label_is_wrong() -> None:
    truth = table(TEA, SOAP, SOAP_LUX, TEA)
    answers = table(TEA, SOAP_LUX, SOAP_LUX, TEA_TWICE).set_index(pd.Index([9, 8, 7, 6]))
    answers.iloc[2, 3] = None
    assert right_labels(answers, truth, CONTEST).tolist() == [
        [True, True, True, True],
        [True, True, True, False],
        [True, True, True, False],
        [False, False, True, True],
    ]
    unlabelled = truth.astype(object)
    unlabelled.iloc[1:3] = None
    assert right_labels(unlabelled, unlabelled, CONTEST).all(axis=1).tolist() == [True, False, False, True]


# Other taxonomies

RAGGED = Levels(("division", "group", "class"))
FOOD, BREAD, RYE = LabelPath("food", "", ""), LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")
MADE = Levels(("group", "class", "maker"), "maker")


def test_a_label_path_is_a_tuple_of_its_labels() -> None:
    assert BREAD == ("food", "bread", "") and BREAD[:2] == ("food", "bread") and trim(BREAD) == ("food", "bread")
    assert pickle.loads(pickle.dumps(BREAD)) == copy.deepcopy(BREAD) == BREAD
    assert type(pickle.loads(pickle.dumps(BREAD))) is LabelPath


@pytest.mark.parametrize(
    ("names", "brand", "said"),
    [
        ((), None, "there are 0 .none.; expected 1 to 8"),
        (tuple("abcdefghi"), None, "there are 9 "),
        (("a", "a"), None, "each once"),
        (("a", " "), None, "not blank"),
        (("a", "price"), None, "price is the name of one of tillmap's own columns"),
        (("a", "b"), "a", "brand level a is not the last"),
        (("a",), "a", "after at least one other level"),
        (("a", "b"), "c", "brand level c is not the last"),
    ],
)
def test_levels_that_cannot_be(names: tuple[str, ...], brand: str | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Levels(names, brand)


def test_paths_and_tables_say_the_same() -> None:
    paths = [RYE, FOOD, BREAD]
    written = RAGGED.columns(paths)
    assert written.isna().sum().to_dict() == {"division": 0, "group": 1, "class": 2}
    assert RAGGED.paths(written) == paths and RAGGED.labelled(written).all()
    assert RAGGED.of(BREAD) == {"division": "food", "group": "bread"}
    assert (RAGGED.stem(RYE), RAGGED.stem(FOOD), MADE.stem(LabelPath("food", "", "elm"))) == (
        BREAD[:2],
        (),
        ("food", ""),
    )
    assert RAGGED.path(["food", None, float("nan")]) == FOOD


def test_a_ragged_tree_has_the_paths_that_end_early() -> None:
    tree = LabelTree.from_rows(RAGGED.columns([RYE, BREAD, FOOD, BREAD]), RAGGED)
    assert list(tree) == [FOOD, BREAD, RYE] and tree.rows == (1, 2, 1)
    assert tree.labels("class") == ("rye",) and tree.is_strict
    assert tree.ending("bread") == (BREAD,) and tree.ending("bread", "rye") == (RYE,)
    assert tree.starting("food") == (FOOD, BREAD, RYE) and tree.starting("food", "bread") == (BREAD, RYE)
    assert tree.written(BREAD) == ("food", "bread") and tree.chains == tree.paths
    assert LabelTree.from_table(tree.to_table()) == tree


def test_a_brand_may_follow_a_chain_that_ends_early() -> None:
    known, unknown = LabelPath("food", "", "elm"), LabelPath("food", "tea", "")
    tree = LabelTree.from_rows(MADE.columns([known, unknown]), MADE)
    assert tree.chains == (("food", ""), ("food", "tea")) and tree.written(known) == ("food", "elm")
    assert tree.ending("elm") == tree.ending("food", "elm") == (known,)
    assert tree.ending("tea", "") == (unknown,) and tree.chains_ending("tea") == (("food", "tea"),)
    assert LabelTree.from_table(tree.to_table()) == tree


def test_declared_paths_are_known_without_a_row(tmp_path: Path) -> None:
    spelt = LabelPath("food", "bread", "spelt")
    codes, notes = ("1", "1.1", "1.1.2"), ("", "all loaves", "of spelt flour")
    declared = LabelTree(RAGGED, (FOOD, BREAD, spelt), (7, 7, 7), codes, notes)
    tree = LabelTree.from_rows(RAGGED.columns([BREAD, RYE]), RAGGED, declared)
    assert list(tree) == [FOOD, BREAD, RYE, spelt] and tree.rows == (0, 1, 1, 0)
    assert tree.code_of(spelt) == "1.1.2" and tree.code_of(RYE) == "" and tree.definition_of(BREAD) == "all loaves"
    tree.to_table().to_parquet(tmp_path / "tree.parquet")
    assert LabelTree.from_table(pd.read_parquet(tmp_path / "tree.parquet")) == tree


@pytest.mark.parametrize("levels", [Levels(("only",)), Levels(tuple("abcdefgh"))])
def test_one_level_and_eight(levels: Levels) -> None:
    path = LabelPath(*(f"{name} label" for name in levels))
    tree = LabelTree.from_rows(levels.columns([path]), levels)
    assert (
        list(tree) == [path]
        and tree.chains_ending(path[-1]) == (path,)
        and LabelTree.from_table(tree.to_table()) == tree
    )


def test_where_the_true_path_has_no_label_none_is_right() -> None:
    truth, answers = RAGGED.columns([BREAD, BREAD, RYE, FOOD]), RAGGED.columns([BREAD, RYE, BREAD, FOOD])
    assert right_labels(answers, truth, RAGGED).all(axis=1).tolist() == [True, False, False, True]
    nothing = pd.DataFrame(None, index=range(4), columns=list(RAGGED), dtype="str")
    assert not right_labels(nothing, truth, RAGGED).any() and not right_labels(nothing, nothing, RAGGED).any()
