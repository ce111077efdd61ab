"""The files of answers: the levels of the tree, codes, ends of paths, and ids of any name."""

import csv
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tillmap.core.taxonomy import CONTEST, Levels
from tillmap.serving.formats import answer_columns, write_answers

LEVELS = Levels(("group", "kind"))
ANSWERS = pd.DataFrame(
    {
        "key": pd.Series(["A-1", "7"], dtype=object),
        "group": pd.Series(["food", "food"], dtype="str"),
        "kind": pd.Series(["tea", None], dtype="str"),
        "code": pd.Series(["01.2", ""], dtype="str"),
        "confidence": [0.5, 0.25],
        "needs_review": [False, True],
        "repair": "none",
        "in_tree": True,
        "source": "linear",
        "status": "ok",
    }
)


def written(path, format_, id_name="sku", numbers=False, codes=True):
    with write_answers(path, format_, id_name, rows=3, numbers=numbers, levels=LEVELS, codes=codes) as write:
        write(ANSWERS)
        write(ANSWERS.tail(1).reset_index(drop=True).assign(key="8"))
    return path


REST = ["confidence", "needs_review", "repair", "in_tree", "source", "status"]


def test_the_columns_are_the_levels_and_the_code(tmp_path):
    lines = [json.loads(line) for line in written(tmp_path / "a.jsonl", "jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["sku", "group", "kind", "code", *REST]
    assert [(line["sku"], line["kind"], line["code"]) for line in lines] == [
        ("A-1", "tea", "01.2"), ("7", None, None), ("8", None, None),
    ]  # fmt: skip
    with written(tmp_path / "a.csv", "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sku"], row["kind"], row["code"]) for row in rows] == [
        ("A-1", "tea", "01.2"),
        ("7", "", ""),
        ("8", "", ""),
    ]
    table = pq.read_table(written(tmp_path / "a.parquet", "parquet"))
    assert table.to_pylist() == lines
    assert table.schema.field("code").type == pa.string()
    assert list(json.loads(written(tmp_path / "b.jsonl", "jsonl", codes=False).read_text().splitlines()[0])) == [
        "sku", "group", "kind", *REST,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["kind", "status", "code"])
@pytest.mark.parametrize("format_", ["jsonl", "csv", "parquet"])
def test_ids_may_be_called_as_one_of_our_columns(tmp_path, name, format_):
    path = written(tmp_path / "a", format_, id_name=name)
    table = {
        "jsonl": lambda: pd.read_json(path, lines=True, dtype=False),
        "csv": lambda: pd.read_csv(path, dtype=str),
        "parquet": lambda: pd.read_parquet(path),
    }[format_]()
    assert table[name].tolist() == ["A-1", "7", "8"]
    assert f"answer_{name}" in table.columns and len(set(table.columns)) == 10


def test_a_label_with_a_carriage_return_stays_one_field_of_a_csv(tmp_path):
    """Python's own writer leaves it bare, and readers then see two rows."""
    path = tmp_path / "a.csv"
    with write_answers(path, "csv", "sku", rows=3, numbers=False, levels=LEVELS, codes=True) as write:
        write(ANSWERS.assign(group="te\ra"))
        write(ANSWERS.tail(1).assign(key="8"))
    assert pd.read_csv(path)["group"].tolist()[:2] == ["te\ra", "te\ra"]
    assert b"\n" in path.read_bytes() and b"\r\n" not in path.read_bytes()


def test_the_contests_columns():
    names = answer_columns("indoml_id", CONTEST, codes=False)
    assert list(names) == list(names.values()) == [*CONTEST, *REST]
    off = answer_columns("indoml_id", CONTEST, codes=False, reviewed=False)
    assert list(off) == [name for name in names if name != "needs_review"]


def test_explanations_are_objects_json_text_or_structs(tmp_path):
    why = {
        "candidates": [{"path": ["food", None], "share": 0.5}],
        "neighbours": [{"id": "7", "text": 'a "b" \u8336', "path": ["food", "tea"], "similarity": 0.25}],
        "words": [],
    }
    explained = ANSWERS.assign(**{name: json.dumps(entries, ensure_ascii=False) for name, entries in why.items()})
    files = {}
    for format_ in ("jsonl", "csv", "parquet"):
        files[format_] = tmp_path / f"a.{format_}"
        options = {"rows": len(explained), "numbers": False, "levels": LEVELS, "codes": True, "explained": True}
        with write_answers(files[format_], format_, "sku", **options) as write:
            write(explained)
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    assert [{name: line[name] for name in why} for line in lines] == [why, why]
    with files["csv"].open(newline="") as file:
        assert [{name: json.loads(row[name]) for name in why} for row in csv.DictReader(file)] == [why, why]
    assert pq.read_table(files["parquet"]).to_pylist() == lines
