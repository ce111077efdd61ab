"""Locks of run state: one process at a time, named by its number, and let go of by a kill."""

import os
import shutil
import subprocess
import sys

import pytest

from tillmap.core.errors import ResourceError
from tillmap.core.run_state import alone, hold

HOLDER = """
import sys, time
from pathlib import Path
from tillmap.core.run_state import hold
with hold(Path(sys.argv[1]), str):
    print("held", flush=True)
    time.sleep(600)
"""


def refusal(pid):
    return f"process {pid} has it"


def test_another_process_is_named_until_it_is_killed(tmp_path):
    lock = tmp_path / "new" / "stage.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):  # a refused process leaves the number where it is
            with pytest.raises(ResourceError, match=f"^process {holder.pid} has it$"), hold(lock, refusal):
                pass
        holder.kill()
        holder.wait()
        with hold(lock, refusal):
            assert lock.read_text() == str(os.getpid())


def test_a_lock_is_held_once_and_released_whatever_happens(tmp_path):
    lock = tmp_path / "lock"
    with hold(lock, refusal), pytest.raises(ResourceError, match=f"process {os.getpid()} has it"), hold(lock, refusal):
        pass
    with pytest.raises(ZeroDivisionError), hold(lock, refusal):
        raise ZeroDivisionError
    with hold(lock, refusal):
        pass


def test_a_folder_may_be_deleted_by_the_process_that_has_it(tmp_path):
    folder = tmp_path / "run"
    with alone(folder):
        shutil.rmtree(folder)
    with alone(folder), pytest.raises(ResourceError, match="another process follows this run"), alone(folder):
        pass
