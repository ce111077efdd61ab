"""The pipeline, `predict` and `submit` check rows with the same words; each has its own strictness."""

import datetime
import json
import math
import re
from decimal import Decimal

import pytest

from shop import data, read_source
from tillmap.catalogue.rows import (
    BadRowError,
    is_blank,
    parse_digits,
    read_id,
    read_price,
    read_retailer,
    read_text,
    same_id,
    show,
)
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST
from tillmap.serving.feed import open_feed
from tillmap.serving.submission import read_answers

ROW = {"indoml_id": 1, "description": "milk", "retailer": "shop", "price": 1.99} | dict.fromkeys(CONTEST, "food")
READERS = {
    "train.features": lambda path: read_source(path.parent),
    "train.labels": lambda path: read_source(path.parent),
    "feed.jsonl": lambda path: open_feed(path, data()).check(),
    "answers.jsonl": lambda path: read_answers(path, CONTEST),
}
ITEMS, LABELS = {"train.features", "feed.jsonl"}, {"train.labels", "answers.jsonl"}
PRICE = 'a number, such as 1.99 or "-1,99 €", or null'
FAULTS = [
    ("not JSON", "milk", ITEMS | LABELS, "not JSON (unexpected character, expected a JSON value at column 1)"),
    ("no object", "[1]", ITEMS | LABELS, "expected a JSON object, found [1]"),
    ("no description", {"description": None}, ITEMS, "`description` is null, expected text"),
    ("blank description", {"description": " "}, ITEMS, "`description` is empty, expected text"),
    ("list of shops", {"retailer": ["a"]}, ITEMS, '`retailer` is ["a"], expected text'),
    ("price in words", {"price": "cheap"}, ITEMS, f'`price` is "cheap", expected {PRICE}'),
    ("fraction for a label", {"group": 5.5}, LABELS, "`group` is 5.5, expected text"),
    ("blank label", {"brand": ""}, LABELS, "`brand` is empty, expected text"),
    ("id true", {"indoml_id": True}, ITEMS | LABELS, "`indoml_id` is true, expected"),
    ("id too large", {"indoml_id": 2**63}, ITEMS | LABELS, "`indoml_id` is 9223372036854775808, expected"),
    ("same id", {"indoml_id": 1}, ITEMS | LABELS, "`indoml_id` is 1 again (first in line 1), expected each id once"),
]


@pytest.mark.parametrize(("second", "files", "said"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_the_same_fault_has_the_same_words_everywhere(tmp_path, second, files, said):
    first, sound = json.dumps(ROW), json.dumps(ROW | {"indoml_id": 2})
    bad = second if isinstance(second, str) else json.dumps(ROW | {"indoml_id": 2} | second)
    for file in files:
        for name in (*READERS, "test.features"):
            (tmp_path / name).write_text(f"{first}\n{bad if name == file else sound}\n")
        with pytest.raises(InputError, match=re.escape(f"{file}:2: {said}")):
            READERS[file](tmp_path / file)


IDS = [
    (7, 7, 7),
    (-1, -1, -1),
    ("7", "7", 7),
    ("-7", "-7", -7),
    ("007", "007", "007"),
    ("a", "a", "a"),
    (" ", None, None),
    ("", None, None),
    (True, None, None),
    (1.0, 1, 1),
    (2.0**53, None, None),
    (1.5, None, None),
    ("1.23E+12", None, None),
    ("4,1e+9", None, None),
    (2**63 - 1, 2**63 - 1, 2**63 - 1),
    (2**63, None, None),
    (str(2**63), str(2**63), str(2**63)),
]


@pytest.mark.parametrize(("value", "read", "means"), IDS)
def test_ids_come_back_as_they_are_and_mean_a_number_if_they_are_one(value, read, means):
    if read is None:
        with pytest.raises(BadRowError, match=r"`key` is .*, expected"):
            read_id({"key": value}, "key")
    else:
        assert read_id({"key": value}, "key") == read
        assert same_id(read) == means


def test_texts_of_several_fields_are_joined():
    record = {"a": "milk", "b": None, "c": 500, "d": "\u200b", "e": 2.0, "f": 1.5}
    assert read_text(record, ["a", "b", "c", "d", "e"]) == "milk 500 2"
    with pytest.raises(BadRowError, match="`b` and `d` are empty, expected text"):
        read_text(record, ["b", "d"])
    with pytest.raises(BadRowError, match=r"`f` is 1\.5, expected text or null"):
        read_text(record, ["a", "f"])
    with pytest.raises(BadRowError, match="`g` is missing, expected text or null"):
        read_text(record, ["a", "g"])


def test_a_retailer_may_be_missing_or_a_number():
    assert [read_retailer({"shop": shop}, "shop") for shop in ("a ", None, " ", 12, 12.0, math.nan)] == [
        "a ", "", "", "12", "12", "",
    ]  # fmt: skip
    assert read_retailer({}, None) == ""


def test_prices_of_every_type():
    assert read_price({"price": Decimal("1.50")}, "price") == 1.5
    assert read_price({"price": "-1,50 €"}, "price") == -1.5
    assert read_price({"price": "1,500"}, "price", ",") == 1.5
    for nothing in ("", " ", math.nan, None):
        assert math.isnan(read_price({"price": nothing}, "price"))
    assert math.isnan(read_price({}, None))
    for wrong in (math.inf, True, [1], 10**400):
        with pytest.raises(BadRowError, match=r"`price` is .*, expected a number"):
            read_price({"price": wrong}, "price")


def test_a_text_is_blank_if_nothing_of_it_can_be_seen():
    assert all(map(is_blank, ("", " \t\n", "\u00a0", "\u200b\ufeff", "\x00\x07")))
    assert not any(map(is_blank, ("a", "\u200ba", "-", "\x00.", "🥖", "\ue000")))


def test_digits_are_a_number_only_if_they_come_back_unchanged():
    assert [parse_digits(text) for text in ("0", "12", "-1", str(2**63 - 1))] == [0, 12, -1, 2**63 - 1]
    for text in ("", "-0", "+1", "01", " 1", "1.0", "1_0", "\u0661", str(2**63), "9" * 30):
        assert parse_digits(text) is None


def test_a_value_of_any_kind_is_shown_short():
    deep = []
    for _ in range(2000):
        deep = [deep]
    assert show(deep) == "a value that is nested too deep"
    assert show(datetime.date(2024, 1, 2)) == '"2024-01-02"'
    assert show("crème") == '"crème"'
    assert len(show("x" * 100)) == 60
