"""The limits of GPUs, worked out by hand and against what is known, and what `tillmap estimate` makes of them."""

import json
import shutil
from pathlib import Path

import pytest
from project import ROOT
from typer.testing import CliRunner

from tillmap.cli import app
from tillmap.core.errors import InputError, ParamsError
from tillmap.llm.limits import CARDS, SHAPES, answering_seconds, tuning_seconds

LLAMA = SHAPES["llama3-8b"]


def test_the_weights_of_the_shapes_are_those_of_their_models():
    # Llama 3 8B has 8.03 billion weights, with an embedding beside its output layer and 0.3 million in norms.
    assert LLAMA.body + 2 * LLAMA.head == 8_030_261_248 - 65 * 4096
    # Qwen3 4B (4.02 billion) and SmolLM2 (134,515,008) tie the two.
    assert SHAPES["qwen3-4b"].body + SHAPES["qwen3-4b"].head == pytest.approx(4.02e9, rel=1e-3)
    assert SHAPES["smollm2-135m"].body + SHAPES["smollm2-135m"].head == 134_515_008 - 61 * 576


def test_a_row_takes_the_operations_of_its_tokens():
    card = CARDS["a40"]
    # 2 operations for each weight and token: 38 through the layers, one through the output layer, and 8 more of both.
    by_hand = 2 * ((38 + 8) * LLAMA.body + 9 * LLAMA.head) / card.flops
    assert answering_seconds(LLAMA, card, 38, 9) == pytest.approx(by_hand)
    few = answering_seconds(LLAMA, card, 38, 9, batch=1) - answering_seconds(LLAMA, card, 38, 1, batch=1)
    assert few == pytest.approx(8 * 2 * (LLAMA.body + LLAMA.head) / card.bandwidth), (
        "alone, a row waits for the weights"
    )
    assert answering_seconds(LLAMA, card, 38, 9, cached=16) < by_hand


@pytest.mark.parametrize(
    ("gpu", "ours", "gradientgurus"), [("a40", 13.4, 23.2), ("a100", 6.4, 11.1), ("h100", 2.1, 3.8)]
)
def test_minutes_for_the_contests_rows(gpu, ours, gradientgurus):
    """GradientGurus took 30 minutes on an A40."""
    for (question, answer), minutes in (((38, 9), ours), ((42, 37), gradientgurus)):
        assert round(184_664 * answering_seconds(LLAMA, CARDS[gpu], question, answer) / 60, 1) == minutes


def test_training_takes_four_operations_and_six_with_checkpointing():
    card = CARDS["h100"]
    assert round(tuning_seconds(LLAMA, card, 100_000 * 79, recomputed=True) / 60, 1) == 6.0
    assert round(tuning_seconds(LLAMA, card, 100_000 * 79) / 60, 1) == 4.0


# The command


@pytest.fixture
def write_metrics(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(name, value):
        path = tmp_path / "metrics" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        for key in reversed(name.split("/")):
            value = {key: value}
        path.write_text(json.dumps(value))

    return write


def run(*arguments):
    done = CliRunner().invoke(app, ["estimate", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def lines(output):
    found = [line.split() for line in output.splitlines() if line.startswith(("llama ", "rag "))]
    return {(words[0], words[1], words[2].rstrip(",")): words for words in found}


def test_hours_and_dollars_of_ones_own_rows(write_metrics):
    write_metrics("ingest", {"test_rows": 184_664})
    write_metrics("prompts/llama", {"sample": {"rows": 1000}, "all": {"rows": 50_000}})
    write_metrics("infer/llama", {"rows": 10, "prompt_tokens": 300, "completion_tokens": 120})
    write_metrics("train_llama", {"tokens": 90_000, "recipe": {"epochs": 2}})
    output = run("--gpu", "A40", "--model", "llama3-8b")
    found = lines(output)
    mine = found["llama", "ours", "training"]
    assert "45" in mine and "run" in mine and "50,000" in mine
    least = tuning_seconds(LLAMA, CARDS["a40"], 45 * 50_000) / 3600
    assert mine[-3:-1] == [f"{least:.2f}", f"{least / 0.25:.2f}"]
    assert float(mine[-1]) == pytest.approx(least / 0.25 * 0.44, abs=0.01)
    assert found["llama", "ours", "answering"][4:7] == ["30", "+", "12"]
    theirs = found["llama", "gradientgurus", "answering"]
    assert theirs[4:8] == ["42", "+", "37", "contest"] and theirs[-3] == "0.39", "23.2 minutes"
    assert found["rag", "ours", "answering"][4:8] == ["193", "+", "10", "contest"], "rag was not asked"
    assert "RunPod's of 2026-08-19" in output
    assert "$2.00 an hour" in run("--gpu", "a40", "--usd-per-hour", "2")


def test_ones_own_epochs_are_those_of_the_recipe_that_is_chosen(write_metrics):
    asked = ("--gpu", "a40", "--model", "llama3-8b", "--rows", "1000", "--train-rows", "100000")
    once = lines(run(*asked))
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("  epochs: null", "  epochs: 4"))
    found = lines(run(*asked))
    assert found["llama", "ours", "training"][3:5] == ["4", "epochs"]
    assert found["llama", "gradientgurus", "training"] == once["llama", "gradientgurus", "training"]
    least, often = (float(each["llama", "ours", "training"][-3]) for each in (once, found))
    assert often == pytest.approx(4 * least, abs=0.02)


def test_a_fast_gpu_waits_for_its_host(write_metrics):
    """An H100 took 18 minutes for the contest's rows with limited answers, and 6 for free text: docs/gpu.md."""
    asked = ("--gpu", "h100", "--model", "llama3-8b", "--rows", "184664", "--train-rows", "1000")
    assert lines(run(*asked))["llama", "ours", "answering"][-2] == f"{184_664 / 173 / 3600:.2f}" == "0.30"
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("  constrain: retrieved ", "  constrain: off ").replace(
        "  constrain: retrieved\n", '  constrain: "off"\n'))  # fmt: skip
    assert lines(run(*asked))["llama", "ours", "answering"][-2] == "0.10"
    assert lines(run("--gpu", "a40", *asked[2:]))["llama", "ours", "answering"][-2] == "0.56", "0.4 of its limit"


def test_what_is_not_known_is_asked_for(write_metrics):
    with pytest.raises(InputError, match=r"ingest\.json does not say .*run `dvc repro`, or add --rows"):
        run("--gpu", "h100")
    with pytest.raises(ParamsError, match="b300 is not known; expected one of a40, a100"):
        run("--gpu", "b300")
    with pytest.raises(ParamsError, match="no price of the NVIDIA T4 is known: add --usd-per-hour"):
        run("--gpu", "t4")
    asked = ("--rows", "1000", "--train-rows", "1000", "--usd-per-hour", "0.5")
    assert "does not fit on this GPU in 16 bit" in run("--gpu", "t4", "--model", "llama3-8b", *asked)
    found = run("--gpu", "t4", *asked)
    assert "qwen3-4b: 7.5 GiB in 16 bit" in found, "the model of the gpu profile"
    assert "does not fit" not in found
