"""Levels are data: no code names one, outside the contest's levels and the demo, which is in the contest's format."""

import ast
import re

import pytest
from project import ROOT

from tillmap.core.taxonomy import CONTEST

MODULES = sorted((ROOT / "src").rglob("*.py")) + sorted((ROOT / "stages").glob("*.py"))
IN_THE_CONTESTS_FORMAT = ("src/tillmap/core/taxonomy.py", "src/tillmap/catalogue/demo/")
TELLS_THE_CONTESTS_FILES = "src/tillmap/cli/init.py"


def literals(tree):
    """The string literals of a module, with those inside f-strings and without docstrings: (line, text)."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_docstring = isinstance(node, ast.Expr)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not is_docstring:
                yield child.lineno, child.value


def named(text):
    """Whether a text is the name of one of the contest's levels, perhaps in that of a column, or has its longest one.

    The brand's may be used: it is the word for any level that is not below the others.
    """
    name = re.sub(r"^(predicted|right|guess)_|_(true|confidence)$", "", text)
    return name in CONTEST.chain or CONTEST.names[0] in text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_names_a_level(path):
    name = str(path.relative_to(ROOT))
    if name.startswith(IN_THE_CONTESTS_FORMAT):
        return
    tree = ast.parse(path.read_text())
    assert [(line, text) for line, text in literals(tree) if named(text)] == []
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "CONTEST" not in imported or name == TELLS_THE_CONTESTS_FILES
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not set(CONTEST.chain) & attributes - {"group"}  # a match of a regular expression has `.group`


def test_the_search_finds_what_it_should():
    code = (
        '"""Of a group."""\nx = row["module"]\ny = f"{arm}supergroup"\nz = "group_true"\nimport module\n'
        'k = "the group"\ndef f():\n    "group"\n'
    )
    assert sorted(line for line, text in literals(ast.parse(code)) if named(text)) == [2, 3, 4]
