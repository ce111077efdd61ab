"""Profiles change params.yaml as promised, keep its comments, and leave it alone where they are wrong."""

import re
from functools import reduce
from operator import getitem

import pytest
from project import ROOT
from typer.testing import CliRunner

from tillmap.arms import schema
from tillmap.cli import app
from tillmap.config.params import read_params
from tillmap.config.profiles import apply_profiles
from tillmap.core.errors import ParamsError

PROFILES = ROOT / "profiles"
GPUS = [["gpu"], ["gpu", "gpu-16gb"], ["gpu", "llama3"], ["gpu", "gpu-16gb", "llama3", "llama3-16gb"]]


@pytest.fixture
def params(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    return path


@pytest.mark.parametrize("names", [*GPUS, ["openai"], ["openai-tuned"]])
def test_a_shipped_profile_gives_valid_params_and_keeps_the_comments(names, params):
    comments = [line.partition("#")[2] for line in params.read_text().splitlines()]
    changed = apply_profiles(names, params, PROFILES, schema())
    found = read_params(params, schema())
    assert [line.partition("#")[2] for line in params.read_text().splitlines()] == comments
    values = found.model_dump()
    for key, (_, new) in changed.items():
        value = reduce(getitem, key.split("."), values)
        assert value == (value | new if isinstance(new, dict) else new)
    assert apply_profiles(names, params, PROFILES, schema()) == {}


def test_the_profiles_of_openai_undo_each_other(params):
    apply_profiles(["openai"], params, PROFILES, schema())
    untuned = read_params(params, schema()).model_dump()
    apply_profiles(["openai-tuned"], params, PROFILES, schema())
    tuned = read_params(params, schema())
    assert (tuned.openai.mode, tuned.openai.request, tuned.provider.prices.training) == ("tuned", {}, 3.0)
    assert tuned.provider.prices.untuned.cache_write is None
    apply_profiles(["openai"], params, PROFILES, schema())
    assert read_params(params, schema()).model_dump() == untuned


def test_the_llms_of_the_gpu_profile_are_free_to_download_and_pinned(params):
    """The contest's Llamas are gated; a hub id without a commit would be refused after hours."""
    apply_profiles(["gpu"], params, PROFILES, schema())
    found = read_params(params, schema())
    for block in (found.rag, found.llama):
        assert block.base.startswith("Qwen/Qwen3-4B")
        assert re.fullmatch("[0-9a-f]{40}", block.revision)


def test_the_later_profile_wins_and_the_effective_batch_stays(params):
    apply_profiles(["gpu"], params, PROFILES, schema())
    large = read_params(params, schema()).train_llama
    apply_profiles(["gpu-16gb"], params, PROFILES, schema())
    small = read_params(params, schema()).train_llama
    assert (large.batch_rows, small.batch_rows) == (64, 32)
    assert small.batch_rows * small.accumulation == large.batch_rows * large.accumulation


@pytest.mark.parametrize("names", GPUS)
def test_the_engine_of_a_profile_takes_the_bases_of_its_arms(names, params):
    """vLLM takes a 4-bit base only where the adapter is merged into it, which unpacks it. A tuned base stays 4 bit."""
    apply_profiles(names, params, PROFILES, schema())
    found = read_params(params, schema())
    assert ("4bit" in found.llama.base) == found.train_llama.load_in_4bit == ("llama3" in names)
    assert "4bit" not in found.llama.base or found.llama.engine == "transformers" or found.engine.lora == "merge"
    assert found.rag.engine == "transformers" or "4bit" not in found.rag.base


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("rag:\n  exmaples: 5\n", r"rag\.exmaples is not a parameter; did you mean examples\?"),
        ("raq:\n  examples: 5\n", r"raq is not a block"),
        ("rag: 5\n", r"rag is not a block"),
        ("- rag\n", "expected blocks"),
        ("rag: [\n", "not valid YAML"),
        ("rag: !!int x\n", "not valid YAML"),
        ("[" * 100_000, "not valid YAML"),
        ("rag: 2026-99-99\n", "not valid YAML"),
    ],
)
def test_a_wrong_profile_changes_nothing(profile, message, params, tmp_path):
    before = params.read_text()
    (tmp_path / "wrong.yaml").write_text(profile)
    with pytest.raises(ParamsError, match=message):
        apply_profiles(["wrong"], params, tmp_path, schema())
    assert params.read_text() == before


def test_the_command_says_what_changed(params, monkeypatch):
    monkeypatch.chdir(params.parent)
    (params.parent / "profiles").symlink_to(PROFILES)
    done = CliRunner().invoke(app, ["profile", "gpu"])
    assert done.exit_code == 0
    assert "rag.examples: 3 -> 5" in done.output
    missing = CliRunner().invoke(app, ["profile", "cluster"])
    assert isinstance(missing.exception, ParamsError)
    assert "available profiles: gpu, gpu-16gb, llama3, llama3-16gb, openai, openai-tuned" in str(missing.exception)
