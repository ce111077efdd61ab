"""Reading a catalogue: sound rows come through unchanged; an error names the place, the fault and what to do."""

import json
import math
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shop import read_source
from tillmap.catalogue import reading
from tillmap.catalogue.rows import is_blank
from tillmap.core.errors import InputError
from tillmap.core.files import read_table, write_table
from tillmap.core.taxonomy import CONTEST
from tillmap.core.text import normalise

COLUMNS = ["split", "id", "description", "retailer", "price", *CONTEST]
LABEL = dict(zip(CONTEST, ("food", "sweets", "chocolate", "cadbury"), strict=True))
REMEDY = r"; correct the line, or set bad rows aside with `data\.on_bad_row: quarantine`$"


def features(key, description="cad creme egg", retailer="greenzen", price=1.99, **more):
    return {"indoml_id": key, "description": description, "retailer": retailer, "price": price, **more}


def label(key, **more):
    return {"indoml_id": key, **LABEL, **more}


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


def write(folder, **files):
    """A sound catalogue of three training rows and two test rows, with some files replaced."""
    sound = {
        "train_features": [features(key) for key in range(3)],
        "train_labels": [label(key) for key in range(3)],
        "test_features": [features(key) for key in range(2)],
    }
    for name, lines in (sound | files).items():
        path = folder / name.replace("_", ".")
        if isinstance(lines, list):
            path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        else:
            path.write_bytes(lines)
    return folder


def replaced(record, line=2, make=features):
    """Three rows, the one on `line` being `record`."""
    return [record if number == line else make(number - 1) for number in (1, 2, 3)]


def test_reads_both_splits_in_the_order_of_the_files(tmp_path):
    folder = write(
        tmp_path,
        train_features=[features(7, "b", price="2.50"), features(0, 'ä | __ "q"', price=None), features(3, price=4)],
        train_labels=[label(0, brand="m&s, | __"), label(3), label(7)],
        test_features=[features(9), features(0, more="ignored")],
        test_labels=[label(0, brand="unseen")],
    )
    source = read_source(folder)
    rows = source.rows
    assert list(rows.columns) == COLUMNS
    assert rows["split"].tolist() == ["train"] * 3 + ["test"] * 2
    assert rows["id"].tolist() == [7, 0, 3, 9, 0]
    assert rows["id"].dtype == "int64" and rows["price"].dtype == "float64"
    assert rows["description"][1] == 'ä | __ "q"'
    assert rows["price"].tolist()[::2] == [2.5, 4.0, 1.99] and math.isnan(rows["price"][1])
    assert rows["brand"][:3].tolist() == ["cadbury", "m&s, | __", "cadbury"]
    assert rows.loc[3, list(CONTEST)].isna().all() and rows["brand"][4] == "unseen"
    assert source.quarantined.empty and list(source.quarantined.columns) == ["file", "line", "reason", "raw"]


def test_byte_order_mark_crlf_and_blank_lines_at_the_end_are_fine(tmp_path):
    lines = [json.dumps(features(key)).encode() for key in range(3)]
    folder = write(tmp_path, train_features=b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n\r\n  \n")
    assert read_source(folder).rows["id"].tolist() == [0, 1, 2, 0, 1]
    folder = write(tmp_path, train_features=b"\n".join(lines))
    assert len(read_source(folder).rows) == 5


def test_blank_lines_between_rows_are_each_set_aside_once(tmp_path):
    folder = write(tmp_path, train_features=[features(0), "", " ", features(1), features(2)])
    with pytest.raises(InputError, match=rf"train\.features:2: a blank line between rows{REMEDY}"):
        read_source(folder)
    source = read_source(folder, "quarantine")
    assert len(source.rows) == 5 and source.quarantined["line"].tolist() == [2, 3]


BAD_FEATURES = {
    "not JSON": ('{"indoml_id": 1,', r"not JSON \(.+ at column \d+\)"),
    "a name twice": ('{"indoml_id": 1, "indoml_id": 2}', "`indoml_id` is there twice, expected each name once"),
    "NaN for a text": ('{"indoml_id": 1, "description": NaN}', "`description` is NaN, expected text"),
    "an endless price": (
        '{"indoml_id": 1, "description": "x", "retailer": "y", "price": -Infinity}',
        "`price` is -Inf",
    ),
    "NaN in what is not JSON": ('{"indoml_id": 1, "price": NaN', r"not JSON \(.+ at column 27\)"),
    "NaN and half a character": (r'{"indoml_id": 1, "description": "\ud800", "price": NaN}', r"not JSON \(.+\)"),
    "half a character": (r'{"indoml_id": 1, "description": "\ud800"}', r"not JSON \(.+\)"),
    "a list": ("[1, 2]", r"expected a JSON object, found \[1,2\]"),
    "a number": ("12", "expected a JSON object, found 12"),
    "blank": ("", "a blank line between rows"),
    "no id": (without(features(1), "indoml_id"), "`indoml_id` is missing"),
    "no description": (without(features(1), "description"), "`description` is missing"),
    "no retailer": (without(features(1), "retailer"), "`retailer` is missing"),
    "no price": (without(features(1), "price"), "`price` is missing"),
    "id with a point": (features(1.5), r"`indoml_id` is 1\.5, expected text or a whole number"),
    "id true": (features(True), "`indoml_id` is true, expected text or a whole number"),
    "id too large": (features(2**63), r"`indoml_id` is 9223372036854775808, expected .* of at most 64 bits"),
    "id null": (features(None), "`indoml_id` is null, expected text or a whole number"),
    "id blank": (features("\u200b "), r'`indoml_id` is ".+", expected text or a whole number'),
    "id shortened": (features("1.23E+12"), '`indoml_id` is "1.23E\\+12", .* a spreadsheet has shortened'),
    "same id as text": (features("0"), r"`indoml_id` is 0 again \(first in line 1\), expected each id once"),
    "same id": (features(0), r"`indoml_id` is 0 again \(first in line 1\), expected each id once"),
    "description null": (features(1, None), "`description` is null, expected text"),
    "description a number": (features(1, 12), "`description` is 12, expected text"),
    "description long and no text": (features(1, ["x" * 100]), r'`description` is \["x+\.\.\., expected text'),
    "description empty": (features(1, " \t"), "`description` is empty"),
    "description invisible": (features(1, "\u200b\ufeff\x00"), "`description` is empty"),
    "retailer a list": (features(1, retailer=[]), r"`retailer` is \[\], expected text"),
    "price in words": (features(1, price="cheap"), '`price` is "cheap", expected a number, .* or null'),
    "two prices": (features(1, price="2 X 3.39€"), '`price` is "2 X 3.39€", expected a number'),
    "price that is a word": (features(1, price="nano"), '`price` is "nano", expected a number'),
    "price infinite": (features(1, price="-inf"), '`price` is "-inf", expected a number'),
    "price too large": (features(1, price="1e999"), '`price` is "1e999", expected a number'),
    "price as Python writes it": (features(1, price="1_000"), '`price` is "1_000", expected a number'),
    "price true": (features(1, price=True), "`price` is true, expected a number"),
    "price a list": (features(1, price=[1]), r"`price` is \[1\], expected a number"),
}
BAD_LABELS = {
    "three levels": (without(label(1), "brand"), "`brand` is missing"),
    "level empty": (label(1, group=" "), "`group` is empty, expected text"),
    "level null": (label(1, module=None), "`module` is null, expected text"),
    "level a fraction": (label(1, supergroup=3.1), r"`supergroup` is 3\.1, expected text"),
    "same id": (label(0), r"`indoml_id` is 0 again \(first in line 1\), expected each id once"),
    "not JSON": ("supergroup", r"not JSON \(.+ at column 1\)"),
    "no row": (label(5), None),
}


@pytest.mark.parametrize(("record", "reason"), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_a_bad_features_line_stops_with_place_reason_and_remedy(tmp_path, record, reason):
    folder = write(tmp_path, train_features=replaced(record))
    with pytest.raises(InputError, match=rf"train\.features:2: {reason}.*{REMEDY}") as caught:
        read_source(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("record", "reason"), BAD_FEATURES.values(), ids=BAD_FEATURES)
def test_a_bad_features_line_is_set_aside_with_its_label(tmp_path, record, reason):
    source = read_source(write(tmp_path, train_features=replaced(record)), "quarantine")
    assert source.rows["id"].tolist() == [0, 2, 0, 1]
    first, second = source.quarantined.itertuples(index=False)
    assert (first.file, first.line) == ("train.features", 2)
    assert first.raw == (record if isinstance(record, str) else json.dumps(record))
    assert tuple(second) == ("train.labels", 2, "id 1 has no row in train.features", json.dumps(label(1)))


@pytest.mark.parametrize(("record", "reason"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_a_bad_label_stops_or_is_set_aside_with_its_row(tmp_path, record, reason):
    folder = write(tmp_path, train_labels=replaced(record, make=label))
    place = rf"train\.labels:2: {reason}" if reason else r"train\.features:2: id 1 has no label in train\.labels"
    with pytest.raises(InputError, match=rf"{place}.*{REMEDY}"):
        read_source(folder)
    source = read_source(folder, "quarantine")
    assert source.rows["id"].tolist() == [0, 2, 0, 1]
    assert source.quarantined[["file", "line"]].to_numpy().tolist() == [["train.features", 2], ["train.labels", 2]]


def test_a_label_without_a_row(tmp_path):
    folder = write(tmp_path, train_labels=[label(key) for key in range(4)])
    with pytest.raises(InputError, match=rf"train\.labels:4: id 3 has no row in train\.features{REMEDY}"):
        read_source(folder)
    assert read_source(folder, "quarantine").quarantined["line"].tolist() == [4]


def test_test_rows_outlive_their_labels(tmp_path):
    folder = write(tmp_path, test_labels=[label(0), label(1, brand=""), label(8)])
    with pytest.raises(InputError, match=rf"test\.labels:2: `brand` is empty.*{REMEDY}"):
        read_source(folder)
    source = read_source(folder, "quarantine")
    assert source.rows["brand"][3] == "cadbury" and pd.isna(source.rows["brand"][4])
    assert source.quarantined[["file", "line"]].to_numpy().tolist() == [["test.labels", 2], ["test.labels", 3]]


def test_bytes_that_are_not_utf8(tmp_path):
    lines = [json.dumps(features(key)).encode() for key in range(3)]
    lines[1] = lines[1].replace(b"creme", b"cr\xe8me")
    folder = write(tmp_path, train_features=b"\n".join(lines))
    with pytest.raises(InputError, match=rf"train\.features:2: not UTF-8 \(byte 0xe8 at column \d+\){REMEDY}"):
        read_source(folder)
    assert r"cr\xe8me" in read_source(folder, "quarantine").quarantined["raw"][0]


def test_a_line_over_the_limit_is_cut_and_does_not_swallow_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 200)
    folder = write(tmp_path, train_features=replaced(features(1, "x" * 999)))
    with pytest.raises(InputError, match=rf"train\.features:2: the line is longer than 200 bytes{REMEDY}"):
        read_source(folder)
    source = read_source(folder, "quarantine")
    assert source.rows["id"].tolist() == [0, 2, 0, 1]
    assert source.quarantined["line"].tolist() == [2, 2] and len(source.quarantined["raw"][0]) == 200


def test_a_line_at_the_limit_is_sound(tmp_path, monkeypatch):
    folder = write(tmp_path)
    longest = max(len(line) for file in folder.iterdir() for line in file.read_bytes().splitlines(keepends=True))
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", longest)
    assert len(read_source(folder).rows) == 5


@pytest.mark.parametrize("on_bad_row", ["stop", "quarantine"])
@pytest.mark.parametrize("name", ["train.features", "train.labels", "test.features"])
def test_a_missing_or_empty_file_always_stops(tmp_path, name, on_bad_row):
    folder = write(tmp_path)
    for empty in (b"", b"\n\n"):
        (folder / name).write_bytes(empty)
        with pytest.raises(InputError, match=rf"{name}: there is no row in it; expected a JSON object with `indoml"):
            read_source(folder, on_bad_row)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: the file is not there; .*`data\.source`"):
        read_source(folder, on_bad_row)
    (folder / name).mkdir()
    with pytest.raises(InputError, match=rf"{name}: this folder has no files with rows; name a file"):
        read_source(folder, on_bad_row)


def test_a_missing_folder_stops(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: there is no such folder or file; set `data\.source`"):
        read_source(tmp_path / "nowhere")


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_sound_row_left_stops(tmp_path, split):
    files = {"train_features": replaced("a fault elsewhere"), f"{split}_features": [features(0, ""), features(1, "")]}
    folder = write(tmp_path, **files)
    with pytest.raises(InputError, match=rf"no sound row is left.*{split}\.features:1: `description` is empty"):
        read_source(folder, "quarantine")


def test_both_tables_survive_parquet(tmp_path):
    source = read_source(write(tmp_path, test_labels=[label(1)]), "quarantine")
    for table in (source.rows, source.quarantined):
        write_table(table, tmp_path / "table.parquet")
        pd.testing.assert_frame_equal(read_table(tmp_path / "table.parquet"), table)


TEXT = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not is_blank(text))
PRICE = st.none() | st.floats(0, 1e9) | st.integers(0, 10**9) | st.floats(0, 1e9).map(str)


@settings(max_examples=50)
@given(st.lists(st.tuples(TEXT, TEXT, PRICE, *[TEXT] * 4), min_size=1, max_size=5))
def test_any_text_comes_back_unchanged(rows):
    assume(any(normalise(text) for text, *_ in rows))  # else there is nothing to learn from, which is an error
    items = [features(key, *row[:3]) for key, row in enumerate(rows)]
    labels = [{"indoml_id": key, **dict(zip(CONTEST, row[3:], strict=True))} for key, row in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        read = read_source(write(Path(folder), train_features=items, train_labels=labels[::-1])).rows
    read = read[read["split"] == "train"]
    assert read[["description", "retailer", *CONTEST]].to_numpy().tolist() == [[*row[:2], *row[3:]] for row in rows]
    for price, row in zip(read["price"], rows, strict=True):
        assert math.isnan(price) if row[2] is None else price == float(row[2])
