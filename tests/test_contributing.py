"""CONTRIBUTING.md shows how to add an arm; here it is added to a copy of the project, from that page, and run."""

import re
import shutil

import pandas as pd
from project import ROOT, Project, stages_run

from tillmap.core.taxonomy import CONTEST

STEP = re.compile(r"^\*\*`([^`]+)`\*\*(?:, (after|before) `([^`]+)`)?:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def apply_page(folder):
    """Do what the page says, step by step; give the files that were touched."""
    touched = []
    for name, where, mark, text in STEP.findall((ROOT / "CONTRIBUTING.md").read_text()):
        path = folder / name
        touched.append(name)
        if not where:
            path.write_text(text)
            continue
        lines = path.read_text().splitlines(keepends=True)
        (place,) = [number for number, line in enumerate(lines) if line.rstrip("\n").split("  #")[0].rstrip() == mark]
        lines.insert(place + (where == "after"), text)
        path.write_text("".join(lines))
    return touched


def test_an_arm_is_added_as_the_page_says(project, tmp_path):
    copy = Project(tmp_path / "project", tmp_path / "state", own_code=True)
    shutil.copytree(project.folder, copy.folder, symlinks=True)
    assert set(apply_page(copy.folder)) == {"src/tillmap/arms/commonest.py", "params.yaml", "dvc.yaml"}
    copy.set_params({"vote": {"arms": ["linear", "commonest"]}})

    assert set(stages_run(copy.dvc("repro"))) == {"infer@commonest", "postprocess", "cascade", "evaluate"}
    predictions = pd.read_parquet(copy.folder / "data/predictions/commonest.parquet")
    tree = pd.read_parquet(copy.folder / "data/split/tree.parquet")
    known = set(tree[list(CONTEST)].itertuples(index=False, name=None))
    assert set(predictions[list(CONTEST)].itertuples(index=False, name=None)) <= known
    assert 0 <= copy.read_json("metrics/evaluate.json")["commonest"]["item_accuracy"] < 1
    assert "commonest" in (copy.folder / "plots/table.txt").read_text()
    assert copy.read_json("data/usage/vote.json")["voters"] == ["linear", "commonest"]

    copy.tillmap("predict", "data/demo/test.features", "--arm", "commonest", "--out", "new.csv")
    labelled = pd.read_csv(copy.folder / "new.csv")
    test = predictions[predictions["split"] == "test"]
    columns = [*CONTEST, "confidence"]
    pd.testing.assert_frame_equal(labelled[columns], test[columns].reset_index(drop=True), check_dtype=False)

    shutil.rmtree(copy.folder / "data/split")
    said = copy.tillmap("doctor", ok=False)
    assert "BAD  arm commonest: missing: data/split" in said
    assert "ok   arm linear: all files are here" in said
