"""New rows from JSON Lines, CSV and Parquet: sound rows come through unchanged; an error names each bad row."""

import csv
import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.errors import InputError
from tillmap.serving.feed import Columns, Feed

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(-(2**63), 2**63 - 1), TEXT),
        TEXT.filter(lambda text: text.strip()),
        st.one_of(st.none(), TEXT),
        st.one_of(st.none(), st.floats(0, 1e6)),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
)
GOOD = {"indoml_id": 1, "description": "milk", "retailer": "shop", "price": "1.99"}


def records(rows):
    names = ("indoml_id", "description", "retailer", "price")
    return [dict(zip(names, row, strict=True)) for row in rows]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.DictWriter(file, list(rows[0]))
            lines.writeheader()
            lines.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def read(feed, size=3):
    return pd.concat(feed.batches(size), ignore_index=True)


def check(table, rows, key=lambda key: key):
    assert table["key"].tolist() == [key(row[0]) for row in rows]
    assert table["description"].tolist() == [row[1] for row in rows]
    assert table["retailer"].tolist() == [row[2] or "" for row in rows]
    for got, (*_, price) in zip(table["price"], rows, strict=True):
        assert math.isnan(got) if price is None else got == price


@given(rows=ROWS)
def test_json_lines_come_through(tmp_path_factory, rows):
    feed = Feed(write(tmp_path_factory.mktemp("feed") / "rows.jsonl", records(rows)))
    checked = feed.check()
    assert (checked.rows, checked.numbers) == (len(rows), all(type(row[0]) is int for row in rows))
    check(read(feed), rows)


@given(rows=ROWS)
def test_csv_comes_through_as_texts(tmp_path_factory, rows):
    texts = list({str(row[0]): (str(row[0]), *row[1:]) for row in rows}.values())
    feed = Feed(write(tmp_path_factory.mktemp("feed") / "rows.csv", records(texts)))
    assert feed.check().rows == len(texts)
    check(read(feed), texts)


@given(rows=ROWS.filter(lambda rows: len({type(row[0]) for row in rows}) == 1))
def test_parquet_comes_through(tmp_path_factory, rows):
    feed = Feed(write(tmp_path_factory.mktemp("feed") / "rows.parquet", records(rows)))
    assert feed.check().rows == len(rows)
    check(read(feed), rows)


@given(content=st.binary(max_size=200), ending=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("feed") / f"rows.{ending}"
    path.write_bytes(content)
    try:
        Feed(path).check()
    except InputError as error:
        assert str(path) in str(error)


@given(text=TEXT, ending=st.sampled_from(["jsonl", "csv"]))
def test_any_text_in_a_row_is_read_or_refused_in_words(tmp_path_factory, text, ending):
    path = tmp_path_factory.mktemp("feed") / f"rows.{ending}"
    path.write_text(f'indoml_id,description\n1,"{text}\n{text}' if ending == "csv" else f'{{"indoml_id": {text}}}')
    try:
        Feed(path).check()
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(("ids", "numbers"), [(["7", "12"], True), (["007", "12"], False), (["a", "12"], False)])
def test_csv_ids_are_numbers_only_where_nothing_would_be_lost(tmp_path, ids, numbers):
    path = write(tmp_path / "rows.csv", [GOOD | {"indoml_id": key} for key in ids])
    assert Feed(path).check().numbers is numbers


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_columns_go_by_other_names_and_may_be_missing(tmp_path, ending):
    path = write(tmp_path / f"rows.{ending}", [{"sku": "a-1", "text": "milk", "shop": "alder"}])
    table = read(Feed(path, Columns("sku", "text", "shop")))
    assert table.drop(columns="price").to_numpy().tolist() == [["a-1", "milk", "alder"]]
    assert read(Feed(path, Columns("sku", "text")))["retailer"].tolist() == [""]
    with pytest.raises(InputError, match="cost"):
        Feed(path, Columns("sku", "text", price="cost")).check()


BAD = [
    ("no id", {"indoml_id": None}, "expected text or a whole number"),
    ("empty id", {"indoml_id": ""}, "expected text or a whole number"),
    ("fraction", {"indoml_id": 1.5}, "expected text or a whole number"),
    ("truth", {"indoml_id": True}, "expected text or a whole number"),
    ("too long a number", {"indoml_id": 2**63}, "64 bits"),
    ("no description", {"description": None}, "`description` is null, expected text"),
    ("blank description", {"description": "  "}, "`description` is empty, expected text"),
    ("number for text", {"description": 5}, "`description` is 5, expected text"),
    ("list for a shop", {"retailer": ["a"]}, "`retailer` is .*expected text or null"),
    ("words for a price", {"price": "cheap"}, '`price` is "cheap", expected a number from 0 up'),
    ("below 0", {"price": -1}, "expected a number from 0 up"),
    ("comma", {"price": "1,99"}, "expected a number from 0 up"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_row_is_named_with_its_line(tmp_path, change, said):
    path = write(tmp_path / "rows.jsonl", [GOOD, GOOD | {"indoml_id": 2}, GOOD | {"indoml_id": 3} | change])
    with pytest.raises(InputError, match=f"rows.jsonl:3: .*{said}") as error:
        Feed(path).check()
    assert "correct or remove" in str(error.value)


LINES = [
    ("not JSON", "jsonl", b"{oops\n", ":1: not JSON"),
    ("an array", "jsonl", b"[1]\n", ":1: expected a JSON object"),
    ("not UTF-8", "jsonl", b'{"indoml_id": 1, "description": "\xff"}\n', ":1: not UTF-8"),
    ("missing field", "jsonl", b'{"indoml_id": 1}\n', ":1: `description` is missing"),
    ("empty", "jsonl", b"", "no row"),
    ("empty", "csv", b"", "no row"),
    ("header alone", "csv", b"indoml_id,description\n", "no row"),
    (
        "semicolons",
        "csv",
        b"indoml_id;description\n1;milk\n",
        "no column indoml_id, description; there are: indoml_id;",
    ),
    ("too few fields", "csv", b"indoml_id,description\n1,milk\n2\n", ":3: 1 fields, expected 2"),
    ("open quote", "csv", b'indoml_id,description\n1,"milk\n', "not CSV"),
    ("stray quote", "csv", b'indoml_id,description\n1,"mi"lk\n', ":2: not CSV"),
    ("latin-1", "csv", "indoml_id,description\n1,cr\xe8me\n".encode("latin-1"), ":2: `description` is not UTF-8"),
    ("a column twice", "csv", b"indoml_id,description,description\n1,a,b\n", "more than one column description"),
    ("no Parquet", "parquet", b"PAR1 but not really", "not a Parquet table"),
    ("cut", "parquet", b"PAR1", "not a Parquet table"),
]


@pytest.mark.parametrize(
    ("ending", "content", "said"), [case[1:] for case in LINES], ids=[c[1] + " " + c[0] for c in LINES]
)
def test_a_malformed_file_is_refused_in_words(tmp_path, ending, content, said):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        Feed(path).check()


def test_all_bad_rows_are_counted_and_an_id_comes_once(tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD] * 6)
    with pytest.raises(
        InputError, match=r":2: `indoml_id` is 1 again \(first in line 1\), expected each id once"
    ) as error:
        Feed(path).check()
    assert "and 2 more bad rows" in str(error.value)


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(InputError, match="not there"):
        Feed(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        Feed(tmp_path)
    (tmp_path / "rows.txt").touch()
    with pytest.raises(InputError, match="--format"):
        Feed(tmp_path / "rows.txt")
    Feed(tmp_path / "rows.txt", format="csv")
