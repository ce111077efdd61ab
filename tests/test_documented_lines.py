"""Every `dvc exp run` line of the documents sets params that there are to values that they take; DVC resolves it."""

import re
import shlex
from io import StringIO
from pathlib import Path

import pytest
from dvc.repo import Repo
from project import ROOT, Project, copy_project
from ruamel.yaml import YAML

from tillmap.arms import schema
from tillmap.config.params import check_params

PARAMS = ROOT / "params.yaml"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINES = dict.fromkeys(line for path in DOCUMENTS for line in re.findall(r"dvc exp run[^`#\n]*", path.read_text()))


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """A copy of the project in which every stage's outs are there, but nothing was ever run."""
    folder = tmp_path_factory.mktemp("documented") / "project"
    folder.mkdir()
    copy_project(folder)
    Project(folder, folder.parent / "state").git("init", "--quiet")
    with Repo(str(folder)) as opened:
        for stage in opened.index.stages:
            for name in (*stage.deps, *stage.outs):
                path = Path(name.fs_path)
                if path.suffix:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
                else:
                    path.mkdir(parents=True, exist_ok=True)
        yield opened


def changes_of(line):
    words = shlex.split(line)
    flags = [place for place, word in enumerate(words) if word in ("-S", "--set-param")]
    return [words[place + 1].partition("=")[::2] for place in flags]


def changed_params(changes):
    yaml = YAML()
    params = yaml.load(PARAMS.read_text())
    for key, value in changes:
        *blocks, name = key.split(".")
        place = params
        for block in blocks:
            place = place[block]
        assert name in place, f"{key} is not in params.yaml"
        place[name] = YAML(typ="safe").load(value)
    text = StringIO()
    yaml.dump(params, text)
    return text.getvalue()


def reads(stage, key):
    declared = {name for dep in stage.deps for name in getattr(dep, "params", ())}
    return any(key == name or key.startswith(f"{name}.") for name in declared)


def test_there_are_lines():
    assert len(LINES) > 50


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES, ids=lambda line: line[12:72].strip())
def test_dvc_resolves_a_documented_line(line, repo, tmp_path):
    changes = [(key, str(tmp_path) if value.startswith("/path/to/") else value) for key, value in changes_of(line)]
    assert changes
    params = changed_params(changes)
    check_params(params, PARAMS, schema())
    (Path(repo.root_dir) / "params.yaml").write_text(params)
    repo._reset()
    stages = list(repo.index.stages)
    for key, _ in changes:
        assert any(reads(stage, key) for stage in stages), f"no stage reads {key}"
    # The first stage that the line changes; going through all that follow takes seconds a line.
    first = next(stage for stage in stages if any(reads(stage, key) for key, _ in changes))
    planned = repo.reproduce(targets=[first.addressing], single_item=True, dry=True)
    assert [stage.addressing for stage in planned] == [first.addressing]
