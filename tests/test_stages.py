"""dvc.yaml says what the stages do: their params, and the library code that shapes what they write."""

import ast
from pathlib import Path

import pytest
from dvc.repo import Repo

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "src"
# Checked or shown, but never part of an output.
PLUMBING = {f"src/tillmap/{name}.py" for name in ("__init__", "errors", "params", "paths")}
STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages}


def script_and_arm(stage):
    _, script, *arm = stage.cmd.split()
    return ROOT / script, *arm


def assigned(script, name):
    """A module's constant, without running the module."""
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{script.name} has no {name}")


def imported_files(file):
    """The library's files that a file imports, at any depth, inside functions too."""
    found, todo = set(), [file]
    while todo:
        for node in ast.walk(ast.parse(todo.pop().read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tillmap"):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("tillmap")]
            else:
                continue
            for name in names:
                base = LIBRARY / name.replace(".", "/")
                for path in (base.with_suffix(".py"), base / "__init__.py"):
                    if path.is_file() and path not in found:
                        found.add(path)
                        todo.append(path)
    return {str(path.relative_to(ROOT)) for path in found} - PLUMBING


def declared_files(stage):
    return {dep.def_path for dep in stage.deps if not hasattr(dep, "params")}


@pytest.mark.parametrize("name", STAGES)
def test_params_read_are_the_params_declared(name):
    script, *arm = script_and_arm(STAGES[name])
    read = {key.format(arm=arm[0]) if arm else key for key in assigned(script, "PARAMS")}
    declared = {key for dep in STAGES[name].deps for key in getattr(dep, "params", ())}
    assert read == declared


@pytest.mark.parametrize("name", STAGES)
def test_code_used_is_the_code_declared(name):
    script, *_ = script_and_arm(STAGES[name])
    declared = {path for path in declared_files(STAGES[name]) if path.startswith(("src/", "stages/"))}
    used = imported_files(script) | {str(script.relative_to(ROOT))}
    covered = {path for path in used if any(path == dep or path.startswith(f"{dep}/") for dep in declared)}
    assert sorted(used - covered) == [], "used, but not a dep in dvc.yaml"
    idle = {dep for dep in declared if not any(path == dep or path.startswith(f"{dep}/") for path in used)}
    assert sorted(idle) == [], "a dep in dvc.yaml that the stage does not use"


def test_every_stage_file_is_in_the_pipeline():
    scripts = {script_and_arm(stage)[0].name for stage in STAGES.values()}
    assert scripts == {path.name for path in (ROOT / "stages").glob("*.py")} - {"runner.py"}
