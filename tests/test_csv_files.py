"""No text is a formula in the CSV files that people open."""

import csv
from io import StringIO

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.csv_files import text_of, to_csv

texts = st.text(st.characters(exclude_categories=["Cs"]))


def cells_of(table):
    return list(csv.DictReader(StringIO(to_csv(table, for_people=True), newline="")))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"])
def test_a_formula_has_an_apostrophe_before_it(text):
    assert cells_of(pd.DataFrame({"label": [text]})) == [{"label": f"'{text}"}]


def test_numbers_and_other_texts_stay_as_they_are():
    table = pd.DataFrame({"price": [-1.5, None], "id": [-1, 2], "label": ["tea - green", None], "right": [True, False]})
    assert cells_of(table) == [
        {"price": "-1.5", "id": "-1", "label": "tea - green", "right": "True"},
        {"price": "", "id": "2", "label": "", "right": "False"},
    ]


@given(st.lists(texts, min_size=2, max_size=2))
def test_other_files_have_every_text_as_it_is(row):
    assert list(csv.reader(StringIO(to_csv(pd.DataFrame([row], columns=["a", "b"])), newline="")))[1:] == [row]


@given(texts)
def test_every_text_comes_back_and_none_is_a_formula(text):
    [row] = cells_of(pd.DataFrame({"label": [text], "other": ["x"]}))
    assert text_of(row["label"]) == text
    assert not row["label"].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
