"""Corrections through the stages: what trains, what is held out, and that nothing moves between the two."""

import json

import pandas as pd
import pytest
from project import ROOT

from stages import catalogue, ingest, stratify
from tillmap.arms import schema
from tillmap.config.params import read_params
from tillmap.core.taxonomy import CONTEST, LabelTree
from tillmap.linear import fits
from tillmap.splitting.subsets import place_added, product_key

LABELS = dict(zip(CONTEST, ("new group", "new", "new module", "new brand"), strict=True))


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """Runs `ingest` and `stratify` on a small demo with some corrections. Gives the rows and both metrics."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("train_rows: 4000", "train_rows: 300"))
    catalogue.main(read_params(tmp_path / "params.yaml", schema(), catalogue.PARAMS))

    def run(*corrections):
        place = tmp_path / "data/corrections.jsonl"
        place.write_text("".join(json.dumps({**LABELS, **each}) + "\n" for each in corrections))
        params = read_params(tmp_path / "params.yaml", schema())
        metrics = {"ingest": ingest.main(params)["corrections"], "stratify": stratify.main(params)}
        return pd.read_parquet("data/split/rows.parquet"), metrics

    return run


def test_relabelled_rows_stay_in_their_subset(loop):
    before, _ = loop()
    chosen = before.groupby("subset").head(3)
    fixes = [{"split": row.split, "id": row.id, "text": row.description} for row in chosen.itertuples()]
    after, metrics = loop(*fixes)
    pd.testing.assert_frame_equal(after.drop(columns=[*CONTEST, "corrected"]), before.drop(columns=list(CONTEST)))
    moved = after.loc[chosen.index]
    assert (moved[list(CONTEST)] == list(LABELS.values())).all().all(), "held-out rows are scored by the new label"
    assert after.drop(chosen.index)[list(CONTEST)].equals(before.drop(chosen.index)[list(CONTEST)])
    assert metrics["ingest"]["changed"] == len(chosen) and metrics["ingest"]["new_paths"] == 1
    listed = pd.read_parquet("data/raw/corrections.parquet")
    assert listed["kind"].eq("changed").all() and not listed["was_module"].eq("new module").any()


def test_added_lines_are_never_held_out_and_train_beside_no_row_of_their_product(loop, tmp_path):
    before, _ = loop()
    held = before[before["subset"] == "calibration"].iloc[0]
    near = f"{held['description']} 7 pk"  # the same product
    assert product_key(near) == held["product"]
    after, metrics = loop({"text": "zzq unheard of"}, {"id": "N-1", "text": near})
    pd.testing.assert_frame_equal(after[: len(before)][before.columns], before), "the draw is the same"
    added = after[len(before) :]
    assert dict(zip(added["description"], added["subset"], strict=True)) == {"zzq unheard of": "train", near: "refit"}
    assert metrics["ingest"]["added"] == 2 and metrics["stratify"]["added_unused"] == 0
    tree = LabelTree.from_rows(after[after["split"] == "train"], CONTEST)
    for fit in ("train", "all_but_calibration", "all"):
        (tmp_path / "fits" / fit).mkdir(parents=True)
    trains = {
        subset: set(fits.rows_of(tmp_path / "fits", fits.fit_for(subset), after, tree)["id"]) & set(added["id"])
        for subset in ("dev", "calibration", "test")
    }
    unheard, beside = added["id"]
    assert trains == {"dev": {unheard}, "calibration": {unheard}, "test": {unheard, beside}}


@pytest.mark.parametrize(
    "by, test_drawn, expected",
    [
        ("product", False, ["train", "refit", "train"]),
        ("product", True, ["train", "refit", "unused"]),
        ("row", True, ["train", "train", "train"]),
    ],
)
def test_where_added_rows_train(by, test_drawn, expected):
    others = pd.DataFrame({"subset": ["train", "holdout", "test"], "product": ["a", "b", "c"]})
    added = pd.DataFrame({"product": ["a", "b", "c"]})
    assert place_added(added, others, by, test_drawn=test_drawn).tolist() == expected
    assert place_added(added.iloc[:0], others, by, test_drawn=test_drawn).empty


def test_test_rows_without_labels_train_and_are_still_answered_and_never_scored(loop, tmp_path):
    before, _ = loop()
    (tmp_path / "data/demo/test.labels").unlink()
    test = before[before["split"] == "test"].head(4)
    fixes = [{"split": "test", "id": row.id, "text": row.description} for row in test.itertuples()]
    after, metrics = loop(*fixes)
    assert metrics["ingest"]["added"] == 4
    assert after.loc[after["split"] == "test", "id"].tolist() == before.loc[before["split"] == "test", "id"].tolist()
    assert not CONTEST.labelled(after[after["split"] == "test"]).any()
    added = after[after["corrected"] == "added"]
    assert added["description"].tolist() == test["description"].tolist()
    assert set(added["subset"]) <= {"train", "refit"} and (added["split"] == "train").all()
