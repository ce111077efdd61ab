"""A description that gives orders still gets a path of the tree; benchmarks/steering.py counts those that change."""

import sys

import pytest
from project import ROOT
from trained import make_trained

from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.serving.labeller import open_arm

sys.path.insert(0, str(ROOT / "benchmarks"))
from steering import measure


@pytest.mark.parametrize("arm", ["nearest", "linear"])
def test_an_order_in_a_description_gets_a_path_of_the_tree(tmp_path, monkeypatch, arm):
    rows = make_trained(tmp_path).query("subset == 'test'").head(20)
    monkeypatch.chdir(tmp_path)
    found = list(measure(open_arm(arm, read_params(paths.PARAMS, schema())), rows))
    assert [line["valid"] for line in found] == [1.0, 1.0, 1.0]
    assert all(0 <= line["obeyed"] <= line["changed"] <= 1 for line in found)
