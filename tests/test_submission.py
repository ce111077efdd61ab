"""A bad submission is refused with its row and what was expected, and nothing is written."""

import pandas as pd
import pytest

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.serving.submission import read_answers, write_submission

PATHS = [("food", "dairy", "milk", "alder"), ("home", "bags", "bin bags", "purely | fine")]
ROWS = pd.DataFrame([(key, *PATHS[key % 2]) for key in (5, 3, 8)], columns=["id", *LEVELS])
TREE = LabelTree.from_rows(ROWS.assign(retailer="shop"))


def change(row, column, value):
    changed = ROWS.astype(object)
    changed.iloc[row, changed.columns.get_loc(column)] = value
    return changed


REFUSED = [
    ("missing", ROWS.head(2), "2 rows for the 3 of the test file: id 8 is missing"),
    ("not asked", pd.concat([ROWS, ROWS.head(1).assign(id=99)]), "id 99 is not in the test file"),
    ("twice", pd.concat([ROWS, ROWS.tail(1)]), r"row 4: `id` is 8 again \(first in row 3\), expected each id once"),
    ("out of order", ROWS.iloc[[1, 0, 2]], "row 1 is id 3, expected 5"),
    ("text for an id", change(1, "id", "3"), 'row 2: `id` is "3", expected a whole number'),
    ("fraction for an id", change(1, "id", 3.0), r"row 2: `id` is 3\.0, expected a whole number"),
    ("truth for an id", change(1, "id", True), "row 2: `id` is true, expected a whole number"),
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
    assert write_submission(change(0, "brand", "new"), ROWS["id"], None, "us", tmp_path / "us.zip") == 3


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"indoml_id": "x1"}\n', ':1: `indoml_id` is "x1", expected a whole number'),
        ("a.jsonl", b'{"indoml_id": 1, "supergroup": 3}\n', ":1: `supergroup` is 3, expected text"),
        ("a.csv", b"indoml_id,supergroup\n1,a\n", "no column group, module, brand"),
        (
            "a.csv",
            b"indoml_id,supergroup,group,module,brand\n007,a,b,c,d\n",
            ':2: `indoml_id` is "007", expected a whole number',
        ),
        ("a.csv", b"indoml_id,supergroup,group,module,brand\n1,a,b,c,cr\xe8me\n", ":2: `brand` is not UTF-8"),
        ("a.jsonl", b"[1]\n", r":1: expected a JSON object, found \[1\]; label the test file again"),
    ],
)
def test_malformed_predictions_are_refused_with_their_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_answers(path)


def test_predictions_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: the file is not there; check its name"):
        read_answers(tmp_path / "nowhere.csv")
