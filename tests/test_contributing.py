"""CONTRIBUTING.md shows how to add an arm; here it is added to a copy of the project, from that page, and run."""

import re
import shutil

import pandas as pd
from project import ROOT, Project

from tillmap.core.taxonomy import LEVELS

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
    left_out = shutil.ignore_patterns("cache", "tmp", "base", "index")
    copy = Project(tmp_path / "project", tmp_path / "state")
    shutil.copytree(project.folder, copy.folder, ignore=left_out)
    touched = apply_page(copy.folder)
    assert set(touched) == {"src/tillmap/arms/commonest.py", "src/tillmap/params.py", "params.yaml", "dvc.yaml",
                            "stages/infer.py"}  # fmt: skip
    for stage in ("infer", "postprocess"):
        assert f"stages/{stage}.py commonest" in copy.dvc(
            "repro", "--dry", "--single-item", "--force", f"{stage}@commonest"
        )
        copy.run("python", f"stages/{stage}.py", "commonest")
    for stage in ("review", "evaluate"):
        copy.run("python", f"stages/{stage}.py")
    predictions = pd.read_parquet(copy.folder / "data/predictions/commonest.parquet")
    tree = pd.read_parquet(copy.folder / "data/split/tree.parquet")
    known = set(tree[list(LEVELS)].itertuples(index=False, name=None))
    assert set(predictions[list(LEVELS)].itertuples(index=False, name=None)) <= known
    assert 0 <= copy.read_json("metrics/evaluate.json")["commonest"]["item_accuracy"] < 1
    assert "commonest" in (copy.folder / "plots/table.txt").read_text()
