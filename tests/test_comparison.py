"""Verdicts between arms, and their table."""

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import ROOT
from scipy.stats import chi2

from tillmap.core.errors import InputError, ParamsError
from tillmap.core.files import write_table
from tillmap.core.taxonomy import CONTEST, LabelTree, Levels
from tillmap.evaluation.comparison import BETTER, CANNOT_TELL, WORSE, compare_arms, comparison_table

sys.path.insert(0, str(ROOT / "benchmarks"))
import paired


def marks(right, product=None):
    table = pd.DataFrame({"split": "test", "id": np.arange(len(right)), "right": np.asarray(right, dtype=bool)})
    return table if product is None else table.assign(product=product)


def compared(reference, other, product=None):
    table = compare_arms({"linear": marks(reference, product), "llama": marks(other, product)}, "linear")
    assert table["arm"].tolist() == ["llama"]
    return table.iloc[0]


def test_a_clear_gain_and_a_clear_loss():
    low, high = np.arange(400) < 200, np.arange(400) < 240
    gain, loss = compared(low, high), compared(high, low)
    assert (gain["verdict"], loss["verdict"]) == (BETTER, WORSE)
    assert (gain["only_arm"], gain["only_reference"]) == (40, 0)
    assert gain["difference"] == -loss["difference"] == 0.1
    assert gain["low"] < 0.1 < gain["high"]


def test_equal_arms_cannot_be_told_apart():
    right = np.arange(50) % 2 == 0
    same = compared(right, right)
    assert (same["p_value"], same["difference"], same["verdict"]) == (1.0, 0.0, CANNOT_TELL)


def test_few_rows_decide_nothing_though_all_point_one_way():
    five = compared([0] * 5 + [1] * 15, [1] * 20)
    assert five["low"] > 0
    assert five["p_value"] == 2 * 0.5**5
    assert five["verdict"] == CANNOT_TELL


def test_a_gain_within_a_handful_of_products_decides_nothing():
    rng = np.random.default_rng(0)
    product = np.repeat(np.arange(20), 20)
    gains, losses = product < 6, product >= 17
    reference = np.where(gains, False, np.where(losses, True, rng.random(400) < 0.5))
    other = np.where(gains, True, np.where(losses, False, reference))
    assert compared(reference, other)["verdict"] == BETTER
    clustered = compared(reference, other, product)
    assert clustered["p_value"] < 0.001
    assert clustered["low"] < 0 < clustered["high"]
    assert clustered["verdict"] == CANNOT_TELL


def test_the_exact_test_agrees_with_chi_square_on_many_rows():
    won, lost = 1100, 1000
    right = np.repeat([[0, 1], [1, 0], [1, 1]], [won, lost, 500], axis=0)
    approximate = chi2.sf((abs(won - lost) - 1) ** 2 / (won + lost), 1)
    assert compared(right[:, 0], right[:, 1])["p_value"] == pytest.approx(approximate, rel=0.02)


@settings(deadline=None, max_examples=25)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_comparison_is_even_handed(pairs):
    reference, other = zip(*pairs, strict=True)
    there, back = compared(reference, other), compared(other, reference)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert there["p_value"] == pytest.approx(back["p_value"])
    assert {there["verdict"], back["verdict"]} in ({CANNOT_TELL}, {BETTER, WORSE})
    assert -1 <= there["low"] <= there["difference"] <= there["high"] <= 1


def test_arms_are_paired_by_key():
    first = marks([1, 0, 0, 1])
    assert compare_arms({"a": first, "b": first.iloc[::-1]}, "a")["only_arm"].tolist() == [0]
    with pytest.raises(InputError, match="arms b and a share 3 of their 3 and 4 rows"):
        compare_arms({"a": first, "b": first.iloc[1:]}, "a")
    with pytest.raises(ParamsError, match="reference arm 'c' was not scored; expected one of a"):
        compare_arms({"a": first}, "c")


def score(accuracy, **more):
    return {
        "item_accuracy": accuracy,
        "low": accuracy - 0.01,
        "high": accuracy + 0.01,
        "accuracy": dict.fromkeys(CONTEST, 0.75),
        **more,
    }


def test_table_lists_the_best_arm_first_and_only_what_is_known():
    table = comparison_table(
        {
            "linear": score(0.555, rows_per_second=8412.25),
            "llama": score(0.6, prompt_tokens=212.44, completion_tokens=11, verdict=BETTER),
            "rag": score(0.3, verdict=CANNOT_TELL),
        }
    )
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["llama", "linear", "rag"]
    assert " ".join(lines[3].split()) == "llama 0.6000 0.5900 to 0.6100 0.7500 0.7500 0.7500 0.7500 - 212.4 11.0 better"
    assert lines[4].split()[-4:] == ["8,412.2", "-", "-", "-"]
    assert lines[5].endswith("can't tell")
    assert "tokens" not in comparison_table({"linear": score(0.5)})
    repaired = comparison_table({"rag": score(0.3, repair={"without": 0.125, "gained": 0.175}), "linear": score(0.5)})
    assert "repair" in repaired and repaired.splitlines()[-1].split()[-1] == "0.1250"


def test_two_arms_of_one_run_are_compared(tmp_path, monkeypatch, capsys):
    """`benchmarks/paired.py linear workspace workspace:rerank`, as docs/comparing.md says."""
    levels = Levels(("group", "module"))
    rows = pd.DataFrame({"split": "test", "id": range(40), "subset": "test", "group": "tea", "module": "green tea"})
    answers = {"linear": 10, "rerank": 30}
    for folder in ("split", "predictions"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    rows.to_parquet(tmp_path / "data/split/rows.parquet")
    write_table(LabelTree.from_rows(rows, levels).to_table(), tmp_path / "data/split/tree.parquet")
    for arm, right in answers.items():
        answered = rows.assign(module=np.where(rows["id"] < right, "green tea", "black tea"))
        answered.to_parquet(tmp_path / f"data/predictions/{arm}.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["paired.py", "linear", "workspace", "workspace:rerank"])
    paired.main()
    first, _, second = capsys.readouterr().out.splitlines()
    assert first == "linear, 40 rows; workspace: 0.2500"
    assert second.split()[:5] == ["workspace:rerank", "0.7500", "20", "0", "0.5000"] and second.endswith(BETTER)
