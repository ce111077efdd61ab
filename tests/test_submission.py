"""A bad submission is refused with its row and what was expected, and nothing is written."""

import json
import zipfile

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.serving.submission import read_answers, write_submission

PATHS = [("food", "dairy", "milk", "alder"), ("home", "bags", "bin bags", "purely | fine")]
ROWS = pd.DataFrame([(key, *PATHS[key % 2]) for key in (5, 3, 8)], columns=["id", *CONTEST])
TREE = LabelTree.from_rows(ROWS, CONTEST)


def change(row, column, value):
    changed = ROWS.astype(object)
    changed.iloc[row, changed.columns.get_loc(column)] = value
    return changed


REFUSED = [
    ("missing", ROWS.head(2), "2 rows for the 3 of the test file: id 8 is missing"),
    ("not asked", pd.concat([ROWS, ROWS.head(1).assign(id=99)]), "id 99 is not in the test file"),
    ("twice", pd.concat([ROWS, ROWS.tail(1)]), r"row 4: `id` is 8 again \(first in row 3\), expected each id once"),
    ("out of order", ROWS.iloc[[1, 0, 2]], "row 1 is id 3, expected 5"),
    ("blank id", change(1, "id", " "), 'row 2: `id` is " ", expected text or a whole number'),
    ("fraction for an id", change(1, "id", 3.5), r"row 2: `id` is 3\.5, expected text or a whole number"),
    ("truth for an id", change(1, "id", True), "row 2: `id` is true, expected text or a whole number"),
    ("no brand", change(2, "brand", None), r"row 3 \(id 8\): `brand` is null, expected text"),
    ("blank brand", change(2, "brand", " "), r"row 3 \(id 8\): `brand` is empty, expected text"),
    ("no path", change(0, "module", "milk"), r"row 1 \(id 5\): .* is not a label path"),
]


@pytest.mark.parametrize(("rows", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_bad_one_is_refused(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        write_submission(rows, ROWS["id"], TREE, "us", tmp_path / "us.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "file"), [("a/b", "us.zip"), ("", "us.zip"), ("us", "us.tar")])
def test_odd_names_are_refused(tmp_path, name, file):
    with pytest.raises(InputError, match=r"expected|ends in"):
        write_submission(ROWS, ROWS["id"], TREE, name, tmp_path / file)


def test_unseen_paths_pass_where_they_may(tmp_path):
    assert write_submission(change(0, "brand", "new"), ROWS["id"], TREE, "us", tmp_path / "us.zip", unseen=True) == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"indoml_id": 1.5}\n', ":1: `indoml_id` is 1.5, expected text or a whole number"),
        ("a.jsonl", b'{"indoml_id": 1, "supergroup": 3.5}\n', ":1: `supergroup` is 3.5, expected text"),
        ("a.csv", b"indoml_id,supergroup\n1,a\n", "no column group, module, brand"),
        ("a.csv", b"indoml_id,supergroup,group,module,brand\n,a,b,c,d\n", ':2: `indoml_id` is "", expected text'),
        ("a.csv", b"indoml_id,supergroup,group,module,brand\n1,a,b,c,cr\xe8me\n", ":2: `brand` is not UTF-8"),
        ("a.jsonl", b"[1]\n", r":1: expected a JSON object, found 1; label the test file again"),
    ],
)
def test_malformed_predictions_are_refused_with_their_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_answers(path, CONTEST)


def test_predictions_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: the file is not there; check its name"):
        read_answers(tmp_path / "nowhere.csv", CONTEST)


LEVELS = Levels(("group", "kind"))
RAGGED = LabelTree(
    LEVELS, (LabelPath("food", ""), LabelPath("food", "tea")), (1, 0), codes=("01", "01.2"), definitions=("", "")
)


def lines_of(path):
    with zipfile.ZipFile(path) as archive:
        return [json.loads(line) for line in archive.read("test_us.predict").decode().splitlines()]


def test_text_ids_early_ends_and_codes_are_written(tmp_path):
    answers = pd.DataFrame({"id": ["A-1", "7"], "group": ["food", "food"], "kind": ["tea", None]})
    asked = pd.Series(["A-1", "7"])
    assert write_submission(answers, asked, RAGGED, "us", tmp_path / "us.zip", id_name="sku") == 2
    assert lines_of(tmp_path / "us.zip") == [
        {"sku": "A-1", "group": "food", "kind": "tea", "code": "01.2"},
        {"sku": "7", "group": "food", "kind": None, "code": "01"},
    ]


def test_a_number_and_its_text_are_the_same_id(tmp_path):
    changed = ROWS.assign(id=["5", "3", "8"])
    for number, (answers, asked) in enumerate([(ROWS, ROWS["id"]), (changed, ROWS["id"]), (ROWS, changed["id"])]):
        write_submission(answers, asked, TREE, "us", tmp_path / f"{number}.zip")
        assert [line["indoml_id"] for line in lines_of(tmp_path / f"{number}.zip")] == [5, 3, 8]


def test_predictions_of_other_levels_are_read_back(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("kind,group,answer_kind,code\nA-1,food,tea,01.2\nB,food,,01\n")
    answers = read_answers(path, LEVELS, "kind", ragged=True)
    assert answers["id"].tolist() == ["A-1", "B"] and answers["kind"].fillna("").tolist() == ["tea", ""]
    path.write_text("kind,group,answer_kind\nA-1,,tea\n")
    with pytest.raises(InputError, match=r"a\.csv:2: the path .* has no group; .*; label the test file again"):
        read_answers(path, LEVELS, "kind", ragged=True)
