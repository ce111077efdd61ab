"""Signals of answers, and the confidence fitted on them."""

from math import log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tillmap.core.errors import InputError, ModelError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.evaluation.calibration_curves import expected_calibration_error
from tillmap.postprocessing.calibration import Confidence, calibrate, candidate_scores, cross_fit, make_signals

MILK, CREAM, BAGS = (
    LabelPath("food", "dairy", "milk", "alder"),
    LabelPath("food", "dairy", "milk", "purely"),
    LabelPath("home", "bags", "bin bags", "alder"),
)
TREE = LabelTree.from_rows(pd.DataFrame([MILK, MILK, CREAM, BAGS], columns=list(CONTEST)).assign(retailer="r"), CONTEST)
ROWS = pd.DataFrame({"split": ["train", "test", "test"], "id": [0, 0, 1], "description": ["mlk", "BIN bags 5", ""]})


def completion(split: str, row_id: int, *candidates: tuple[LabelPath, float], logprob: float | None = None) -> dict:
    return {
        "split": split, "id": row_id, "logprob": logprob,
        "candidates": [[list(path), share] for path, share in candidates] or None,
    }  # fmt: skip


def prediction(path: LabelPath, own: float, repair: str = "none", in_tree: bool = True) -> tuple:
    return (*path, own, repair, in_tree)


def predictions(*answers: tuple) -> pd.DataFrame:
    table = pd.DataFrame(answers, columns=[*CONTEST, "confidence", "repair", "in_tree"])
    return pd.concat([ROWS[["split", "id"]].head(len(answers)), table], axis=1)


def drawn(rows: int, seed: int, *names: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Signals of which the first two tell how likely an answer is to be right."""
    rng = np.random.default_rng(seed)
    signals = pd.DataFrame(rng.normal(size=(rows, len(names))), columns=list(names))
    chance = 1 / (1 + np.exp(-(0.3 + 2 * signals.iloc[:, 0] - signals.iloc[:, 1])))
    return signals, rng.random(rows) < chance.to_numpy()


def test_signals_say_what_speaks_for_an_answer() -> None:
    completions = [
        completion("train", 0, (MILK, 0.6), (CREAM, 0.3)),
        completion("test", 0, logprob=-2.0),
        completion("test", 1, (CREAM, 1.0)),
    ]
    table = predictions(prediction(MILK, 0.6), prediction(BAGS, 0.25, "snapped"), prediction(CREAM, 1.0))
    free = {"nearest": candidate_scores([completion("train", 0, (CREAM, 0.7), (MILK, 0.2)), completion("test", 1)])}
    signals = make_signals(completions, table, ROWS, free, TREE)
    assert list(signals.columns[:3]) == ["support", "own", "lead"]
    first, second, third = (signals.iloc[row].to_dict() for row in range(3))
    assert first["support"] == pytest.approx(log(0.4 / 0.6))
    assert first["lead"] == pytest.approx(log(2)) and second["lead"] == 0
    assert (first["nearest_path"], first["nearest_chain"], first["nearest_brand"]) == pytest.approx((0.2, 0.9, 0.2))
    assert first["nearest_first"] == 0.7 and second["nearest_first"] == third["nearest_first"] == 0
    assert second["logprob"] == -2 and first["logprob"] == 0
    assert second["repair_snapped"] == 1 and first["repair_snapped"] == 0
    assert third["in_tree"] == 1 and third["letters"] == 0
    assert first["known_rows"] == pytest.approx(log(3))


def test_a_path_that_only_the_row_itself_makes_known_is_not_known() -> None:
    """Arms know the paths of all labelled rows. That one of these is a new one would tell a calibration row's label."""
    leaked = LabelPath("food", "dairy", "cream", "alder")
    table = predictions(prediction(leaked, 0.5), prediction(MILK, 0.5, in_tree=False))
    signals = make_signals([completion("train", 0), completion("test", 0)], table, ROWS, {}, TREE)
    assert signals["in_tree"].tolist() == [0, 1]


def test_without_a_brand_siblings_speak_for_an_answer_and_no_brand_does() -> None:
    levels = Levels(("division", "group", "class"))
    rye, rolls, bread, soap = (
        LabelPath(*path) for path in (("food", "bread", "rye"), ("food", "bread", "rolls"), ("food", "bread", ""),
                                      ("home", "soap", "bars"))
    )  # fmt: skip
    tree = LabelTree(levels, tuple(sorted([rye, rolls, bread, soap])), (1, 2, 0, 3))
    answers = levels.columns([rye, bread]).assign(confidence=0.5, repair="none", in_tree=True)
    table = pd.concat([ROWS[["split", "id"]].head(2), answers], axis=1)
    said = [completion("train", 0, (rye, 1.0)), completion("test", 0, (bread, 1.0))]
    shares = ((rolls, 0.4), (bread, 0.3), (rye, 0.2), (soap, 0.1))
    free = {"nearest": candidate_scores([completion(split, 0, *shares) for split in ("train", "test")])}
    signals = make_signals(said, table, ROWS, free, tree)
    assert "nearest_brand" not in signals
    assert signals["nearest_path"].tolist() == [0.2, 0.3]
    assert signals["nearest_chain"].tolist() == pytest.approx([0.6, 0.3]), "those with the same parent"
    assert np.isfinite(signals.to_numpy()).all()


def test_rows_that_do_not_fit_are_told() -> None:
    table, answers = predictions(prediction(MILK, 0.5)), [completion("train", 0)]
    with pytest.raises(InputError, match="not of the same rows"):
        make_signals([completion("test", 0)], table, ROWS, {}, TREE)
    with pytest.raises(InputError, match="lacks train id 0"):
        make_signals(answers, table, ROWS.tail(2), {}, TREE)


@settings(max_examples=25)
@given(
    own=st.floats(0, 1),
    shares=st.lists(st.floats(0, 1), max_size=3),
    logprob=st.none() | st.floats(-1e6, 0),
    believed=st.floats(0, 1),
)
def test_signals_are_finite(own: float, shares: list[float], logprob: float | None, believed: float) -> None:
    candidates = list(zip((MILK, CREAM, BAGS), sorted(shares, reverse=True), strict=False))
    free = {"nearest": {("train", 0): [(MILK, believed)]}}
    answers = [completion("train", 0, *candidates, logprob=logprob)]
    signals = make_signals(answers, predictions(prediction(MILK, own)), ROWS, free, TREE)
    assert np.isfinite(signals.to_numpy()).all()


def test_a_confidence_of_many_rows_can_be_believed() -> None:
    names = ("a", "b", "noise")
    signals, right = drawn(2000, 0, *names)
    model = Confidence.fit(signals, right)
    assert (model.kind, model.rows, model.names) == ("full", 2000, names)
    assert model.of(signals).mean() == pytest.approx(right.mean(), abs=1e-4)
    unseen, outcome = drawn(20_000, 1, *names)
    confidence = model.of(unseen)
    assert expected_calibration_error(confidence, outcome) < 0.02
    assert np.mean((confidence - outcome) ** 2) < 0.8 * outcome.var()
    mean, low, high = model.expected_accuracy(confidence)
    assert low < outcome.mean() < high and mean == confidence.mean() and high - low < 0.04


def test_few_rows_use_the_first_signals_and_fewer_none() -> None:
    signals, right = drawn(40, 2, "a", "b", *(f"noise{i}" for i in range(20)))
    few = Confidence.fit(signals, right)
    assert few.kind == "few" and few.names == tuple(signals.columns[: min(right.sum(), (~right).sum()) // 5])
    constant = Confidence.fit(signals.head(20), np.arange(20) < 3)
    assert constant.kind == "constant" and constant.of(signals).tolist() == [pytest.approx(4 / 22)] * 40
    certain = Confidence.fit(signals.head(20), np.ones(20, bool))
    assert certain.of(signals.head(1)).tolist() == [pytest.approx(21 / 22)]
    assert constant.expected_accuracy(constant.of(signals))[2] > 0.3


def test_a_signal_that_never_varies_changes_nothing() -> None:
    signals, right = drawn(300, 3, "a", "b")
    with_constant = Confidence.fit(signals.assign(same=7.0), right)
    np.testing.assert_allclose(with_constant.of(signals.assign(same=7.0)), Confidence.fit(signals, right).of(signals))


def test_it_is_saved_and_checked(tmp_path: Path) -> None:
    signals, right = drawn(300, 4, "a", "b")
    model = Confidence.fit(signals, right)
    model.save(tmp_path / "confidence.json")
    first = (tmp_path / "confidence.json").read_bytes()
    loaded = Confidence.load(tmp_path / "confidence.json")
    assert loaded == model
    Confidence.fit(signals, right).save(tmp_path / "confidence.json")
    assert (tmp_path / "confidence.json").read_bytes() == first
    with pytest.raises(InputError, match="no signal b"):
        loaded.of(signals[["a"]])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ModelError, match="not a confidence model"):
        Confidence.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="answer some rows"):
        Confidence.fit(signals.head(0), [])


def test_only_answered_calibrate_rows_are_fitted_on() -> None:
    signals, right = drawn(400, 5, "a", "b")
    keys = pd.DataFrame({"split": "train", "id": np.random.default_rng(0).permutation(400)})
    parts = np.where(np.arange(400) < 300, "calibration", "holdout")
    answers = pd.DataFrame([MILK if ok else CREAM for ok in right], columns=list(CONTEST))
    table = pd.concat([keys, answers.assign(confidence=0.5)], axis=1)
    rows = pd.concat([keys, pd.DataFrame([MILK] * 400, columns=list(CONTEST))], axis=1).assign(subset=parts)
    calibrated, model = calibrate(table.head(350), signals.head(350), rows.sample(frac=1, random_state=0), CONTEST)
    assert model == Confidence.fit(signals.head(300), right[:300])
    np.testing.assert_array_equal(calibrated["confidence"][300:], model.of(signals.head(350))[300:])
    assert not np.isclose(calibrated["confidence"][:300], model.of(signals.head(300))).all(), "of rows it was fitted on"
    assert calibrated.drop(columns="confidence").equals(table.head(350).drop(columns="confidence"))
    with pytest.raises(InputError, match="calibration subset"):
        calibrate(table, signals, rows.assign(subset="dev"), CONTEST)


@pytest.mark.parametrize(("pull", "kept"), [(1.0, True), (0.2, False)], ids=["calibrated", "far too modest"])
def test_an_arms_own_confidence_is_kept_unless_the_fit_is_better(pull: float, kept: bool) -> None:
    rng = np.random.default_rng(7)
    odds = rng.normal(0, 2, 600)
    right = rng.random(600) < 1 / (1 + np.exp(-odds))
    signals = pd.DataFrame({"own": pull * odds, "noise": rng.normal(size=600)})
    keys = pd.DataFrame({"split": "train", "id": range(600)})
    table = keys.join(pd.DataFrame([MILK if ok else CREAM for ok in right], columns=list(CONTEST)))
    rows = keys.join(pd.DataFrame([MILK] * 600, columns=list(CONTEST))).assign(subset="calibration")
    calibrated, model = calibrate(table.assign(confidence=0.5), signals, rows, CONTEST, keep_own=True)
    assert (model.kind == "own") == kept
    if kept:
        np.testing.assert_allclose(calibrated["confidence"], 1 / (1 + np.exp(-odds)), atol=0.02)


def test_an_arms_own_confidence_moves_the_more_the_more_rows_say_so() -> None:
    """All answers have even odds, and three of four are right: the log odds should move by log 3 = 1.0986."""
    moves = []
    for rows in (8, 80, 800, 80_000):
        right = np.arange(rows) % 4 != 0
        model = Confidence.own(pd.DataFrame({"own": np.zeros(rows)}), right)
        # At its best the sum of the rows' slopes is that of the prior: rows * (3/4 - chance) = move / 0.1 ** 2.
        chance = 1 / (1 + np.exp(-model.intercept))
        assert rows * (0.75 - chance) == pytest.approx(model.intercept * 100, rel=1e-3)
        moves.append(model.intercept)
    assert moves == sorted(moves) and moves[0] < 0.05 and moves[-1] == pytest.approx(log(3), abs=0.02)


def test_no_row_has_a_say_in_its_own_confidence() -> None:
    signals, right = drawn(300, 6, "a", "b")
    product = pd.Series([f"product {row // 3}" for row in range(300)])
    before = cross_fit(signals, right, product)
    changed = right.copy()
    changed[:3] = ~changed[:3]
    after = cross_fit(signals, changed, product)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3:30] != after[3:30]).any()
    few = cross_fit(signals.head(6), right[:6])
    assert len(set(few)) == 1
