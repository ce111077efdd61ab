"""Corrections: read from any table, laid over the rows, and never a way for a scored row to train or to choose."""

import json
from datetime import UTC, datetime

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.catalogue.corrections import Correction, correction_files, read_corrections
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.labels import LabelReader
from tillmap.catalogue.overlay import overlay
from tillmap.catalogue.quarantine import Quarantine
from tillmap.catalogue.reading import Row
from tillmap.catalogue.source import Source
from tillmap.config.blocks import Columns
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LabelPath, Levels
from tillmap.core.text import line_key

LEVELS = Levels(("group", "module", "brand"), brand="brand")
READER = LabelReader(LEVELS, tuple(LEVELS))
COLUMNS = Columns(id="nr", text=["title", "note"], retailer="shop", price="euro", levels=None)
TEA, GREEN = LabelPath("drinks", "tea", "alder"), LabelPath("drinks", "green tea", "alder")
SOAP, NEW = LabelPath("home", "soap", "bruma"), LabelPath("home", "brush", "caddo")
LABELS = {"group": "drinks", "module": "tea", "brand": "alder"}

ROWS = [
    ("train", 1, "TEA 80", TEA), ("train", 2, "tea  80", TEA), ("train", 3, "SOAP", SOAP),
    ("test", 1, "GREEN TEA", GREEN), ("test", 4, "BAR SOAP", None), ("test", 5, "bar soap!", SOAP),
    ("test", 6, "CHAI", None),
]  # fmt: skip


def source_of(rows=ROWS, given=False, reader=READER):
    table = pd.DataFrame([row[:3] for row in rows], columns=["split", "id", "description"])
    table = pd.concat([table, LEVELS.columns([row[3] or ("", "", "") for row in rows])], axis=1)
    table["retailer"], table["price"] = "lune", 1.5
    if given:
        table["given_id"] = [f"A{row[1]}" for row in rows]
    return Source(table, Quarantine("stop").to_table(), LEVELS, None, reader)


def correction(path=NEW, *, id=None, text=None, split=None, who="", minute=None, place=1):
    when = None if minute is None else datetime(2026, 3, 1, 10, minute, tzinfo=UTC)
    file = RowFile(pd.io.common.Path("fixes.csv"))
    return Correction(file, Row(place, dict, str), split, id, text, path, who, when, "linear", "", float("nan"))


def laid(*corrections, rows=ROWS, given=False):
    return overlay(source_of(rows, given), corrections, Quarantine("stop"))


def paths_of(overlaid):
    rows = overlaid.source.rows
    keys = zip(rows["split"], rows["id"], strict=True)
    return dict(zip(keys, LEVELS.paths(rows), strict=True))


def changes(overlaid):
    before = {(split, number): path or LabelPath("", "", "") for split, number, _, path in ROWS}
    return {key: path for key, path in paths_of(overlaid).items() if before.get(key) != path}


def read(path, columns=COLUMNS, reader=READER, on_bad_row="stop"):
    quarantine = Quarantine(on_bad_row)
    return read_corrections(path, columns, reader, quarantine), quarantine


def test_a_row_is_found_by_id_by_id_and_line_and_by_line():
    assert changes(laid(correction(id=3))) == {("train", 3): NEW}
    assert changes(laid(correction(id="1", split="test"))) == {("test", 1): NEW}
    assert changes(laid(correction(id=1, text="Green, tea"))) == {("test", 1): NEW}
    assert changes(laid(correction(text="Tea 80"))) == {("train", 1): NEW, ("train", 2): NEW}
    assert changes(laid(correction(id=99, text="TEA 80"))) == {("train", 1): NEW, ("train", 2): NEW}, "of another file"


def test_a_row_that_is_test_only_since_split_test_drew_it_is_found_in_the_training_file():
    rows = [row for row in ROWS if row[0] == "train"]
    assert paths_of(laid(correction(id=3, text="SOAP", split="test"), rows=rows))["train", 3] == NEW


def test_ids_of_letters_are_found_and_added_rows_have_one():
    found = laid(correction(id="A3"), correction(id="A3", text="BRUSH"), correction(text="LAMP"), given=True)
    rows = found.source.rows
    assert rows.loc[rows["given_id"] == "A3", "module"].tolist() == ["brush"]
    added = rows[rows["corrected"] == "added"]
    assert added[["id", "given_id", "description"]].values.tolist() == [[4, "correction 1", "BRUSH"],
                                                                        [5, "correction 2", "LAMP"]]  # fmt: skip


@pytest.mark.parametrize(
    "wrong, says",
    [
        (correction(id=77), "no row has the id 77"),
        (correction(id=1), "a training and a test row have the id 1, expected a `split`"),
    ],
)
def test_an_id_that_names_no_row_is_refused_or_set_aside(wrong, says):
    with pytest.raises(InputError, match=rf"fixes.csv:1: {says}.*; correct the line"):
        laid(wrong)
    quarantine = Quarantine("quarantine")
    found = overlay(source_of(), [wrong, correction(id=3)], quarantine)
    assert changes(found) == {("train", 3): NEW} and says in quarantine.to_table()["reason"].item()


def test_a_test_row_without_a_label_trains_as_a_copy_and_is_not_scored():
    found = laid(correction(id=6, text="CHAI", split="test"))
    assert changes(found) == {("train", 4): NEW}
    rows = found.source.rows
    assert rows["split"].tolist() == ["train"] * 4 + ["test"] * 4, "behind the other training rows"
    assert rows.iloc[3][["description", "retailer", "price", "corrected"]].tolist() == ["CHAI", "lune", 1.5, "added"]
    assert found.counts == {"changed": 0, "confirmed": 0, "added": 1, "left_out": 0, "disputed": 0, "new_paths": 1}


def test_a_line_that_a_scored_test_row_has_never_trains():
    found = laid(correction(id=4, text="BAR SOAP", split="test"))
    assert changes(found) == {} and found.counts["left_out"] == 1
    assert found.listed["kind"].tolist() == ["left_out"]
    found = laid(correction(text="Bar-Soap"))  # from a file of its own
    assert changes(found) == {("test", 5): NEW} and found.counts["left_out"] == found.counts["changed"] == 1


def test_the_later_one_holds_and_the_disputed_are_counted_and_listed():
    found = laid(
        correction(GREEN, id=3, who="Ben", minute=9, place=1),
        correction(NEW, id=3, who="Ana", minute=5, place=2),
        correction(SOAP, id=3, who="no time", place=3),
        correction(TEA, text="tea 80", who="Ana", minute=5, place=4),
        correction(TEA, text="TEA 80", who="Ben", minute=6, place=5),
    )
    assert changes(found) == {("train", 3): GREEN}
    assert found.counts == {"changed": 1, "confirmed": 2, "added": 0, "left_out": 0, "disputed": 1, "new_paths": 0}
    listed = found.listed[found.listed["id"] == "3"]
    assert listed[["line", "who", "kind", "module", "was_module", "disputed"]].values.tolist() == [
        [1, "Ben", "changed", "green tea", "soap", True],
        [2, "Ana", "overruled", "brush", "soap", True],
        [3, "no time", "overruled", "soap", "soap", True],
    ]
    assert not found.listed.loc[found.listed["id"] != "3", "disputed"].any()
    later = laid(correction(GREEN, id=3), correction(NEW, id=3, place=2))
    assert changes(later) == {("train", 3): NEW}, "without times, the line that comes later"


def test_without_corrections_the_rows_are_as_they_were():
    found = laid()
    pd.testing.assert_frame_equal(found.source.rows, source_of().rows)
    assert not any(found.counts.values()) and found.listed.empty


LINES = st.sampled_from(["TEA 80", "tea 80", "BAR SOAP", "bar soap", "CHAI", "lamp", "Lamp!", "€"])
PATHS = st.sampled_from([TEA, GREEN, SOAP, NEW])
ANY_ROWS = st.lists(st.tuples(st.sampled_from(["train", "test"]), LINES, st.none() | PATHS), max_size=8)
ANY_CORRECTION = st.builds(
    correction,
    PATHS,
    id=st.none() | st.integers(1, 9),
    text=LINES,
    split=st.sampled_from([None, "train", "test"]),
    minute=st.none() | st.integers(0, 59),
)


@settings(max_examples=200)
@given(ANY_ROWS, st.lists(ANY_CORRECTION, max_size=6))
def test_no_scored_row_trains_and_no_row_is_lost(drawn, corrections):
    drawn = [("train", "SOAP", SOAP), *((split, text, path or (SOAP if split == "train" else None))
             for split, text, path in drawn)]  # fmt: skip
    drawn.sort(key=lambda row: row[0], reverse=True)
    rows = [(split, number, text, path) for number, (split, text, path) in enumerate(drawn, 1)]
    before, found = source_of(rows).rows, laid(*corrections, rows=rows)
    after = found.source.rows
    old = after[after["corrected"] != "added"] if "corrected" in after else after
    same = ["split", "id", "description", "retailer", "price"]
    pd.testing.assert_frame_equal(old[same].reset_index(drop=True), before[same])
    labelled = LEVELS.labelled(before).to_numpy()
    assert (LEVELS.labelled(old).to_numpy() == labelled).all(), "a test row without a label is never scored"
    scored = {line_key(text) for text in before.loc[labelled & (before["split"] == "test"), "description"]}
    added = after.iloc[:0] if "corrected" not in after else after[after["corrected"] == "added"]
    assert (added["split"] == "train").all() and LEVELS.labelled(added).all()
    assert not scored & {line_key(text) for text in added["description"]}
    assert not after.duplicated(["split", "id"]).any()
    assert len(found.listed) >= len(corrections)


HAND = {"nr": "3", "title": "SOAP", "note": "", **LABELS}


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "csv.gz"])
def test_tables_made_by_hand_have_the_users_own_columns(tmp_path, kind):
    table = pd.DataFrame([HAND, HAND | {"nr": "4", "group": None, "module": None, "brand": None}])
    path = tmp_path / f"fixes.{kind}"
    if kind.startswith("csv"):
        table.to_csv(path, index=False, sep=";")
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path)
    (found,), _ = read(path)
    assert (found.id, found.text.strip(), found.path, found.when) == ("3", "SOAP", TEA, None)
    assert found.row.place == (1 if kind in ("jsonl", "parquet") else 2)


def test_every_file_of_a_folder_is_read_in_order(tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "b"} | LABELS) + "\n")
    (tmp_path / "a.csv").write_text("text,group,module,brand\na,drinks,tea,alder\n")
    (tmp_path / ".hidden").write_text("?")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "c.jsonl").write_text("\n" + json.dumps({"text": "c"} | LABELS) + "\n\n")
    (tmp_path / "d.jsonl").write_text("\n")  # as the project ships it
    assert [found.text for found in read(tmp_path)[0]] == ["a", "b", "c"]
    assert read(tmp_path / "missing.jsonl")[0] == [] == correction_files(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    "record, says",
    [
        (LABELS, "has neither an `id` nor a `text`"),
        ({"text": "a", "group": "drinks"}, "`module` is null, expected text"),
        ({"text": "a", "when": "yesterday"} | LABELS, '`when` is "yesterday", expected a time such as'),
        ({"text": "a", "split": "dev"} | LABELS, '`split` is "dev", expected train, test or nothing'),
        ({"text": "a", "price": "cheap"} | LABELS, '`price` is "cheap", expected a number'),
        ({"text": "a", "id": True} | LABELS, "`id` is true, expected text or a whole number"),
        ({"number": 1, "rows": [], "labels": None}, "a line of the log of `tillmap review`"),
        ([1], "expected a JSON object"),
    ],
)
def test_a_bad_line_is_refused_with_its_place_or_set_aside(tmp_path, record, says):
    path = tmp_path / "fixes.jsonl"
    path.write_text(json.dumps({"text": "b"} | LABELS) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"fixes.jsonl:2: ") as refused:
        read(path)
    assert says in str(refused.value) and "data.on_bad_row: quarantine" in str(refused.value)
    found, quarantine = read(path, on_bad_row="quarantine")
    assert len(found) == 1 and says in quarantine.to_table()["reason"].item()


def test_codes_and_ragged_paths_are_read_as_in_the_users_files_or_by_level(tmp_path):
    levels = Levels(("level_1", "level_2", "level_3"))
    reader = LabelReader(levels, ("coicop",), in_one=True, separator=".", labels="prefixes", short=True)
    columns = COLUMNS.model_copy(update={"text": "title", "levels": "coicop"})
    path = tmp_path / "fixes.jsonl"
    records = [{"title": "a", "coicop": "01.1"}, {"text": "b", "level_1": "01", "level_2": "01.1", "level_3": None}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found, _ = read(path, columns, reader)
    assert [(each.text, each.path) for each in found] == [("a", ("01", "01.1", "")), ("b", ("01", "01.1", ""))]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(["id", "nr", "text", "title", "note", "split", "who", "when", "source", "price", *LEVELS])


@settings(max_examples=200)
@given(st.lists(st.dictionaries(NAMES, JSON, max_size=9), max_size=4))
def test_any_json_is_read_or_refused(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("fixes") / "fixes.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found, quarantine = read(path, on_bad_row="quarantine")
    overlay(source_of(), found, quarantine)
    assert len(found) <= len(records)
