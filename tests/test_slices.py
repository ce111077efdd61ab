"""Slices and confusions of an arm."""

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, LabelPath
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
    table = pd.DataFrame(paths, columns=LEVELS, dtype="str")
    return table.assign(**({"split": "test", "id": range(len(paths))} | columns))


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
    slices = slice_rows(truth, training, [OTHER])
    assert slices["path_frequency"].tolist() == ["20+", "20+", "2-4", "unseen", "5-19"]
    assert slices["description_length"].tolist() == ["11-15", "up to 10", "up to 10", "31+", "up to 10"]
    assert slices["brand_shown"].tolist() == ["in full", "shortened", "shortened", "no", "no"]
    assert slices["catch_all"].tolist() == ["other"] * 4 + ["catch-all"]


@pytest.mark.parametrize(("count", "band"), [(0, "unseen"), (1, "1"), (2, "2-4"), (4, "2-4"), (5, "5-19"), (20, "20+")])
def test_edges_of_the_frequency_bands(count, band, truth):
    slices = slice_rows(truth.iloc[[3]], rows([HONEY] * count + [TEA]))
    assert slices["path_frequency"].tolist() == [band]


def test_catch_all_paths_are_those_above_the_share(training):
    assert catch_all_paths(training, share=0.1) == [TEA, OTHER]
    assert catch_all_paths(training, share=0.45) == [TEA]
    assert catch_all_paths(training, share=25 / 48) == []


def test_slices_add_up_to_the_whole(truth, training):
    predictions = rows([TEA, JAM, JAM, JAM, OTHER], repair=["none", "snapped", "none", "snapped", "none"])
    marks = mark(predictions, truth, "linear")
    table = score_slices(marks, slice_rows(truth, training, [OTHER]), "linear")
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
    marks = mark(rows([TEA, JAM, JAM, JAM, OTHER]), truth, "linear")
    slices = slice_rows(truth, training)
    expected = score_slices(marks, slices, "linear")
    pd.testing.assert_frame_equal(score_slices(marks, slices.iloc[::-1], "linear"), expected)
    with pytest.raises(InputError, match="arm linear: 1 of 5 rows are in no slice"):
        score_slices(marks, slices.iloc[1:], "linear")


def test_confusions(truth):
    predictions = rows([TEA, JAM, JAM, JAM, (None,) * 4])
    marks = mark(predictions, truth, "linear")
    table = confusion(marks)
    assert table.to_numpy().tolist() == [
        ["drinks", "drinks", 1, 0.5],
        ["drinks", "larder", 1, 0.5],
        ["larder", "larder", 2, 1.0],
        ["all", "(none)", 1, 1.0],
    ]
    costly = costliest_confusions(pd.concat([marks, marks.iloc[[3]]]), most=2)
    assert costly.to_numpy().tolist() == [["honey", "jam", 2, 0.5], ["all", "(none)", 1, 0.25]]


def test_no_confusion_where_all_is_right(truth):
    marks = mark(rows([TEA, TEA, JAM, HONEY, OTHER]), truth, "linear")
    assert costliest_confusions(marks).empty
