"""The pipeline, `predict` and `submit` check rows with the same words; each has its own strictness."""

import datetime
import json
import math
import re
from decimal import Decimal

import pytest

from tillmap.catalogue.rows import BadRowError, parse_digits, read_any_id, read_number_id, read_price, read_text, show
from tillmap.catalogue.source import read_source
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS
from tillmap.serving.feed import Feed
from tillmap.serving.submission import read_answers

ROW = {"indoml_id": 1, "description": "milk", "retailer": "shop", "price": 1.99} | dict.fromkeys(LEVELS, "food")
READERS = {
    "train.features": lambda path: read_source(path.parent),
    "train.labels": lambda path: read_source(path.parent),
    "feed.jsonl": lambda path: Feed(path).check(),
    "answers.jsonl": read_answers,
}
ITEMS, LABELS = {"train.features", "feed.jsonl"}, {"train.labels", "answers.jsonl"}
PRICE = 'a number from 0 up, such as 1.99 or "1.99", or null'
FAULTS = [
    ("not JSON", "milk", ITEMS | LABELS, "not JSON (unexpected character, expected a JSON value at column 1)"),
    ("no object", "[1]", ITEMS | LABELS, "expected a JSON object, found [1]"),
    ("no description", {"description": None}, ITEMS, "`description` is null, expected text"),
    ("blank description", {"description": " "}, ITEMS, "`description` is empty, expected text"),
    ("list of shops", {"retailer": ["a"]}, ITEMS, '`retailer` is ["a"], expected text'),
    ("price in words", {"price": "cheap"}, ITEMS, f'`price` is "cheap", expected {PRICE}'),
    ("number for a label", {"group": 5}, LABELS, "`group` is 5, expected text"),
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


# What the pipeline, a feed and a submission make of an id; None: an error.
IDS = [
    (7, 7, 7, 7),
    (-1, None, -1, -1),
    ("7", None, "7", 7),
    ("007", None, "007", None),
    ("a", None, "a", None),
    ("", None, None, None),
    (True, None, None, None),
    (1.0, None, None, None),
    (2**63 - 1, 2**63 - 1, 2**63 - 1, 2**63 - 1),
    (2**63, None, None, None),
]


@pytest.mark.parametrize(("value", "pipeline", "feed", "submission"), IDS)
def test_ids(value, pipeline, feed, submission):
    def check(expected, read, **options):
        if expected is not None:
            assert read({"indoml_id": value}, **options) == expected
        else:
            with pytest.raises(BadRowError, match=r"`indoml_id` is .*, expected"):
                read({"indoml_id": value}, **options)

    check(pipeline, read_number_id)
    check(feed, read_any_id)
    check(submission, read_number_id, negative=True, digits=True)


def test_options_of_a_text_and_a_price():
    assert read_text({"a": None}, "a", null=True) == ""
    assert read_text({"a": " "}, "a") == " "
    with pytest.raises(BadRowError, match="`a` is missing, expected text or null"):
        read_text({}, "a", null=True)
    assert read_price({"price": Decimal("1.50")}) == 1.5
    assert math.isnan(read_price({"price": ""}, blank=True))
    assert math.isnan(read_price({"price": math.nan}))
    with pytest.raises(BadRowError, match='`price` is "", expected a number from 0 up'):
        read_price({"price": ""})
    with pytest.raises(BadRowError, match="`price` is Infinity, expected"):
        read_price({"price": math.inf})


def test_digits_are_a_number_only_if_they_come_back_unchanged():
    assert [parse_digits(text) for text in ("0", "12", str(2**63 - 1))] == [0, 12, 2**63 - 1]
    for text in ("", "-1", "+1", "01", " 1", "1.0", "1_0", "\u0661", str(2**63), "9" * 30):
        assert parse_digits(text) is None


def test_a_value_of_any_kind_is_shown_short():
    deep = []
    for _ in range(2000):
        deep = [deep]
    assert show(deep) == "a value that is nested too deep"
    assert show(datetime.date(2024, 1, 2)) == '"2024-01-02"'
    assert show("crème") == '"crème"'
    assert len(show("x" * 100)) == 60
