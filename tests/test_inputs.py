"""Inputs: every byte once, from a pipe, a device or a compressed file; a file that changes is told."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillmap.core import inputs
from tillmap.core.errors import InputError
from tillmap.core.inputs import steady, watch

ROWS = b'{"indoml_id": 1, "description": "milk 1l"}\n{"indoml_id": 2, "description": "bread"}\n'
PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


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
    assert source == (path, path, str(path), False)
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


def test_a_device_is_read_to_its_end():
    assert read_twice(Path("/dev/null"))[0] == b""


def test_a_copy_has_no_name_that_a_kill_would_leave(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    with fed(tmp_path / "pipe", ROWS) as pipe, steady(pipe) as source:
        assert list((tmp_path / "copies").iterdir()) == []
        assert source.path.read_bytes() == ROWS


@pytest.mark.parametrize("ending", PACK)
def test_a_compressed_file_is_unpacked_once(tmp_path, ending):
    path = tmp_path / f"rows.csv.{ending}"
    path.write_bytes(PACK[ending](ROWS))
    content, source = read_twice(path)
    assert (content, source.named, source.shown) == (ROWS, tmp_path / "rows.csv", str(path))
    misnamed = path.rename(tmp_path / "rows.csv")
    assert read_twice(misnamed)[1].named == misnamed
    with fed(tmp_path / "pipe", PACK[ending](ROWS)) as pipe:
        assert read_twice(pipe)[0] == ROWS


@pytest.mark.parametrize("ending", PACK)
def test_a_damaged_compressed_file_gives_no_rows(tmp_path, ending):
    path = tmp_path / f"rows.csv.{ending}"
    whole = PACK[ending](ROWS)
    damaged = bytearray(whole)
    damaged[-6] ^= 0xFF  # in the checksum
    for content in (whole[: len(whole) // 2], whole[:-1], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"rows\.csv\.\w+: cannot be read to its end"):
            read_twice(path)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_ANY_GROWTH_BYTES", 2**20)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(bytes(2**25)))
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        read_twice(path)


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


def test_what_becomes_of_a_copied_file_does_not_matter(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROWS))
    with steady(path) as source:
        overwrite(path)
        assert source.path.read_bytes() == ROWS
