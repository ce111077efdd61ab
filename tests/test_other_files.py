"""Files as other programs write them: JSON arrays, containers, folders of parts, columns of other types."""

import bz2
import gzip
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop import data, read_source
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError
from tillmap.core.errors import InputError
from tillmap.core.inputs import watch
from tillmap.serving.feed import open_feed

ROWS = [
    {"indoml_id": 1, "description": 'mi[lk, {"x" \\', "retailer": "r", "price": 1.5},
    {"indoml_id": 2, "description": "br]ea}d", "retailer": None, "price": None},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = b"indoml_id,description,price\n1,milk,1.5\n2,bread,\n"


def write(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def feed_of(path, **options):
    return open_feed(path, data(), **options)


def read(path, **options):
    feed = feed_of(path, **options)
    assert feed.check().rows == sum(map(len, feed.batches(2)))
    return pd.concat(feed.batches(2), ignore_index=True)


def refused(path, said, **options):
    with pytest.raises(InputError, match=said) as error:
        feed_of(path, **options).check()
    assert str(path) in str(error.value)


# JSON

LAYOUTS = {
    "on one line": json.dumps(ROWS),
    "an array over lines": json.dumps(ROWS, indent=2),
    "blanks before": f"\n \n{json.dumps(ROWS)}\n",
    "a mark before": "\ufeff" + json.dumps(ROWS),
    "one row a line": "[\n" + LINES.strip().replace("\n", ",\n") + "\n]\n",
    "objects over lines": "".join(json.dumps(row, indent=4) + "\n" for row in ROWS),
    "CR alone": LINES.replace("\n", "\r"),
    "CRLF": LINES.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_json_in_any_layout_gives_the_rows_of_json_lines(tmp_path, text, encoding, pack):
    expected = read(write(tmp_path, "lines.jsonl", LINES.encode()))
    found = read(
        write(tmp_path, "rows.json", pack(text.removeprefix("\ufeff" * (encoding != "utf-8")).encode(encoding)))
    )
    pd.testing.assert_frame_equal(found, expected)
    assert found["description"].tolist() == [row["description"] for row in ROWS]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_any_array_of_objects_comes_through(tmp_path_factory, rows, indent, ascii_only):
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    path = write(tmp_path_factory.mktemp("json"), "rows.json", text.encode())
    assert [row.read() for row in RowFile(path).rows([])] == rows


def test_an_array_larger_than_a_block_and_its_lines(tmp_path):
    rows = [{"indoml_id": number, "description": f'"{number}" \\ ' + "é" * (number % 700)} for number in range(600)]
    path = write(tmp_path, "rows.json", json.dumps(rows, indent=1).encode())
    found = list(RowFile(path).rows([]))
    assert [row.read() for row in found] == rows
    assert [row.place for row in found] == [2 + 4 * number for number in range(600)]


BAD_JSON = {
    "cut after a row": (json.dumps(ROWS)[:-1], ":1: the array does not end; the file is cut short"),
    "cut in a row": (json.dumps(ROWS)[:-20], ":1: not JSON .*\n.*the array does not end"),
    "more after it": (json.dumps(ROWS) + "\n{}", ":2: `indoml_id` is missing"),
    "no comma": (json.dumps(ROWS).replace("}, {", "} {"), ":1: not JSON"),
    "numbers": ("[1, 2]", ":1: expected a JSON object, found 1"),
    "columns": ('{"description": {"0": "milk"}}', ":1: `indoml_id` is missing"),
    "empty": ("[]", "there is no row in it"),
    "a bracket": ("[", "the array does not end"),
    "nested too deep": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize(("text", "said"), BAD_JSON.values(), ids=BAD_JSON)
def test_a_damaged_array_is_told_with_its_line(tmp_path, text, said):
    refused(write(tmp_path, "rows.json", text.encode()), said)


def test_a_bad_value_of_an_array_is_left_out_alone(tmp_path):
    text = json.dumps([ROWS[0], {"indoml_id": 3}, 7, ROWS[1]], indent=1)
    feed = feed_of(write(tmp_path, "rows.json", text.encode()), on_bad_row="quarantine")
    assert feed.check().bad == 2
    assert pd.concat(feed.batches(9))["key"].tolist() == [1, 2]


def test_a_long_value_costs_one_row(tmp_path):
    rows = [ROWS[0], {"indoml_id": 9, "description": "x" * 3_000_000}, ROWS[1]]
    faults = []
    for row in RowFile(write(tmp_path, "rows.json", json.dumps(rows).encode())).rows([]):
        try:
            row.read()
        except BadRowError as fault:
            faults.append(str(fault))
    assert faults == ["the line is longer than 1,048,576 bytes"]


# CSV, encodings and containers


def zipped(**files):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("UP", "../.."), content)
    return sink.getvalue()


WAYS = {
    "CR alone": CSV.replace(b"\n", b"\r"),
    "CR alone in UTF-16": CSV.replace(b"\n", b"\r").decode().encode("utf-16"),
    "UTF-32": CSV.decode().encode("utf-32"),
    "bz2": bz2.compress(CSV),
    "zip": zipped(rows=CSV),
    "a zip with an escape": zipped(**{"UP/rows": CSV}),
    "a zip of a Mac": zipped(**{"rows.csv": CSV, "__MACOSX/._rows.csv": b"."}),
    "a zip of JSON names": zipped(**{"folder/": b"", "folder/rows.csv": CSV}),
}


@pytest.mark.parametrize("content", WAYS.values(), ids=WAYS)
def test_however_a_csv_is_packed_the_rows_are_the_same(tmp_path, content):
    expected = read(write(tmp_path, "plain.csv", CSV))
    pd.testing.assert_frame_equal(read(write(tmp_path, "rows.csv", content)), expected)
    assert expected["description"].tolist() == ["milk", "bread"]
    assert {file.name for file in tmp_path.iterdir()} == {"plain.csv", "rows.csv"}


@pytest.mark.parametrize("sign", ["^", "~", "\x01", "§", ":"])
def test_any_sign_may_be_between_the_fields(tmp_path, sign):
    path = write(tmp_path, "rows.csv", CSV.decode().replace(",", sign).encode())
    assert read(path, delimiter=sign)["description"].tolist() == ["milk", "bread"]
    refused(path, "cannot tell what is between the fields")


@pytest.mark.parametrize("sign", ["ab", '"', "\n", "x", " "])
def test_what_cannot_be_a_delimiter_is_told(tmp_path, sign):
    with pytest.raises(InputError, match="cannot be between fields; expected one sign"):
        feed_of(write(tmp_path, "rows.csv", CSV), delimiter=sign)


OTHERS = {
    "an Excel workbook": zipped(**{"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
    "an Excel workbook of old": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "this is an Excel workbook; save the sheet as CSV",
    ),
    "an OpenDocument file": zipped(mimetype=b"", **{"content.xml": b""}),
    "two files": (zipped(a=CSV, b=CSV), "a zip with 2 files, expected one"),
    "no file": (zipped(), "a zip with 0 files, expected one"),
    "a web page": b"\n<!DOCTYPE html><html>",
    "an SQLite database": b"SQLite format 3\0",
    "a Parquet table": b"PAR1 ... PAR1",
    "a tar archive": b"rows.csv".ljust(257, b"\0") + b"ustar\0",
    "an xz file": b"\xfd7zXZ\0\0\4",
    "an lz4 file": b"\x04\x22\x4d\x18 ...",
    "zeros": (bytes(4096), "it starts with zeros, as a file does that was not written whole"),
    "utf-16-le": (CSV.decode().encode("utf-16-le"), "looks like utf-16-le"),
    "utf-16-be": (CSV.decode().encode("utf-16-be"), "looks like utf-16-be"),
    "packed twice": (gzip.compress(bz2.compress(CSV)), "this is packed twice; unpack it first"),
    "a cut zip": (zipped(rows=CSV)[:-9], "damaged .zip file"),
    "a cut bz2": (bz2.compress(CSV)[:-9], "damaged .bz2 file"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_called_by_their_name(tmp_path, name):
    content, said = OTHERS[name] if isinstance(OTHERS[name], tuple) else (OTHERS[name], f"this is {name}")
    refused(write(tmp_path, "rows.csv", content), said)


MISNAMED = [
    ("JSON", LINES.encode(), "csv parquet"),
    ("JSON", json.dumps(ROWS).encode(), "csv parquet"),
    ("JSON", json.dumps(ROWS[0], indent=1).encode(), "csv parquet"),
    ("JSON", LINES.encode("utf-16"), "csv"),
    ("CSV", CSV, "json parquet"),
    ("CSV", b"\xef\xbb\xbf\nNr;Artikel\n1;Milch\n", "jsonl parquet"),
    ("CSV", gzip.compress(CSV), "jsonl parquet"),
]


@pytest.mark.parametrize(("what", "content", "endings"), MISNAMED)
def test_a_file_with_the_name_of_another_format_says_what_it_is(tmp_path, what, content, endings):
    right = {"JSON": "jsonl", "CSV": "csv"}[what]
    for ending in endings.split():
        path = write(tmp_path, f"rows.{ending}", content)
        refused(path, f"this is {what}, not .*rename the file to end in .{right}, or --format {right}")


def test_json_lines_with_as_many_commas_a_line_are_no_csv(tmp_path):
    text = "".join(f'{{"indoml_id": {number}, "description": "milk, 2 l"}}\n' for number in range(3))
    for encoding in ("utf-8", "utf-16", "utf-32"):
        assert len(read(write(tmp_path, f"{encoding}.jsonl", text.encode(encoding)))) == 3


@pytest.mark.parametrize(("name", "what"), [("rows.csv.xz", "an xz file"), ("rows.tgz", "a tar archive")])
def test_what_is_in_a_file_counts_more_than_its_name(tmp_path, name, what):
    content = OTHERS[what] if what == "an xz file" else gzip.compress(OTHERS[what])
    refused(write(tmp_path, name, content), f"this is {what}; unpack it")


def test_a_packed_file_whose_name_says_no_format_is_called_by_its_whole_name(tmp_path):
    refused(write(tmp_path, "rows.zip", zipped(rows=CSV)), r"rows\.zip: unknown file format")


def test_what_a_system_notes_in_a_zip_is_no_second_file(tmp_path):
    notes = {".DS_Store": b"", "__MACOSX/._rows.csv": b"", "rows/": b"", "rows/.hidden": b""}
    assert len(read(write(tmp_path, "rows.csv.zip", zipped(**notes, **{"rows/rows.csv": CSV})))) == 2


def test_files_that_were_joined_and_those_of_dos(tmp_path):
    mark = b"\xef\xbb\xbf"
    rows = read(write(tmp_path, "rows.csv", mark * 2 + CSV + mark + b"3,tea,1\r\n\x1a"))
    assert rows["key"].tolist() == ["1", "2", "3"]
    refused(write(tmp_path, "lone.csv", CSV + b"3,tea\r4,cola,1\n"), "a carriage return that ends no line")


def test_the_header_of_a_joined_file_is_no_row(tmp_path):
    mark = b"\xef\xbb\xbf"
    path = write(tmp_path, "rows.csv", mark + CSV + mark + CSV.replace(b"1,", b"3,").replace(b"2,", b"4,"))
    refused(path, r"rows\.csv:4: this is the header again, as where files were joined")
    assert read(path, on_bad_row="quarantine")["key"].tolist() == ["1", "2", "3", "4"]
    assert len(read(write(tmp_path, "one.csv", b"description\ndescription\n"), id="", retailer="", price="")) == 1


def test_zeros_at_the_end_of_a_file_that_was_not_written_whole_are_no_encoding(tmp_path):
    refused(write(tmp_path, "rows.csv", CSV + bytes(4096)), r"rows\.csv:4: 1 fields, expected 3")


def test_an_address_is_not_fetched():
    refused(Path("https://shop.example/rows.csv"), "this is an address, .*curl")


# Parquet of other writers


def table(**columns):
    return pa.table({"indoml_id": [1, 2], "description": ["milk", "bread"], **columns})


def parquet(folder, made):
    pq.write_table(made, folder / "rows.parquet")
    return folder / "rows.parquet"


SOUND = {
    "texts as bytes": (table(description=[b"milk", "bréad".encode()]), ["milk", "bréad"], [1, 2]),
    "texts as views": (table(description=pa.array(["milk", "bread"], pa.string_view())), ["milk", "bread"], [1, 2]),
    "a dictionary": (table(description=pa.array(["a", "a"]).dictionary_encode()), ["a", "a"], [1, 2]),
    "ids as floats": (table(indoml_id=[1.0, 2.0**52]), ["milk", "bread"], [1, 2**52]),
    "ids as decimals": (
        table(indoml_id=pa.array([Decimal(1), Decimal(10) ** 30], pa.decimal128(38, 0))),
        ["milk", "bread"],
        [1, "1" + "0" * 30],
    ),
    "ids as UUIDs": (
        table(indoml_id=pa.array([UUID(int=1).bytes, UUID(int=2).bytes], pa.uuid())),
        ["milk", "bread"],
        [str(UUID(int=1)), str(UUID(int=2))],
    ),
    "ids as bytes": (table(indoml_id=[b"a", b"b"]), ["milk", "bread"], ["a", "b"]),
}


@pytest.mark.parametrize(("made", "texts", "ids"), SOUND.values(), ids=SOUND)
def test_columns_of_other_types(tmp_path, made, texts, ids):
    found = read(parquet(tmp_path, made))
    assert found["description"].tolist() == texts
    assert found["key"].tolist() == ids


def test_a_retailer_may_be_a_number_of_any_type(tmp_path):
    for retailers in ([3, None], [3.0, None], pa.array([Decimal(3), None], pa.decimal128(9, 0))):
        assert read(parquet(tmp_path, table(retailer=retailers)))["retailer"].tolist() == ["3", ""]


BAD_TABLES = {
    "bytes": (table(description=[b"\xff", b"a"]), ":1: `description` is bytes that are not UTF-8"),
    "half an id": (table(indoml_id=[1.5, 2.0]), ":1: `indoml_id` is 1.5, expected text or a whole number"),
    "a float beyond its digits": (table(indoml_id=[2.0**60, 1.0]), ":1: .*a float keeps 15 digits"),
    "a struct": (table(description=[{"a": "x", "b": "y"}] * 2), ":1: .*it has the fields a, b: write one as a column"),
    "no id": (table(indoml_id=[float("nan"), 1.0]), ":1: `indoml_id` is NaN"),
    "a value that is too long": (
        table(description=["x" * 2_200_000, "a"]),
        "`description` has 2,200,.* bytes in 2 rows",
    ),
}


@pytest.mark.parametrize(("made", "said"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_tables_that_cannot_be_read(tmp_path, made, said):
    refused(parquet(tmp_path, made), said)


def write_part(part, path):
    if path.suffix == ".parquet":
        part.to_parquet(path)
    elif path.suffix == ".csv":
        part.to_csv(path, index=False)
    else:
        part.to_json(path, orient="records", lines=True)


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_a_folder_of_parts_is_one_file(tmp_path, ending):
    folder = tmp_path / f"rows.{ending}"
    (folder / "deep").mkdir(parents=True)
    for name in ("_SUCCESS", ".part-0.crc", "_metadata"):
        (folder / name).write_text("notes")
    rows = pd.DataFrame({"indoml_id": [1, 2, 3], "description": ["a", "b", "c"]})
    parts = {"part-0": rows[:2], "deep/part-1.snappy": rows[2:]}
    for name, part in parts.items():
        write_part(part, folder / f"{name}.{ending}")
    assert sorted(read(folder)["description"]) == ["a", "b", "c"]
    unchanged = watch(folder)
    (folder / f"part-0.{ending}").write_text("other")
    with pytest.raises(InputError, match="changed while it was read"):
        unchanged()


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_column_in_the_names_of_folders_is_read(tmp_path, ending):
    """As Spark and pandas write a table that is partitioned."""
    rows = pd.DataFrame({"indoml_id": [1, 2, 3], "description": ["milk", "bread", "tea"]})
    shops = {"retailer=a%20%26%20b": "a & b", "retailer=__HIVE_DEFAULT_PARTITION__": "", "retailer=c": "c"}
    for number, folder in enumerate(shops):
        path = tmp_path / f"feed.{ending}" / "year=2026" / folder / f"part-0.{ending}"
        path.parent.mkdir(parents=True)
        write_part(rows[number : number + 1], path)
    found = read(tmp_path / f"feed.{ending}").set_index("description")["retailer"]
    assert found.to_dict() == dict(zip(rows["description"], shops.values(), strict=True))
    (path.parent / f"part-1.{ending}").write_text("damaged")
    refused(tmp_path / f"feed.{ending}", f"year=2026/retailer=c/part-1.{ending}" if ending != "jsonl" else "not JSON")


def test_the_places_of_parts_go_on_and_an_id_comes_once_in_all(tmp_path):
    folder = tmp_path / "rows.jsonl"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (folder / name).write_text(LINES)
    refused(folder, r"rows\.jsonl:3: `indoml_id` is 1 again \(first in line 1\)")


def test_a_source_may_be_a_folder_of_parts(tmp_path):
    (tmp_path / "train.parquet").mkdir()
    labels = {"supergroup": ["a", "a"], "group": ["b", "c"], "module": ["d", "e"], "brand": ["x", "y"]}
    rows = pd.DataFrame(
        {"indoml_id": [1, 2], "description": ["milk", "bread"], "retailer": "r", "price": 1.0, **labels}
    )
    rows[:1].to_parquet(tmp_path / "train.parquet/part-0.parquet")
    rows[1:].to_parquet(tmp_path / "train.parquet/part-1.parquet")
    for source in (tmp_path, tmp_path / "train.parquet"):
        assert read_source(source).rows["description"].tolist() == ["milk", "bread"]


@pytest.mark.parametrize("nothing", ["NA", "n/a", "NaN", "NULL", "\\N", "-", "--", "none", " . ", "<NA>", "N.A.", "?"])
def test_prices_that_say_that_there_is_none(tmp_path, nothing):
    path = write(tmp_path, "rows.csv", f"indoml_id,description,price\n1,milk,{nothing}\n2,tea,1\n".encode())
    assert read(path)["price"].isna().tolist() == [True, False]


def test_a_receipt_s_repeated_id_says_how_to_do_without(tmp_path):
    refused(write(tmp_path, "rows.csv", b"indoml_id,description\n1,milk\n1,milk\n"), 'or no ids, .*: --id ""')


def test_json_as_python_writes_it_has_nan_for_no_price(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"indoml_id": number, "description": "NaN tea", "price": float("nan")} for number in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [batch] = open_feed(path, data()).batches(10)
    assert batch["key"].tolist() == [0, 1] and batch["price"].isna().all()
    path.write_text(json.dumps(rows))
    assert open_feed(path, data()).check().rows == 2


@pytest.mark.parametrize("text", ['"a\\": b"', '{"a": {"b": 1}}', '["x: y", {"a": 1}, {"a": 2}]'])
def test_a_name_within_a_value_is_not_there_twice(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"indoml_id": 1, "description": "tea", "a": ' + text + "}\n")
    assert open_feed(path, data()).check().rows == 1


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.ods"])
def test_a_spreadsheet_says_to_save_it_as_csv(tmp_path, name):
    with pytest.raises(InputError, match="spreadsheet is neither read nor written; use CSV"):
        open_feed(tmp_path / name, data())


def test_a_folder_whose_name_says_no_format(tmp_path):
    with pytest.raises(InputError, match=r"this is a folder whose name does not say the format .* --format"):
        open_feed(tmp_path, data())


def test_a_line_break_between_quotes_is_told_once(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "rows.csv"
    path.write_text('indoml_id,description\n0,oil\n1,"milk\n2,tea"\n3,"a\nb"\n')
    feed = open_feed(path, data())
    assert feed.check().rows == 3
    list(feed.batches(5))
    told = [record.getMessage() for record in caplog.records if "line break" in record.getMessage()]
    assert len(told) == 1 and ":3: this row has 2 lines" in told[0]
