"""benchmarks/gpu.py on a CPU, with the tiny shape: a GPU is measured with the same lines."""

import json
import subprocess
import sys

import pytest
from project import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu

from tillmap.llm.limits import SHAPES, Card, Shape, tuning_seconds

FAST = Card("far beyond any CPU, so no clock decides a test", 1e15, 1e13, 0)


def test_this_machine_is_measured():
    card = gpu.ceilings(64, 2**16)
    assert card.flops > 0 and card.bandwidth > 0


def test_answering_is_measured_against_the_limit_of_a_card(tiny):
    found = gpu.answer(tiny, FAST, "ours", 4, "transformers")
    assert found["speed"] > 0 and 0 < found["of_limit"] < 1
    assert (found["unit"], found["rows"]) == ("rows/s", 4)


def test_embedding_is_measured(tiny):
    assert gpu.embed(tiny, FAST, 8)["speed"] > 0


def test_a_checkpoint_has_the_shape_that_is_asked_for(tmp_path):
    small = Shape(2, 64, 96, 4, 2, 49_152, head_dim=32)  # as in Qwen3, where heads are wider than hidden / heads
    gpu.write_base(small, tmp_path / "base")
    assert gpu.shape_of(tmp_path / "base").body == small.body


def test_both_recipes_have_their_own_texts():
    ours, theirs = (gpu.conversations(2, recipe) for recipe in ("ours", "gradientgurus"))
    assert "|" in ours[0][-1]["content"] and json.loads(theirs[0][-1]["content"])


@pytest.mark.slow
def test_the_command_prints_one_table(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--rows", "8", "--json", tmp_path / "found.json"]
    printed = subprocess.run(command, check=True, text=True, capture_output=True).stdout
    assert all(f"\n{step} " in printed for step in gpu.STEPS)
    found = json.loads((tmp_path / "found.json").read_text())
    train, card = found["train"], Card(**found["card"])
    assert train["unit"] == "tokens/s" and train["speed"] > 0
    assert train["of_limit"] == pytest.approx(train["speed"] * tuning_seconds(SHAPES["tiny"], card, 1))


def test_the_documented_limits_are_those_of_the_code():
    """The table in docs/gpu.md has the minutes of an A40, A100 and H100 for the contest's rows."""
    text = (ROOT / "docs/gpu.md").read_text().split("## What a card can do at most")[1].split("## ")[0]
    lines = [line.strip("|\n ").split(" | ")[1:] for line in text.splitlines() if line.startswith(("| `", "| tuning"))]
    shown = {line[0]: line[1:] for line in lines}
    table = gpu.limits(SHAPES["llama3-8b"])
    columns = ["TFLOP per row", "a40", "a100", "h100"]
    assert shown == {row["tokens"]: row[columns].tolist() for _, row in table.iterrows()}
