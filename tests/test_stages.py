"""dvc.yaml says what the stages do: their params, the code that shapes what they write, and what an edit reruns."""

import importlib
from pathlib import Path

import pytest
from dvc.repo import Repo

from code_graph import Uses
from tillmap.arms import ARMS

ROOT = Path(__file__).parents[1]
# What every stage needs to run at all. It checks, names or shows what is written, and never shapes it.
PLUMBING = ("src/tillmap/cli/", "src/tillmap/config/", "src/tillmap/arms/__init__.py")
REGISTRY = ("tillmap.arms", "ARMS")
STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages}


def module_and_arm(stage):
    """From a command such as `python -m stages.infer rag`: the module's name and the arm's, if there is one."""
    _, _, module, *arm = stage.cmd.split()
    return module, *arm


def declared_code(stage):
    deps = {dep.def_path for dep in stage.deps if not hasattr(dep, "params")}
    return {dep for dep in deps if dep.startswith(("src/", "stages/"))}


def is_under(file, dep):
    return file == dep or file.startswith(f"{dep}/")


def code_used(stage):
    module, *arm = module_and_arm(stage)
    uses = Uses(ROOT, left_out=lambda path: path.startswith(PLUMBING))
    uses.start(module)
    if module == "stages.cascade":  # asks the arm that `cascade.llm` names
        arm = [name for name in ARMS if not ARMS[name].free]
    if REGISTRY in uses.seen:
        for name in arm:
            uses.start_at_classes(f"tillmap.arms.{name}")
    return {file for file in uses.files if not file.endswith("__init__.py")}


@pytest.mark.parametrize("name", STAGES)
def test_params_read_are_the_params_declared(name):
    module, *arm = module_and_arm(STAGES[name])
    script = importlib.import_module(module)
    keys = script.params_of(*arm) if hasattr(script, "params_of") else script.PARAMS
    read = {key.format(arm=arm[0]) if arm else key for key in keys}
    declared = {key for dep in STAGES[name].deps for key in getattr(dep, "params", ())}
    assert read == declared


@pytest.mark.parametrize("name", STAGES)
def test_code_used_is_the_code_declared(name):
    used, declared = code_used(STAGES[name]), declared_code(STAGES[name])
    missing = {file for file in used if not any(is_under(file, dep) for dep in declared)}
    assert sorted(missing) == [], "used, but not a dep in dvc.yaml"
    idle = {dep for dep in declared if not any(is_under(file, dep) for file in used)}
    assert sorted(idle) == [], "a dep in dvc.yaml that the stage does not use"


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("arms/linear.py", {"train_linear", "infer@linear", "infer@rerank", "cascade"}),
        ("linear/model.py", {"train_linear", "train_rerank", "infer@linear", "infer@rerank", "audit"}),
        ("audit/suspects.py", {"audit"}),
        ("rerank/features.py", {"train_rerank", "infer@rerank"}),
        ("arms/rag.py", {"prompts@rag", "infer@rag", "cascade"}),
        ("arms/openai.py", {"prompts@openai", "train_openai", "infer@openai", "cascade"}),
        ("cascade/plan.py", {"cascade"}),
        ("cascade/routing.py", {"cascade"}),
        ("cascade/run.py", {"cascade"}),
        ("cascade/trial.py", {"cascade"}),
        ("providers/client.py", {"train_openai", "infer@openai", "cascade"}),
        ("llm/engines/vllm.py", {"infer@rag", "infer@llama", "cascade"}),
        ("tuning/lora.py", {"train_llama"}),
        ("evaluation/charts.py", {"evaluate"}),
        ("evaluation/report.py", {"evaluate"}),
        ("postprocessing/repair.py", {"postprocess", "cascade", "evaluate"}),
    ],
)
def test_an_edited_file_reruns_these_stages(file, stages):
    rerun = {
        name for name, stage in STAGES.items() if any(is_under(f"src/tillmap/{file}", d) for d in declared_code(stage))
    }
    assert rerun == stages


def test_dvc_yaml_stays_readable():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 190
    assert len(STAGES) <= 26


def test_every_stage_module_is_in_the_pipeline():
    modules = {module_and_arm(stage)[0] for stage in STAGES.values()}
    shared = {"stages.__init__", "stages.context", "stages.answers"}
    assert modules | shared == {f"stages.{path.stem}" for path in (ROOT / "stages").glob("*.py")}


def test_the_lock_of_an_editor_is_no_data():
    """Emacs' is a link that leads nowhere, at which DVC would stop."""
    with Repo(str(ROOT)) as repo:
        assert repo.dvcignore.is_ignored_file(str(ROOT / "data/shop/.#train.labels"))
        assert not repo.dvcignore.is_ignored_file(str(ROOT / "data/shop/train.labels"))
