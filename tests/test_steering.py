"""A description with an order still gets a path of the tree; benchmarks/steering.py counts the changed answers."""

import sys

import pandas as pd
import pytest
from project import ROOT

from tillmap.arms import schema
from tillmap.config.params import read_params
from tillmap.serving.labeller import open_arm

sys.path.insert(0, str(ROOT / "benchmarks"))
from steering import measure


@pytest.mark.parametrize("arm", ["nearest", "linear"])
def test_an_order_in_a_description_gets_a_path_of_the_tree(project, monkeypatch, arm):
    monkeypatch.chdir(project.folder)
    rows = pd.read_parquet("data/split/rows.parquet").query("subset == 'test'").head(20)
    found = list(measure(open_arm(arm, read_params(project.folder / "params.yaml", schema())), rows))
    assert [line["valid"] for line in found] == [1.0, 1.0, 1.0]
    assert all(0 <= line["obeyed"] <= line["changed"] <= 1 for line in found)
