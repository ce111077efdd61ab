"""Files of any shop: delimiters, encodings, packed files. What cannot be read says where, what and what to do."""

import bz2
import codecs
import csv
import gzip
import io
import json
import logging
import tracemalloc

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop import data, read_source
from tillmap.catalogue import csv_tables, reading
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError
from tillmap.core.errors import InputError, ParamsError
from tillmap.serving.feed import open_feed

FIELDS = ["nr", "shop", "text", "price", "code"]
ROWS = [
    ["1", "Halles 24", "CRÈME, fraîche; 5 | x", "2,09", "01.1"],
    ["2", "", 'œufs "bio"', "-1.234,50", "01.1.4"],
    ["3", "Lune", "pâte\nbrisée", "", "01.2"],
]
COLUMNS = {"id": "nr", "text": "text", "retailer": "shop", "price": "price", "levels": "code"}
TAX = {"levels": None, "brand": None}


def csv_text(delimiter=",", rows=ROWS, ending="\r\n"):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=ending).writerows([FIELDS, *rows])
    return text.getvalue()


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


def read(path, **values):
    return read_source(path, columns=COLUMNS, tax=TAX, **values).rows


@pytest.fixture
def expected(tmp_path):
    """The rows, read from JSON Lines."""
    path = tmp_path / "expected.jsonl"
    path.write_text("".join(json.dumps(dict(zip(FIELDS, row, strict=True))) + "\n" for row in ROWS))
    return read(path)


def test_the_rows_are_what_the_file_says(expected):
    assert expected["id"].tolist() == [1, 2, 3] and "given_id" not in expected
    assert expected["retailer"].tolist() == ["Halles 24", "", "Lune"]
    assert expected["description"].tolist() == [row[2] for row in ROWS]
    assert expected["price"].fillna(0).tolist() == [2.09, -1234.5, 0]
    assert expected[["level_1", "level_2", "level_3"]].fillna("").to_numpy().tolist() == [
        ["01", "01.1", ""],
        ["01", "01.1", "01.1.4"],
        ["01", "01.2", ""],
    ]


WAYS = {
    "commas": csv_text().encode(),
    "semicolons": csv_text(";").encode(),
    "tabs": csv_text("\t").encode(),
    "bars": csv_text("|").encode(),
    "line feeds": csv_text(ending="\n").encode(),
    "a mark at the start": codecs.BOM_UTF8 + csv_text(";").encode(),
    "a note of Excel's": b"sep=;\r\n" + csv_text(";").encode(),
    "utf-16 with a mark": csv_text(";").encode("utf-16"),
    "gz": gzip.compress(csv_text(";").encode()),
    "two gz in one": gzip.compress(csv_text(";").encode()[:40]) + gzip.compress(csv_text(";").encode()[40:]),
    "zst": zstd(csv_text(";").encode()),
    "blank rows": (csv_text(";") + "\r\n;;;;\r\n\r\n").encode(),
    "names with spaces": csv_text(";").replace("shop;text", " shop ; text").encode(),
}


@pytest.mark.parametrize("content", WAYS.values(), ids=WAYS)
def test_however_a_csv_is_written_the_rows_are_the_same(tmp_path, expected, content):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    pd.testing.assert_frame_equal(read(path), expected)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-16", "mac-roman", "utf-8-sig"])
def test_other_encodings_by_name(tmp_path, expected, encoding):
    path = tmp_path / "rows.csv"
    text = csv_text(";").replace("œ", "o") if encoding == "latin-1" else csv_text(";")
    path.write_bytes(text.encode(encoding))
    rows = read(path, encoding=encoding)
    assert rows["description"][0] == "CRÈME, fraîche; 5 | x"
    if encoding != "latin-1":
        pd.testing.assert_frame_equal(rows, expected)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_formats_packed(tmp_path, expected, ending, pack):
    plain = io.BytesIO()
    table = pd.DataFrame(ROWS, columns=FIELDS)
    if ending == "parquet":
        table.to_parquet(plain)
    else:
        table.to_json(plain, orient="records", lines=True)
    path = tmp_path / f"rows.{ending}.gz"  # what a file starts with counts, not its name
    path.write_bytes(pack(plain.getvalue()))
    pd.testing.assert_frame_equal(read(path), expected)


def test_the_delimiter_is_said(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(";"))
    with caplog.at_level(logging.INFO, "tillmap"):
        read(path)
    assert [line for line in caplog.messages if "CSV" in line] == [f"{path}: CSV with semicolons between fields"]


def test_a_single_column_needs_no_delimiter(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text\nmilk\nbread\n")
    feed = open_feed(path, data(columns={"id": None, "text": "text", "retailer": None, "price": None}))
    assert feed.check().rows == 2
    (batch,) = feed.batches(10)
    assert batch["key"].tolist() == [1, 2] and batch["description"].tolist() == ["milk", "bread"]


CELLS = st.lists(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6), min_size=3, max_size=3),
    min_size=1,
    max_size=6,
)


@given(rows=CELLS, delimiter=st.sampled_from(csv_tables.DELIMITERS), encoding=st.sampled_from(["utf-8", "utf-16"]))
def test_what_csv_writes_is_read_back(tmp_path_factory, rows, delimiter, encoding):
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([["first", "second", "third"], *rows])
    file = RowFile(path, encoding=encoding, delimiter=delimiter)
    found = [list(row.read().values()) for row in file.rows(["first", "second", "third"])]
    assert found == [row for row in rows if any(row)]


@given(
    content=st.binary(max_size=100),
    start=st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"a;b\n"]),
    encoding=st.sampled_from(["utf-8", "cp1252", "utf-16", "shift_jis", "utf-7"]),
    ending=st.sampled_from(["jsonl", "csv"]),
)
def test_any_bytes_in_any_encoding_are_rows_or_errors(tmp_path_factory, content, start, encoding, ending):
    path = tmp_path_factory.mktemp("bytes") / f"rows.{ending}"
    path.write_bytes(start + content)
    try:
        for row in RowFile(path, encoding=encoding).rows([]):
            row.raw().encode()
            try:
                row.read()
            except BadRowError as fault:
                str(fault).encode()
    except InputError as error:
        assert str(path) in str(error)


BAD = {
    "wrong encoding": (csv_text(";").encode("cp1252"), {}, r":2: `text` is not UTF-8, .* `data\.encoding`"),
    "wrong encoding in the header": (
        "nr;libellé\n".encode("cp1252"),
        {},
        r":1: the header is not UTF-8; name the .*encoding",
    ),
    "two encodings": (
        csv_text(";").encode() + "4;Lune;crème;1;01.1\n".encode("cp1252"),
        {},
        r":6: `text` is not UTF-8, expected a file saved as UTF-8",
    ),
    "UTF-8 in cp1252": (
        csv_text(";", [["1", "a", "b", "1", "01"]]).encode() + "2;Lune;crème;1;01.1\n".encode(),
        {"encoding": "cp1252"},
        r":3: `text` is UTF-8, not cp1252, expected one encoding in the whole file",
    ),
    "not in cp1252": (
        csv_text(";", [["1", "a", "b", "1", "01"]]).encode() + b"2;Lune;cr\x81me;1;01.1\n",
        {"encoding": "cp1252"},
        r":3: `text` is not cp1252",
    ),
    "an unknown encoding": (csv_text(";").encode(), {"encoding": "klingon"}, r"klingon is no known encoding; expected"),
    "no text encoding": (csv_text(";").encode(), {"encoding": "base64"}, r"base64 is no known encoding"),
    "a delimiter of none": (csv_text("^").encode(), {}, r"cannot tell what is between the fields of this CSV"),
    "the wrong delimiter": (csv_text(";").encode(), {"delimiter": ","}, r"no column nr, .* there are: nr;shop;text"),
    "a stray quote": (
        csv_text(";").encode() + b'4;Lune;"bio" eggs;1;01.1\n',
        {},
        r":6: not CSV \(';' expected after '\"'\), expected semicolons between fields, and quotes",
    ),
    "a field too many": (
        csv_text(";").encode() + b"4;Lune;a;b;1;01.1\n",
        {},
        r":6: 6 fields, expected 5 with semicolons",
    ),
    "nothing": (b"", {}, r"there is no row in it; expected a header and rows"),
    "a header": (b"nr;shop;text;price;code\n", {}, r"there is no row in it; expected a header and rows"),
    "words for a price": (
        csv_text(";").encode() + b"4;Lune;a;free;01.1\n",
        {},
        r':6: `price` is "free", expected a number',
    ),
}


@pytest.mark.parametrize(("content", "values", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_says_where_and_what_to_do(tmp_path, content, values, said):
    path = tmp_path / "rows.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read(path, **values)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_bad_rows_of_a_csv_are_set_aside_one_by_one(tmp_path):
    path = tmp_path / "rows.csv"
    bad = [
        '4;Lune;"never closed;1;01.1',
        '5;Lune;"bio" eggs;1;01.1',
        "6;Lune;a;cheap;01.1",
        "7;Lune;a;1;",
        "1;x;y;1;01.1",
    ]
    path.write_text(csv_text(";", ending="\n") + "\n".join([*bad, "8;Lune;last;1;01.1"]) + "\n")
    source = read_source(path, "quarantine", COLUMNS, TAX)
    assert source.rows["id"].tolist() == [1, 2, 3, 8]
    assert source.quarantined["line"].tolist() == [6, 7, 8, 9, 10]
    assert source.quarantined["raw"].tolist() == bad


def test_an_endless_line_and_an_endless_row_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 10_000)
    lines = [b"nr;shop;text;price;code", b"1;a;b;1;01", b"2;a;" + b"x" * 5_000_000 + b";1;01", b"3;a;b;1;01"]
    lines += [b'4;a;"' + b"y" * 100, *[b"y" * 100] * 3_000, b"5;a;b;1;01"]
    path = tmp_path / "rows.csv"
    path.write_bytes(zstd(b"\n".join(lines)))
    tracemalloc.start()
    places = []
    for row in RowFile(path, known=tuple(FIELDS)).rows(FIELDS):
        try:
            row.read()
        except BadRowError as fault:
            if len(places) < 3:
                places.append((row.place, str(fault)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert places[0] == (3, "the line is longer than 10,000 bytes")
    assert places[1][0] == 5 and "the row does not end" in places[1][1]
    assert peak < 3_000_000


# Which files of a folder


def folder_of(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


TRAIN, TEST = "nr,text,code\n1,milk,01.1\n2,tea,01.2\n", "nr,text,code\n1,milk,01.1\n2,tea,\n"
TWO = {"retailer": None, "price": None, "id": "nr", "text": "text", "levels": "code"}


def read_folder(folder, on_bad_row="stop", **values):
    return read_source(folder, on_bad_row, TWO, TAX, **values)


def test_train_and_test_with_labels_in_the_same_files(tmp_path):
    rows = read_folder(folder_of(tmp_path, train__csv=TRAIN, test__csv=TEST)).rows
    assert rows[["split", "id"]].to_numpy().tolist() == [["train", 1], ["train", 2], ["test", 1], ["test", 2]]
    assert rows["level_2"].fillna("").tolist() == ["01.1", "01.2", "01.1", ""]
    assert rows["level_1"].isna().tolist() == [False, False, False, True]


def test_a_folder_without_a_test_file_and_a_test_file_without_labels(tmp_path):
    assert set(read_folder(folder_of(tmp_path, train__csv=TRAIN)).rows["split"]) == {"train"}
    rows = read_folder(folder_of(tmp_path, test__jsonl='{"nr": 5, "text": "tea"}\n')).rows
    assert rows["id"].tolist() == [1, 2, 5] and rows["level_1"].isna().tolist() == [False, False, True]


def test_rows_to_learn_from_that_say_nothing_are_told_at_once(tmp_path):
    silent = folder_of(tmp_path, train__csv=TRAIN.replace("milk", "-").replace("tea", "..."), test__csv=TEST)
    with pytest.raises(
        InputError, match=r"train\.csv: no row to learn from has a letter or a digit in its text \(text\)"
    ):
        read_folder(silent)
    assert len(read_folder(folder_of(tmp_path, train__csv=TRAIN.replace("milk", "-"))).rows) == 4
    assert len(read_folder(folder_of(tmp_path, train__csv=TRAIN.replace("milk", "🍎").replace("tea", "🍞"))).rows) == 4


@pytest.mark.parametrize(
    "name", ["train__labels__csv", "train_labels.csv", "train-labels.csv", "train__labels__csv__gz"]
)
def test_labels_in_a_file_of_their_own(tmp_path, name):
    labels = "nr;code\n2;01.2\n1;01.1\n"
    folder = folder_of(tmp_path, train__csv="nr,text\n1,milk\n2,tea\n", **{name: labels})
    assert read_folder(folder).rows["level_2"].tolist() == ["01.1", "01.2"]


def test_files_of_other_names(tmp_path):
    folder = folder_of(tmp_path, lines__csv=TRAIN, new__csv=TEST, train__csv="no", train__jsonl="no")
    assert len(read_folder(folder, train="lines.csv", test="new.csv").rows) == 4
    with pytest.raises(InputError, match=r"there are train\.jsonl and train\.csv; name one of them in `data\.train`"):
        read_folder(folder)
    with pytest.raises(InputError, match=r"gone\.csv: the file is not there; put it there, or correct .*`data\.train`"):
        read_folder(folder, train="gone.csv")
    with pytest.raises(ParamsError, match=r"data\.train and data\.test name files in a folder, .* is the file"):
        read_folder(folder / "lines.csv", train="lines.csv")


def test_ids_of_text_are_kept_beside_numbers(tmp_path):
    folder = folder_of(
        tmp_path, train__csv="nr,text,code\nA-7,milk,01.1\n12,tea,01.2\n", test__csv="nr,text\n007,tea\nB,milk\n"
    )
    rows = read_folder(folder).rows
    assert rows.columns.tolist()[:3] == ["split", "id", "given_id"]
    assert rows["id"].tolist() == [1, 2, 1, 2]
    assert rows["given_id"].tolist() == ["A-7", "12", "007", "B"]


def test_without_ids_a_rows_number_is_its_id_and_a_bad_row_counts(tmp_path):
    path = folder_of(tmp_path, rows__csv="text,code\nmilk,01\n,01\ntea,02\n") / "rows.csv"
    source = read_source(path, "quarantine", TWO | {"id": None}, TAX)
    assert source.rows["id"].tolist() == [1, 3] and source.quarantined["line"].tolist() == [3]


def test_a_number_and_its_text_are_the_same_id(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"nr": 7, "text": "a", "code": "1"}\n{"nr": "7", "text": "b", "code": "1"}\n')
    with pytest.raises(InputError, match=r":2: `nr` is 7 again \(first in line 1\), expected each id once"):
        read_folder(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, zstd])
def test_blank_lines_are_told_between_rows_and_left_out_at_the_end(pack, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(pack(b'{"id": 1}\n' + b"\n" * 200_000 + b' \t\r\n{"id": 2}\n' + b"\r\n" * 200_000 + b"  "))
    rows = list(RowFile(path).rows(()))
    assert [row.place for row in rows] == list(range(1, 200_004))
    assert (rows[0].read(), rows[-1].read()) == ({"id": 1}, {"id": 2})
    with pytest.raises(BadRowError, match="a blank line between rows"):
        rows[200_001].read()
