"""Inputs: every byte once, from a file, a pipe or a device; a file that changes while it is read is told."""

import io
import os
import pty
import sys
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core import inputs
from tillmap.core.errors import InputError
from tillmap.core.inputs import steady, watch

ROWS = b'{"indoml_id": 1, "description": "milk 1l"}\n{"indoml_id": 2, "description": "bread"}\n'


def read_twice(path):
    with steady(path) as source:
        first = source.path.read_bytes()
        assert source.path.read_bytes() == first
        return first, source


@contextmanager
def fed(path, content):
    """Something writes to a FIFO, which waits for a reader."""
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(content))
    writer.start()
    yield path
    writer.join()


def test_a_file_is_read_where_it_is(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    content, source = read_twice(path)
    assert content == ROWS
    assert source == (path, str(path), False)
    assert read_twice_missing(tmp_path / "nowhere")


def read_twice_missing(path):
    """A missing file is left to the reader, who knows what to say."""
    with steady(path) as source:
        return source.path == path and not source.stream


@given(content=st.binary(max_size=300))
def test_a_pipe_gives_its_bytes_as_often_as_needed(tmp_path_factory, content):
    pipe = tmp_path_factory.mktemp("pipe") / "pipe"
    with fed(pipe, b"." + content):
        got, source = read_twice(pipe)
    assert (got, source.stream, source.shown) == (b"." + content, True, str(pipe))


def test_more_than_a_pipe_holds(tmp_path):
    with fed(tmp_path / "pipe", ROWS * 50_000) as pipe:
        assert read_twice(pipe)[0] == ROWS * 50_000


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_an_open_file_is_read_from_where_it_is(tmp_path, name):
    """As bash's `<(zcat feed.gz)` and `/dev/stdin` are given. What was read of it before does not come again."""
    reader, writer = os.pipe()
    os.write(writer, ROWS)
    os.close(writer)
    assert os.read(reader, 5) == ROWS[:5]
    path = Path(name.format(reader))
    if name == "link":
        path = tmp_path / "link"
        path.symlink_to(f"/dev/fd/{reader}")
    content, source = read_twice(path)
    assert (content, source.stream) == (ROWS[5:], True)
    os.close(reader)
    with pytest.raises(InputError, match="cannot be read"):
        read_twice(path)


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS)))
    content, source = read_twice(Path("-"))
    assert (content, source.shown) == (ROWS, "standard input")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input is closed"):
        read_twice(Path("-"))


def test_rows_that_are_typed_end_with_one_ctrl_d(tmp_path):
    keyboard, terminal = pty.openpty()
    os.write(keyboard, ROWS + b"\x04")
    reader = threading.Thread(target=lambda: got.append(read_twice(Path(os.ttyname(terminal)))[0]), daemon=True)
    got = []
    reader.start()
    reader.join(timeout=30)
    os.close(keyboard)  # ends a reader that waits for more
    assert got == [ROWS]
    os.close(terminal)


def test_a_device_is_read_to_its_end():
    assert read_twice(Path("/dev/null"))[0] == b""


def test_a_copy_has_no_name_that_a_kill_would_leave(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    with fed(tmp_path / "pipe", ROWS) as pipe, steady(pipe) as source:
        assert list((tmp_path / "copies").iterdir()) == []
        assert source.path.read_bytes() == ROWS


def append(path):
    with path.open("ab") as file:
        file.write(ROWS)


def overwrite(path):
    path.write_bytes(ROWS[::-1])


def exchange(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("change", [append, overwrite, exchange, os.unlink], ids=lambda change: change.__name__)
def test_a_file_that_changes_while_it_is_read_is_told(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    check = watch(path)
    check()
    said = r"rows\.jsonl: it changed while it was read; wait until it is complete"
    with pytest.raises(InputError, match=said), steady(path):
        change(path)
    with pytest.raises(InputError, match="changed"):
        check()


def test_half_a_row_that_is_being_written_is_not_called_a_fault_of_the_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS[:-5])
    with pytest.raises(InputError, match="it changed while it was read"), steady(path):
        append(path)
        raise InputError("rows.jsonl:2: not JSON")
    with pytest.raises(InputError, match="2: not JSON"), steady(path):
        raise InputError("rows.jsonl:2: not JSON")


def test_no_room_for_the_copy_is_no_fault_of_the_input(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "TemporaryFile", partial(Path("/dev/full").open, "wb"))
    with fed(tmp_path / "pipe", ROWS) as pipe, pytest.raises(OSError, match="No space left"):
        read_twice(pipe)
