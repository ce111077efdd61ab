"""How many threads a long computation takes."""

import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core.machine import free_threads


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, so busy (a share of all cores)."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def set_up(cores, busy, ours=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(ours or cores)), raising=False)
        monkeypatch.setattr(psutil, "cpu_count", lambda *_: cores)
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100 * busy)

    return set_up


@pytest.mark.parametrize(
    ("cores", "busy", "expected"), [(2, 0.0, 2), (2, 0.5, 1), (2, 1.0, 1), (8, 0.25, 6), (8, 0.99, 1), (1, 0.0, 1)]
)
def test_as_many_as_cores_are_idle_and_at_least_one(machine, cores, busy, expected):
    machine(cores, busy)
    assert free_threads() == expected


def test_a_process_that_may_use_few_cores_takes_no_more(machine):
    machine(64, 0.0, ours=4)
    assert free_threads() == 4


def test_this_machine_has_some():
    assert 1 <= free_threads() <= os.cpu_count()


@given(st.integers(1, 10_000))
def test_the_environment_overrides_the_choice(number):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(number))
        assert free_threads() == number


@pytest.mark.parametrize("text", ["", "0", "-1", "many", "1.5"])
def test_an_environment_that_says_nothing_usable_is_passed_over(machine, monkeypatch, text):
    machine(2, 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert free_threads() == 2
