"""Every `dvc exp run` line of the documents sets params that there are, to values that they take."""

import re
import shlex
from io import StringIO

import pytest
from project import ROOT
from ruamel.yaml import YAML

from tillmap.params import check_params

PARAMS = ROOT / "params.yaml"
LINES = [
    pytest.param(line, id=f"{path.name}: {line[12:60]}")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in re.findall(r"dvc exp run[^`#\n]*", path.read_text())
]


def changes_of(line):
    words = shlex.split(line)
    flags = [place for place, word in enumerate(words) if word in ("-S", "--set-param")]
    return [words[place + 1].partition("=")[::2] for place in flags]


def test_there_are_lines():
    assert len(LINES) > 25


@pytest.mark.parametrize("line", LINES)
def test_a_documented_line_sets_valid_params(line):
    yaml = YAML()
    params = yaml.load(PARAMS.read_text())
    changes = changes_of(line)
    assert changes
    for key, value in changes:
        *blocks, name = key.split(".")
        place = params
        for block in blocks:
            place = place[block]
        assert name in place, f"{key} is not in params.yaml"
        place[name] = YAML(typ="safe").load(value)
    text = StringIO()
    yaml.dump(params, text)
    check_params(text.getvalue(), PARAMS)
