"""What the rows are like: nothing is dropped, and what is odd is counted and listed."""

import json

import pandas as pd

from shop import data, read_source, taxonomy
from stages import ingest
from tillmap.catalogue.counts import count_rows, find_contradictions
from tillmap.config.params import Params
from tillmap.core.taxonomy import Levels

LEVELS = Levels(("group", "kind"))
ROWS = [
    ("train", 1, "Crème", "alder", 1.0, "food", "dairy"),
    ("train", 2, "creme ", "birch", 2.0, "food", None),
    ("train", 3, "CREME", "birch", 2.0, "food", None),
    ("train", 4, "CREME", "birch", 2.0, "food", None),
    ("train", 5, "tea", "", float("nan"), "food", "tea"),
    ("test", 1, "tea", "", float("nan"), "food", "tea"),
    ("test", 2, "€", "", -1.0, "money", None),
    ("test", 3, "tea", "", 1.0, None, None),
]
TABLE = pd.DataFrame(ROWS, columns=["split", "id", "description", "retailer", "price", *LEVELS])


def test_counts():
    assert count_rows(TABLE, LEVELS) == {
        "labels": {"group": 2, "kind": 2},
        "depths": {"1": 4, "2": 3},
        "classes": 4,
        "refunds": 1,
        "null_prices": 2,
        "null_retailers": 4,
        "duplicates": 2,
        "contradictions": 4,
    }


def test_one_text_with_two_paths_is_listed_with_each():
    found = find_contradictions(TABLE, LEVELS)
    assert found["text"].tolist() == ["creme", "creme"]
    assert found["rows"].tolist() == [3, 1]
    assert found["ids"].tolist() == ["train 2, train 3, train 4", "train 1"]
    assert found["kind"].isna().tolist() == [True, False]
    assert find_contradictions(TABLE.head(1), LEVELS).empty
    named = find_contradictions(TABLE.assign(given_id=[f"A{number}" for number in range(8)]), LEVELS)
    assert named["ids"][1] == "train A0"


def test_the_stage_writes_what_others_read(tmp_path, monkeypatch):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/train.csv").write_text("text;code\ntea;1.1\ntea;1.2\nmilk;1\nmilk;;\n")
    (tmp_path / "shop/codes.csv").write_text("code;label\n1;Food\n1.1;Tea\n1.2;Milk\n")
    monkeypatch.chdir(tmp_path)
    columns = {"id": None, "text": "text", "retailer": None, "price": None, "levels": "code"}
    params = Params.model_construct(
        data=data("shop", columns, on_bad_row="quarantine"),
        taxonomy=taxonomy(levels=None, brand=None, file="codes.csv"),
    )
    metrics = ingest.main(params)
    assert metrics["train_rows"] == 3 and metrics["test_rows"] == metrics["labelled_test_rows"] == 0
    assert (metrics["quarantined"], metrics["contradictions"], metrics["depths"]) == (1, 2, {"1": 1, "2": 2})
    raw = tmp_path / "data/raw"
    assert sorted(file.name for file in raw.iterdir()) == [
        "contradictions.parquet", "declared.parquet", "levels.json", "quarantined.parquet", "rows.parquet",
    ]  # fmt: skip
    assert json.loads((raw / "levels.json").read_text()) == {"levels": ["level_1", "level_2"], "brand": None}


def test_the_contests_rows_are_counted(tmp_path):
    line = {"indoml_id": 1, "description": "tea", "retailer": "alder", "price": 1}
    label = {"indoml_id": 1} | dict.fromkeys(("supergroup", "group", "module", "brand"), "tea")
    for name in ("train", "test"):
        (tmp_path / f"{name}.features").write_text(json.dumps(line))
    (tmp_path / "train.labels").write_text(json.dumps(label))
    source = read_source(tmp_path)
    assert count_rows(source.rows, source.levels)["depths"] == {"3": 1}
