"""New rows from JSON Lines, CSV and Parquet: sound rows come through unchanged; an error names each bad row."""

import csv
import gzip
import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop import data
from tillmap.catalogue.rows import is_blank, same_id
from tillmap.core.errors import InputError
from tillmap.serving.feed import Checked, open_feed

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
VISIBLE = TEXT.filter(lambda text: not is_blank(text))
ROWS = st.lists(
    st.tuples(
        st.one_of(st.integers(-(2**63), 2**63 - 1), VISIBLE),
        VISIBLE,
        st.one_of(st.none(), VISIBLE),
        st.one_of(st.none(), st.floats(-1e6, 1e6)),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: same_id(row[0]),
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


def feed_of(path, **options):
    return open_feed(path, data(), **options)


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
    feed = feed_of(write(tmp_path_factory.mktemp("feed") / "rows.jsonl", records(rows)))
    checked = feed.check()
    assert (checked.rows, checked.numbers) == (len(rows), all(type(row[0]) is int for row in rows))
    check(read(feed), rows)


@given(rows=ROWS)
def test_csv_comes_through_as_texts(tmp_path_factory, rows):
    texts = list({str(row[0]): (str(row[0]), *row[1:]) for row in rows}.values())
    feed = feed_of(write(tmp_path_factory.mktemp("feed") / "rows.csv", records(texts)))
    assert feed.check().rows == len(texts)
    check(read(feed), texts)


@given(rows=ROWS.filter(lambda rows: len({type(row[0]) for row in rows}) == 1))
def test_parquet_comes_through(tmp_path_factory, rows):
    feed = feed_of(write(tmp_path_factory.mktemp("feed") / "rows.parquet", records(rows)))
    assert feed.check().rows == len(rows)
    check(read(feed), rows)


@given(content=st.binary(max_size=200), ending=st.sampled_from(["jsonl", "csv", "parquet"]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("feed") / f"rows.{ending}"
    path.write_bytes(content)
    try:
        feed_of(path).check()
    except InputError as error:
        assert str(path) in str(error)


@given(text=TEXT, ending=st.sampled_from(["jsonl", "csv"]))
def test_any_text_in_a_row_is_read_or_refused_in_words(tmp_path_factory, text, ending):
    path = tmp_path_factory.mktemp("feed") / f"rows.{ending}"
    path.write_text(f'indoml_id,description\n1,"{text}\n{text}' if ending == "csv" else f'{{"indoml_id": {text}}}')
    try:
        feed_of(path).check()
    except InputError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(("ids", "numbers"), [(["7", "12"], True), (["007", "12"], False), (["a", "12"], False)])
def test_csv_ids_are_numbers_only_where_nothing_would_be_lost(tmp_path, ids, numbers):
    path = write(tmp_path / "rows.csv", [GOOD | {"indoml_id": key} for key in ids])
    assert feed_of(path).check().numbers is numbers


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_columns_go_by_other_names_and_may_be_missing(tmp_path, ending):
    path = write(tmp_path / f"rows.{ending}", [{"sku": "a-1", "text": "milk", "shop": "alder"}])
    table = read(feed_of(path, id="sku", text=["text"], retailer="shop"))
    assert table.drop(columns="price").to_numpy().tolist() == [["a-1", "milk", "alder"]]
    assert read(feed_of(path, id="sku", text=["text"]))["retailer"].tolist() == [""]
    with pytest.raises(InputError, match="cost"):
        feed_of(path, id="sku", text=["text"], price="cost").check()


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
    ("words for a price", {"price": "cheap"}, '`price` is "cheap", expected a number'),
    ("shortened by a spreadsheet", {"indoml_id": "4,1E+12"}, "a spreadsheet has shortened; save that column as text"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_row_is_named_with_its_line(tmp_path, change, said):
    path = write(tmp_path / "rows.jsonl", [GOOD, GOOD | {"indoml_id": 2}, GOOD | {"indoml_id": 3} | change])
    with pytest.raises(InputError, match=f"rows.jsonl:3: .*{said}") as error:
        feed_of(path).check()
    assert "correct or remove" in str(error.value)


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


LINES = [
    ("not JSON", "jsonl", b"{oops\n", ":1: not JSON"),
    ("an array", "jsonl", b"[1]\n", ":1: expected a JSON object"),
    ("not UTF-8", "jsonl", b'{"indoml_id": 1, "description": "\xff"}\n', ":1: not UTF-8"),
    ("missing field", "jsonl", b'{"indoml_id": 1}\n', ":1: `description` is missing"),
    ("empty", "jsonl", b"", "no row"),
    ("empty", "csv", b"", "no row"),
    ("header alone", "csv", b"indoml_id,description\n", "no row"),
    ("other columns", "csv", b"sku;text\n1;milk\n", "no column indoml_id, description; there are: sku, text"),
    ("an unknown delimiter", "csv", b"indoml_id^description\n1^milk\n", "cannot tell what is between the fields"),
    ("two delimiters", "csv", b"a,b;c\n1,2;3\n", "cannot tell what is between the fields of this CSV, .* --delimiter"),
    ("too few fields", "csv", b"indoml_id,description\n1,milk\n2\n", ":3: 1 fields, expected 2 with commas"),
    ("open quote", "csv", b'indoml_id,description\n1,"milk\n', "not CSV"),
    ("stray quote", "csv", b'indoml_id,description\n1,"mi"lk\n', ":2: not CSV"),
    ("latin-1", "csv", "indoml_id,description\n1,cr\xe8me\n".encode("latin-1"), ":2: `description` is not UTF-8"),
    ("a column twice", "csv", b"indoml_id,description,description\n1,a,b\n", "more than one column description"),
    ("no Parquet", "parquet", b"PAR1 but not really", "not a Parquet table"),
    ("cut", "parquet", b"PAR1", "not a Parquet table"),
    ("cut", "csv.gz", gzip.compress(b"indoml_id,description\n1,milk\n")[:-9], "damaged .gz file"),
    ("cut", "csv.zst", zstd(b"indoml_id,description\n1,milk\n")[:-3], "damaged .zst file"),
]


@pytest.mark.parametrize(
    ("ending", "content", "said"), [case[1:] for case in LINES], ids=[c[1] + " " + c[0] for c in LINES]
)
def test_a_malformed_file_is_refused_in_words(tmp_path, ending, content, said):
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        feed_of(path).check()


def test_all_bad_rows_are_counted_and_an_id_comes_once(tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD] * 6)
    with pytest.raises(
        InputError, match=r":2: `indoml_id` is 1 again \(first in line 1\), expected each id once"
    ) as error:
        feed_of(path).check()
    assert "and 2 more bad rows" in str(error.value)


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(InputError, match="not there"):
        feed_of(tmp_path / "rows.jsonl")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="this folder has no files with rows; name a file"):
        feed_of(tmp_path / "folder.csv")
    (tmp_path / "rows.txt").touch()
    with pytest.raises(InputError, match="--format"):
        feed_of(tmp_path / "rows.txt")
    feed_of(tmp_path / "rows.txt", format="csv")


# Other shops' files


def shop(**columns):
    return data(columns={"id": "sku", "text": ["title", "note"], "retailer": "shop", "price": "cost", **columns})


def test_the_params_say_how_new_rows_are_read(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("sku;title;note;cost\nA-1;milk;;1,50\n007;tea;green;-2,00\n")
    feed = open_feed(path, shop())
    assert feed.check() == Checked(2, numbers=False) and feed.id_name == "sku"
    table = read(feed)
    assert table["description"].tolist() == ["milk", "tea green"]
    assert table["retailer"].tolist() == ["", ""] and table["price"].tolist() == [1.5, -2.0]


def test_options_win_over_the_params(tmp_path):
    path = tmp_path / "new.csv"
    path.write_bytes("sku;Titel;Preis\n1;Möhre;1.234\n".encode("cp1252"))
    options = {"id": "", "text": ["Titel"], "price": "Preis", "encoding": "cp1252", "delimiter": ";", "decimal": ","}
    feed = open_feed(path, shop(), **options)
    assert feed.id_name == "id"
    assert read(feed).to_numpy().tolist() == [[1, "Möhre", "", 1234.0]]
    with pytest.raises(InputError, match="no column shop"):
        open_feed(path, shop(), **options, retailer="shop").check()


def test_the_decimal_mark_is_recognised_in_the_file(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("sku;title;note;cost\n1;a;;1.234\n2;b;;2,5\n")
    assert read(open_feed(path, shop()))["price"].tolist() == [1234.0, 2.5]


def test_bad_rows_are_left_out_and_listed(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("sku;title;note;cost\n1;a;;1\n2;;;1\n3;b;;cheap\n1;c;;1\n4;d;;1\n")
    feed = open_feed(path, shop(), on_bad_row="quarantine")
    assert feed.check() == Checked(2, numbers=True, bad=3)
    assert read(feed, size=1)["key"].tolist() == ["1", "4"]
    feed.list_bad(tmp_path / "out.csv")
    listed = [json.loads(line) for line in (tmp_path / "out.csv.bad.jsonl").read_text().splitlines()]
    assert [(bad["file"], bad["line"], bad["raw"]) for bad in listed] == [
        ("new.csv", 3, "2;;;1"),
        ("new.csv", 4, "3;b;;cheap"),
        ("new.csv", 5, "1;c;;1"),
    ]
    assert listed[0]["reason"] == "`title` and `note` are empty, expected text"
    path.write_text("sku;title;note;cost\n1;a;;1\n")
    feed.list_bad(tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.bad.jsonl").exists()
    path.write_text("sku;title;note;cost\n1;;;1\n")
    with pytest.raises(
        InputError, match=r"there is no sound row in it; .*; first fault: .*:2: `title` and `note` are empty"
    ):
        feed.check()


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_packed_feed(tmp_path, pack):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(pack(b"".join(json.dumps(GOOD | {"indoml_id": key}).encode() + b"\n" for key in range(5))))
    assert feed_of(path).check().rows == 5 and len(read(feed_of(path))) == 5


def test_what_is_read_is_part_of_the_key_of_a_resumed_run(tmp_path):
    path = write(tmp_path / "rows.csv", [GOOD])
    readings = [
        feed_of(path, **options).reading
        for options in ({}, {"decimal": ","}, {"encoding": "cp1252"}, {"text": ["price"]})
    ]
    assert len({json.dumps(reading) for reading in readings}) == 4
