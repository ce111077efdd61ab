"""The frame of a training: the order of its examples, its loss curve, and the time it will take."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.tuning import progress as progress_module
from tillmap.tuning import speed
from tillmap.tuning.batches import order_of, padded_tokens
from tillmap.tuning.progress import Loss, LossCurve, TimeLeft, duration, losses_of
from tillmap.tuning.speed import product_speed

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=70)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_each_epoch_has_each_example_once(lengths, batch_rows, epochs, grouped, seed):
    order = order_of(lengths, batch_rows, epochs, grouped=grouped, seed=seed)
    assert sorted(order) == sorted(list(range(len(lengths))) * epochs)
    assert order == order_of(lengths, batch_rows, epochs, grouped=grouped, seed=seed)


@given(LENGTHS, st.integers(1, 9), st.floats(0.05, 2.9))
def test_a_part_of_an_epoch_has_each_example_at_most_once_more(lengths, batch_rows, epochs):
    order = order_of(lengths, batch_rows, epochs, grouped=True, seed=1)
    counts = np.bincount(order, minlength=len(lengths))
    assert set(counts) <= {int(epochs), int(epochs) + 1}
    assert len(order) == pytest.approx(epochs * len(lengths), abs=1)


def test_grouped_batches_have_few_tokens_of_padding_and_come_in_no_order_of_length():
    lengths = np.random.default_rng(0).normal(46, 9, 1000).clip(20, 90).astype(int).tolist()
    shares = {}
    for grouped in (True, False):
        ordered = [lengths[place] for place in order_of(lengths, 16, 1, grouped=grouped, seed=3)]
        shares[grouped] = 1 - sum(ordered) / padded_tokens(ordered, 16)
        if grouped:
            means = [float(np.mean(ordered[first : first + 16])) for first in range(16, 992, 16)]
            assert abs(np.corrcoef(range(len(means)), means)[0, 1]) < 0.3
            assert max(ordered[:16]) == max(lengths), "if memory is too small, it runs out at once"
    assert shares[True] < 0.02
    assert shares[False] > 0.2


def test_the_loss_curve_grows_by_whole_lines_and_starts_with_what_was_done_before(tmp_path):
    path = tmp_path / "curves" / "llama.csv"
    curve = LossCurve(path)
    curve.start(losses_of([{"step": 1, "loss": 2.5, "learning_rate": 0.001}, {"step": 1, "train_runtime": 3.0}]))
    curve.add([Loss(2, 2.25, 0.0005)])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"step": "1", "loss": "2.5", "learning_rate": "0.001"},
            {"step": "2", "loss": "2.25", "learning_rate": "0.0005"},
        ]


def test_the_time_left_follows_from_the_tokens_of_this_run(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: now[0])
    caplog.set_level("INFO", logger="tillmap")
    left = TimeLeft(10_000)
    left.start(4_000)  # of an interrupted run
    for step, (now[0], done) in enumerate([(130.0, 4_500), (170.0, 5_000), (180.0, 5_200), (240.0, 6_000)], 1):
        left.after(step, 9, done)
    assert caplog.messages == ["train: step 2 of 9, 6 min left", "train: step 4 of 9, 5 min left"]


@pytest.mark.parametrize(("seconds", "said"), [(0, "1 s"), (99, "99 s"), (150, "2 min"), (12_600, "3.5 h")])
def test_durations_are_said_as_a_person_would(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(("dtype", "seconds"), [("float32", 1.0), ("bfloat16", 2.0)])
def test_training_is_expected_to_reach_a_share_of_a_products_speed(monkeypatch, dtype, seconds):
    import torch

    monkeypatch.setattr(speed, "product_speed", lambda *_: 4e6)
    monkeypatch.setattr(speed, "CPU_SHARES", {"float32": 0.5, "bfloat16": 0.25})
    embedding, output = torch.nn.Embedding(50, 4), torch.nn.Linear(4, 50, bias=False)  # the first is only looked up
    model = SimpleNamespace(
        get_nb_trainable_parameters=lambda: (300, 1000),
        get_input_embeddings=lambda: embedding,
        get_output_embeddings=lambda: output,
        config=SimpleNamespace(hidden_size=4),
        dtype=getattr(torch, dtype),
    )
    assert speed.expected_seconds(model, tokens=1000, rows=16) == pytest.approx(seconds)


def test_a_product_has_a_speed():
    import torch

    assert product_speed(64, 32, torch.float32) > 1e6
