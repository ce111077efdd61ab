"""The arms together: what each declares, the rules of its answers, and that nothing else knows an arm by name."""

import ast
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from any_tree import any_trees
from arm_context import make_context
from tillmap import arms
from tillmap.arms import ARMS, asks_model
from tillmap.arms.base import Arm
from tillmap.arms.nearest import Nearest
from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import COMBINED
from tillmap.core.errors import InputError, ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree

SOURCE = Path(arms.__file__).parents[1]
NAMES = (*ARMS, *COMBINED)


# What an arm declares


def test_free_arms_ask_no_model_and_only_tuned_ones_have_training_examples():
    rows = pd.DataFrame(columns=["split", "id", *CONTEST])
    for name, arm in ARMS.items():
        assert asks_model(name) is not arm.free
        assert arm.free or type(arm).questions is not Arm.questions
        assert not arm.paid or not arm.free
        if arm.free:
            with pytest.raises(ParamsError, match=f"the {name} arm asks no language model"):
                arm.questions(None, rows)
            with pytest.raises(ParamsError, match=f"the {name} arm is not tuned"):
                arm.training_examples(None, rows)


def test_an_arm_that_reads_no_model_has_nothing_to_train(tmp_path):
    for name, arm in ARMS.items():
        if "model" not in arm.reads:
            assert type(arm).train is Arm.train
            with pytest.raises(ParamsError, match=f"the {name} arm has nothing to train"):
                arm.train(None, None, tmp_path)
        else:
            assert arm.training_params


def test_a_pilot_holds_back_what_asks_a_model_and_a_vote_with_it():
    assert asks_model("cascade")
    assert not asks_model("vote", ["nearest", "linear"])
    assert asks_model("vote", ["nearest", "rag"])


# The rules of an arm's answers

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
RULES = st.builds(
    AnswerRules, st.sampled_from(["json", "joined", "short"]), st.booleans(), st.booleans(), st.none() | any_trees(TEXT)
)


@settings(max_examples=40)
@given(RULES)
def test_rules_come_back_as_they_were_kept(rules):
    with TemporaryDirectory() as folder:
        rules.save(Path(folder))
        assert AnswerRules.load(Path(folder)) == rules


def test_missing_rules_are_told(tmp_path):
    with pytest.raises(InputError, match=r"rules\.json: file not found"):
        AnswerRules.load(tmp_path)


def test_an_arm_has_paths_of_its_own_or_those_of_the_training_subset(tmp_path):
    rows = pd.DataFrame([("a", "b", "c", "d")], columns=list(CONTEST)).assign(id=1, retailer="shop")
    context = make_context("nearest", Nearest.Settings(retriever="lexical", k=1, power=1.0), rows)
    rules = AnswerRules.of_arm(Nearest(), context)
    assert rules == AnswerRules("json", unseen=False, free_text=False, paths=None)

    class Closed(Nearest):
        """An arm that may answer one path only."""

        def known_paths(self, context):
            return LabelTree(CONTEST, (LabelPath("x", "y", "z", "q"),), (1,))

    assert AnswerRules.of_arm(Closed(), context).paths.paths == (LabelPath("x", "y", "z", "q"),)


# Nothing but the arms, the cascade and the schema knows an arm by its name

# Words that are an arm's name and something else, by the package that says them.
OTHER_MEANINGS = {
    ("linear", "linear"): "the model of that package: the label of its progress bar",
    ("llm", "llama"): "a family of models",
    ("tuning", "linear"): "a schedule of the learning rate",
    ("postprocessing", "vote"): "a kind of repair: the neighbours' vote",
}


def literals(path):
    """The string literals of a module, with their lines, as the parts of an f-string too; docstrings are left out.

    A docstring, with the examples in it, describes: nothing is chosen by it.
    """
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented)
                  and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def named(text):
    """The arms that a text refers to by name: as its whole, or in a path or a key (`data/rag`, `run.rag`, `infer@rag`).

    Prose is excepted, that is help and messages for people: "linear model", "the nearest neighbours". A page of the
    docs may carry an arm's name.
    """
    text = re.sub(r"docs/\S+", "", text)
    return [name for name in NAMES if text == name or re.search(rf"[./@]{name}\b|\b{name}[./@=]\w", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("rag", ["rag"]), ("data/rag", ["rag"]), ("-S run.llama=false", ["llama"]), ("infer@rag", ["rag"]),
     ("lower openai.sample_rows", ["openai"]), ("a linear model", []), ("the nearest neighbours.", []),
     ("train_llama.batch_rows", []), ("see docs/openai.md", []), ("storage", [])],
)  # fmt: skip
def test_what_counts_as_naming_an_arm(text, expected):
    assert named(text) == expected


def test_nothing_else_knows_an_arm_by_its_name():
    packages = [folder for folder in SOURCE.iterdir() if folder.is_dir()]
    found, excused = [], set()
    for path in (path for folder in packages for path in folder.rglob("*.py")):
        package = path.relative_to(SOURCE).parts[0]
        if package in ("arms", "cascade", "config"):
            continue
        for line, text in literals(path):
            for name in named(text):
                if (package, name) in OTHER_MEANINGS:
                    excused.add((package, name))
                else:
                    found.append(f"{path.relative_to(SOURCE)}:{line}: {text!r}")
    assert found == []
    assert excused == set(OTHER_MEANINGS), "an exception that nothing needs any more"
