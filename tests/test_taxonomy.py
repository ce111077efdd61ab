from dataclasses import FrozenInstanceError
from pathlib import Path

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, Chain, LabelPath, LabelTree, right_labels

TEA = LabelPath("drinks", "hot", "tea", "tata")
TEA_TWICE = LabelPath("gourmet", "hot drinks", "tea", "tata")
SOAP = LabelPath("care", "bath", "soap", "dettol")
SOAP_LUX = LabelPath("care", "bath", "soap", "lux")


def table(*paths: LabelPath) -> pd.DataFrame:
    return pd.DataFrame(paths, columns=list(LEVELS))


@pytest.fixture
def tree() -> LabelTree:
    return LabelTree.from_rows(table(SOAP_LUX, TEA, SOAP, TEA, TEA))


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
    assert tree.chains_ending("soap") == (Chain("care", "bath", "soap"),)


def test_a_module_with_two_parents_makes_the_tree_not_strict(tree: LabelTree) -> None:
    loose = LabelTree.from_rows(table(TEA, TEA_TWICE, SOAP))
    assert tree.is_strict
    assert not loose.is_strict
    assert loose.ending("tea", "tata") == (TEA, TEA_TWICE)
    assert loose.chains_ending("tea") == (TEA[:3], TEA_TWICE[:3])


def test_a_group_with_two_parents_makes_the_tree_not_strict() -> None:
    assert not LabelTree.from_rows(table(TEA, LabelPath("office", "hot", "mugs", "x"))).is_strict


def test_ranked_goes_by_rows_then_by_order(tree: LabelTree) -> None:
    assert tree.ranked == (TEA, SOAP, SOAP_LUX)


def test_rows_without_labels_are_ignored() -> None:
    rows = pd.concat([table(TEA, SOAP), pd.DataFrame({"description": ["new"]})], ignore_index=True)
    tree = LabelTree.from_rows(rows)
    assert len(tree) == 2


def test_a_tree_comes_back_from_parquet(tree: LabelTree, tmp_path: Path) -> None:
    file = tmp_path / "tree.parquet"
    tree.to_table().to_parquet(file)
    stored = pd.read_parquet(file)
    assert list(stored.columns) == [*LEVELS, "rows"]
    assert stored["rows"].dtype == "int64"
    assert LabelTree.from_table(stored) == tree


def test_a_tree_cannot_be_changed(tree: LabelTree) -> None:
    with pytest.raises(FrozenInstanceError):
        tree.rows = (1, 2, 3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (table(TEA).drop(columns="brand"), "lacks brand"),
        (table(TEA, SOAP).assign(module=["tea", None]), "1 rows have only some .* first at index 1"),
        (table(), "no labelled row"),
        (table(TEA._replace(brand=" ")), "blank label"),
    ],
)
def test_a_table_that_makes_no_tree_is_refused(rows: pd.DataFrame, said: str) -> None:
    with pytest.raises(InputError, match=said):
        LabelTree.from_rows(rows)


def test_a_stored_tree_that_was_tampered_with_is_refused(tree: LabelTree) -> None:
    stored = tree.to_table()
    with pytest.raises(InputError, match="twice or out of order"):
        LabelTree.from_table(pd.concat([stored, stored]))
    with pytest.raises(InputError, match="lacks rows"):
        LabelTree.from_table(stored[list(LEVELS)])
    with pytest.raises(InputError, match="differ in length"):
        LabelTree(tree.paths, tree.rows[1:])


def test_right_labels_go_by_place_and_a_missing_label_is_wrong() -> None:
    truth = table(TEA, SOAP, SOAP_LUX, TEA)
    answers = table(TEA, SOAP_LUX, SOAP_LUX, TEA_TWICE).set_index(pd.Index([9, 8, 7, 6]))
    answers.iloc[2, 3] = None
    assert right_labels(answers, truth).tolist() == [
        [True, True, True, True],
        [True, True, True, False],
        [True, True, True, False],
        [False, False, True, True],
    ]
    unlabelled = truth.astype(object).where(truth["brand"] == "tata", None)
    assert right_labels(unlabelled, unlabelled).all(axis=1).tolist() == [True, False, False, True]
