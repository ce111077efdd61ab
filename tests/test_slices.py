"""Slices and confusions of an arm."""

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.evaluation.metrics import mark
from tillmap.evaluation.slices import (
    brand_shown,
    catch_all_paths,
    confusion,
    costliest_confusions,
    score_slices,
    slice_rows,
)

TEA = LabelPath("drinks", "hot drinks", "tea", "leafy")
JAM = LabelPath("larder", "spreads", "jam", "orchard")
HONEY = LabelPath("larder", "spreads", "honey", "orchard")
OTHER = LabelPath("all", "all", "all", "all")


def rows(paths, **columns):
    table = pd.DataFrame(paths, columns=list(CONTEST), dtype="str")
    return table.assign(**({"split": "test", "id": range(len(paths)), "price": 1.0} | columns))


@pytest.fixture
def truth():
    return rows(
        [TEA, TEA, JAM, HONEY, OTHER],
        description=["leafy tea 40", "lea tea", "orch jam", "runny honey of the forest bees 340g", "misc"],
        retailer=["hill", "hill", "vale", "hill", None],
    )


@pytest.fixture
def training():
    return rows([TEA] * 25 + [JAM] * 4 + [OTHER] * 19)


@pytest.mark.parametrize(
    ("description", "brand", "shown"),
    [
        ("CAD 5 pk creme egg", "cadbury creme egg", "shortened"),
        ("dr. oetker pizza", "Dr Oetker", "in full"),
        ("droetk pizza", "Dr Oetker", "shortened"),
        ("dr pizza", "Dr Oetker", "no"),  # two letters say too little
        ("creme egg", "cadbury creme egg", "no"),
        ("hallmarks card", "mark", "no"),  # inside another word
        ("cdbry egg", "cadbury", "no"),
        ("a - b", "&", "no"),
    ],
)
def test_brand_shown(description, brand, shown):
    assert brand_shown(description, brand) == shown


def test_rows_are_put_in_their_slices(truth, training):
    slices = slice_rows(truth, training, CONTEST, [OTHER])
    assert slices["path_frequency"].tolist() == ["20+", "20+", "2-4", "unseen", "5-19"]
    assert slices["description_length"].tolist() == ["11-15", "up to 10", "up to 10", "31+", "up to 10"]
    assert slices["brand_shown"].tolist() == ["in full", "shortened", "shortened", "no", "no"]
    assert slices["catch_all"].tolist() == ["other"] * 4 + ["catch-all"]


@pytest.mark.parametrize(("count", "band"), [(0, "unseen"), (1, "1"), (2, "2-4"), (4, "2-4"), (5, "5-19"), (20, "20+")])
def test_edges_of_the_frequency_bands(count, band, truth):
    slices = slice_rows(truth.iloc[[3]], rows([HONEY] * count + [TEA]), CONTEST)
    assert slices["path_frequency"].tolist() == [band]


def test_catch_all_paths_are_those_above_the_share(training):
    assert catch_all_paths(training, CONTEST, share=0.1) == [TEA, OTHER]
    assert catch_all_paths(training, CONTEST, share=0.45) == [TEA]
    assert catch_all_paths(training, CONTEST, share=25 / 48) == []


def test_slices_add_up_to_the_whole(truth, training):
    predictions = rows([TEA, JAM, JAM, JAM, OTHER], repair=["none", "snapped", "none", "snapped", "none"])
    marks = mark(predictions, truth, "linear", CONTEST)
    table = score_slices(marks, slice_rows(truth, training, CONTEST, [OTHER]), "linear", CONTEST)
    assert set(table["arm"]) == {"linear"}
    for way, values in table[table["slice"] != "level"].groupby("slice"):
        assert (values["rows"].sum(), values["correct"].sum()) == (5, 3), way
    assert (table["low"] <= table["accuracy"]).all() and (table["accuracy"] <= table["high"]).all()

    def accuracies(way):
        return dict(table.loc[table["slice"] == way, ["value", "accuracy"]].itertuples(index=False))

    assert accuracies("all") == {"item": 0.6}
    assert accuracies("level") == {"supergroup": 0.8, "group": 0.8, "module": 0.6, "brand": 0.8}
    assert accuracies("repair") == {"none": 1.0, "snapped": 0.0}
    assert accuracies("retailer") == {"hill": pytest.approx(1 / 3), "(none)": 1.0, "vale": 1.0}
    assert list(accuracies("path_frequency")) == ["unseen", "2-4", "5-19", "20+"]


def test_slices_are_joined_by_key(truth, training):
    marks = mark(rows([TEA, JAM, JAM, JAM, OTHER]), truth, "linear", CONTEST)
    slices = slice_rows(truth, training, CONTEST)
    expected = score_slices(marks, slices, "linear", CONTEST)
    pd.testing.assert_frame_equal(score_slices(marks, slices.iloc[::-1], "linear", CONTEST), expected)
    with pytest.raises(InputError, match="arm linear: 1 of 5 rows are in no slice"):
        score_slices(marks, slices.iloc[1:], "linear", CONTEST)


def test_confusions(truth):
    predictions = rows([TEA, JAM, JAM, JAM, (None,) * 4])
    marks = mark(predictions, truth, "linear", CONTEST)
    table = confusion(marks, "supergroup")
    assert table.to_numpy().tolist() == [
        ["drinks", "drinks", 1, 0.5],
        ["drinks", "larder", 1, 0.5],
        ["larder", "larder", 2, 1.0],
        ["all", "(none)", 1, 1.0],
    ]
    costly = costliest_confusions(pd.concat([marks, marks.iloc[[3]]]), "module", most=2)
    assert costly.to_numpy().tolist() == [["honey", "jam", 2, 0.5], ["all", "(none)", 1, 0.25]]


def test_no_confusion_where_all_is_right(truth):
    marks = mark(rows([TEA, TEA, JAM, HONEY, OTHER]), truth, "linear", CONTEST)
    assert costliest_confusions(marks, "module").empty


RAGGED = Levels(("division", "group", "class"))


def test_ways_of_slicing_follow_the_taxonomy_and_the_rows():
    paths = [("food", "", ""), ("food", "bread", ""), ("food", "bread", "rye"), ("home", "bags", "")]
    truth = RAGGED.columns(paths).assign(
        split="test",
        id=range(4),
        description="bread",
        retailer=["hill", "", None, "hill"],
        price=[1.0, -1.0, None, 2.0],
    )
    training = RAGGED.columns(paths[1:3] * 6)
    slices = slice_rows(truth, training, RAGGED)
    assert "brand_shown" not in slices
    assert slices["division"].tolist() == ["food", "food", "food", "home"]
    assert slices["path_frequency"].tolist() == ["unseen", "5-19", "5-19", "unseen"]
    assert slices["path_depth"].tolist() == ["1 level", "2 levels", "3 levels", "2 levels"]
    assert slices["refund"].tolist() == ["sale or unknown", "refund", "sale or unknown", "sale or unknown"]
    assert set(catch_all_paths(training, RAGGED)) == {LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")}
    even = slice_rows(truth.iloc[[2]], training, RAGGED)
    assert not {"path_depth", "refund"} & set(even)

    marks = mark(RAGGED.columns([paths[2]] * 4).assign(split="test", id=range(4)), truth, "linear", RAGGED)
    table = score_slices(marks, slices, "linear", RAGGED)
    per_way = table.groupby("slice")["rows"].sum().to_dict()
    assert per_way.pop("level") == 4 + 3 + 1 and set(per_way.values()) == {4}
    assert set(table.loc[table["slice"] == "retailer", "value"]) == {"hill", "(none)"}
    assert confusion(marks, "class")[["true", "predicted", "rows"]].to_numpy().tolist() == [
        ["(none)", "rye", 3],
        ["rye", "rye", 1],
    ]


def test_an_unknown_brand_is_not_looked_for():
    levels = Levels(("group", "brand"), "brand")
    truth = levels.columns([("bread", "alder"), ("bread", "")]).assign(
        split="test", id=[0, 1], description="alder bread", retailer="hill", price=1.0
    )
    assert slice_rows(truth, truth, levels)["brand_shown"].tolist() == ["in full", "(none)"]
