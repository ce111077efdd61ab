"""Files: whole or not at all, nothing of others is destroyed, the same bytes twice, errors that say what to do."""

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from tillmap.catalogue import parquet_tables
from tillmap.catalogue.formats import RowFile
from tillmap.core import files, writing
from tillmap.core.errors import InputError, LostRowsError, ResourceError
from tillmap.core.files import require_same_rows
from tillmap.core.run_state import run_key
from tillmap.core.writing import is_standard_output, new_folder, replacing, require_writable
from tillmap.linear.heads import SparseHeads
from tillmap.retrieval.base import read_tensors

TABLE = pd.DataFrame({"split": ["train", "test"], "id": [7, 0], "price": [1.5, np.nan], "brand": ["crème | b", None]})


def test_table_round_trip_and_same_bytes(tmp_path):
    files.write_table(TABLE, tmp_path / "a.parquet")
    files.write_table(TABLE.copy(), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back = files.read_table(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(back, TABLE, check_dtype=False)


def test_jsonl_round_trip(tmp_path):
    records = [{"text": 'line\nbreak "x"', "id": 1}, {"text": "ü", "id": 2}]
    files.write_jsonl(records, tmp_path / "a.jsonl")
    assert list(files.read_jsonl(tmp_path / "a.jsonl")) == records


def test_interrupted_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    files.write_jsonl([{"id": 1}], path)

    def failing():
        yield {"id": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_jsonl(failing(), path)
    assert list(files.read_jsonl(path)) == [{"id": 1}]


def test_interrupted_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "out"
    with writing.new_folder(path) as folder:
        files.write_json(1, folder / "a.json")
    with pytest.raises(KeyboardInterrupt), writing.new_folder(path) as folder:
        files.write_json(2, folder / "a.json")
        raise KeyboardInterrupt
    assert files.read_json(path / "a.json") == 1
    with writing.new_folder(path) as folder:
        files.write_json(3, folder / "b.json")
    assert [file.name for file in path.iterdir()] == ["b.json"]


@pytest.mark.parametrize("read", [files.read_table, files.read_json, lambda path: list(files.read_jsonl(path))])
def test_missing_and_damaged_files_say_what_to_do(tmp_path, read):
    with pytest.raises(InputError, match=r"nowhere.*dvc pull"):
        read(tmp_path / "nowhere")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x00 no\n")
    with pytest.raises(InputError, match=r"damaged.*dvc pull"):
        read(damaged)


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        pa.ArrowException("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"),
    ],
)
def test_a_file_is_not_called_damaged_where_the_machine_is_at_its_limit(tmp_path, monkeypatch, error):
    """To delete it and make it again would cost hours, and not help."""

    def fail(*_, **__):
        raise error

    table, value = tmp_path / "table.parquet", tmp_path / "value.json"
    files.write_table(pd.DataFrame({"id": [1]}), table)
    files.write_json(1, value)
    monkeypatch.setattr(files.pq, "ParquetFile", fail)
    monkeypatch.setattr(parquet_tables.pq, "ParquetFile", fail)
    monkeypatch.setattr(files.json, "loads", fail)
    reads = [lambda: files.read_table(table), lambda: list(RowFile(table).rows(["id"]))]
    for read in [*reads, lambda: files.read_json(value)] if isinstance(error, OSError) else reads:
        with pytest.raises(ResourceError, match=r"cannot be read now .*`ulimit -a` shows it"):
            read()


def test_jsonl_error_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n[2]\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: not a JSON object"):
        list(files.read_jsonl(path))


def test_a_line_has_an_object_or_nothing():
    lines = (b"\n", b"[]", b'"{"', b"{", b"{" * 100_000, b"\xff{}")
    assert [files.json_object(line) for line in lines] == [None] * len(lines)
    assert files.json_object(b'\xef\xbb\xbf{"a": 1}\r\n') == {"a": 1}  # as an editor saves it


# Outputs


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.fixture
def reachable():
    """A folder that every user may open; pytest's own are private."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def nobody():
    """Root, as the tests often are, may do anything. Here the process is an ordinary user for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def write(path, content=b"new"):
    with replacing(path) as file:
        file.write(content)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def alone(folder):
    """The names in a folder: nothing may be left beside an output."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640), (0o002, 0o664)])
def test_a_new_file_has_the_mode_that_the_umask_says(tmp_path, umask, mask, expected):
    umask(mask)
    write(tmp_path / "out")
    assert mode_of(tmp_path / "out") == expected
    with new_folder(tmp_path / "model") as folder:
        (folder / "deep").mkdir()
        save_file({"a": np.zeros(2)}, folder / "deep" / "weights.safetensors")  # writes files of mode 0600
    assert mode_of(tmp_path / "model" / "deep" / "weights.safetensors") == expected
    assert mode_of(tmp_path / "model" / "deep") == mode_of(tmp_path / "model") == 0o777 & ~mask


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o666, 0o755, 0o2644])
def test_a_file_keeps_its_mode(tmp_path, umask, mode):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path)
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)


def test_a_folder_keeps_its_mode(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    path.chmod(0o2770)
    with new_folder(path):
        pass
    assert mode_of(path) == 0o2770


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(reachable):
    path, other = reachable / "out", reachable / "shared"
    path.write_bytes(b"old, and longer")
    os.chown(path, 1234, 4321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid, path.read_bytes()) == (1234, 4321, b"new")
    # An ordinary user cannot give a file to its owner, but may write into it.
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    path = path.rename(other / "out")
    path.chmod(0o666)
    inode = path.stat().st_ino
    with nobody():
        require_writable(path)
        write(path, b"newer")
    assert (path.stat().st_uid, path.stat().st_ino, path.read_bytes()) == (1234, inode, b"newer")
    assert alone(other) == ["out"]


def test_a_file_in_a_folder_that_is_read_only_is_written_where_it_is(reachable, monkeypatch):
    temporary = reachable / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = reachable / "closed"
    folder.mkdir()
    path = folder / "out"
    path.write_bytes(b"old, and longer")
    path.chmod(0o666)
    folder.chmod(0o555)
    with nobody():
        require_writable(path)
        write(path)
        with pytest.raises(
            InputError, match=r"another: cannot be written \(Permission denied\); name a file in a folder"
        ):
            require_writable(folder / "another")
        with pytest.raises(PermissionError) as caught:
            write(folder / "another")
    assert caught.value.filename == str(folder / "another")
    assert path.read_bytes() == b"new"
    folder.chmod(0o755)


def test_the_target_of_a_link_is_replaced_and_not_the_link(tmp_path):
    disk, link, second = tmp_path / "disk", tmp_path / "out", tmp_path / "again"
    disk.mkdir()
    (disk / "file").write_bytes(b"old")
    link.symlink_to("disk/file")
    second.symlink_to(link)
    write(second)
    assert (link.is_symlink(), second.is_symlink(), (disk / "file").read_bytes()) == (True, True, b"new")
    assert not (disk / "file").is_symlink()
    dangling = tmp_path / "dangling"
    dangling.symlink_to(disk / "not yet" / "made")
    require_writable(dangling)
    write(dangling)
    assert (dangling.is_symlink(), (disk / "not yet" / "made").read_bytes()) == (True, b"new")
    assert alone(disk) == ["file", "not yet"]


def test_the_target_of_a_linked_folder_is_replaced_and_not_the_link(tmp_path):
    (tmp_path / "disk").mkdir()
    files.write_json(1, tmp_path / "disk" / "a.json")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    with new_folder(tmp_path / "out") as folder:
        files.write_json(2, folder / "b.json")
    assert (tmp_path / "out").is_symlink()
    assert alone(tmp_path / "disk") == ["b.json"]


def test_what_is_in_dvcs_cache_stays(tmp_path):
    """With `cache.type: symlink` an output is a link to a file that is named by its hash."""
    cached = tmp_path / "cache/files/md5/0a" / ("b" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"old")
    cached.chmod(0o444)
    path = tmp_path / "out"
    path.symlink_to(cached)
    write(path)
    assert (path.is_symlink(), path.read_bytes(), cached.read_bytes()) == (False, b"new", b"old")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for call in (require_writable, write):
        with pytest.raises(InputError, match="links lead in a circle"):
            call(tmp_path / "a")


def read_pipe(pipe, into):
    reader = threading.Thread(target=lambda: into.append(pipe.read_bytes()))
    reader.start()
    return reader


def test_a_pipe_gets_the_bytes_and_stays(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = read_pipe(pipe, got)
    require_writable(pipe)
    write(pipe, b"rows" * 100_000)
    reader.join()
    assert got == [b"rows" * 100_000]
    assert pipe.is_fifo()
    assert alone(tmp_path) == ["pipe"]


def test_a_pipe_gets_nothing_of_what_failed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(KeyboardInterrupt), replacing(pipe) as file:  # nobody reads: it would wait for ever
        file.write(b"half")
        raise KeyboardInterrupt


def device(tmp_path, minor):
    path = tmp_path / "device"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_stays_a_device(tmp_path):
    null = device(tmp_path, 3)
    require_writable(null)
    write(null)
    assert null.is_char_device()
    null.unlink()
    full = device(tmp_path, 7)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write(full)
    assert caught.value.filename == str(full)


def test_a_disk_is_refused(tmp_path, monkeypatch):
    (tmp_path / "sda").touch()
    monkeypatch.setattr(Path, "is_block_device", lambda path: path.name == "sda")
    with pytest.raises(InputError, match="this is a disk"):
        require_writable(tmp_path / "sda")


PRINT = """
import sys
from pathlib import Path
from tillmap.core.writing import replacing, require_writable
for name in sys.argv[1:]:
    print("before", flush=False)
    require_writable(Path(name))
    with replacing(Path(name)) as file:
        file.write(name.encode() + b"\\n")
print("after")
"""


def test_standard_output_is_written_through(tmp_path):
    # As /dev/stdout is; wrong code could not destroy it.
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    names = ["-", "/dev/fd/1", "/proc/self/fd/1", "link"]
    call = [sys.executable, "-c", PRINT, *names]
    expected = "".join(f"before\n{name}\n" for name in names) + "after\n"
    piped = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert piped.stdout == expected
    kept = tmp_path / "kept"
    kept.write_text("there\n")
    with kept.open("a") as file:
        subprocess.run(call, cwd=tmp_path, stdout=file, check=True)
    assert kept.read_text() == f"there\n{expected}"
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *call], cwd=tmp_path, capture_output=True, check=False)
    assert b"-: standard output is closed" in closed.stderr
    assert alone(tmp_path) == ["kept", "link"]


def test_what_is_standard_output(tmp_path):
    (tmp_path / "link").symlink_to("/dev/stdout")
    for name in ("-", "/dev/stdout", "/dev/../dev/fd/1", tmp_path / "link"):
        assert is_standard_output(Path(name)), name
    for name in ("out", "/dev/stderr", "/dev/fd/10", "/dev/null", tmp_path / "fd" / "1"):
        assert not is_standard_output(Path(name)), name


HOLDER = """
import sys
from pathlib import Path
from tillmap.core.writing import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"theirs")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_mix_their_bytes_and_a_kill_blocks_nobody(tmp_path):
    path = tmp_path / "out"
    call = [sys.executable, "-c", HOLDER, path]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for refused in (require_writable, write):
            with pytest.raises(ResourceError, match="another process is writing this file"):
                refused(path)
        holder.communicate()
    assert path.read_bytes() == b"theirs"
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    assert alone(tmp_path) == [".out.partial", "out"]
    write(path)
    assert (alone(tmp_path), path.read_bytes()) == (["out"], b"new")


def test_a_trap_beside_the_output_is_removed_and_not_followed(tmp_path):
    treasure = tmp_path / "treasure"
    treasure.write_bytes(b"gold")
    (tmp_path / ".out.partial").symlink_to(treasure)
    write(tmp_path / "out")
    assert (alone(tmp_path), treasure.read_bytes()) == (["out", "treasure"], b"gold")


def test_a_file_that_is_mounted_by_itself_is_written_where_it_is(tmp_path, monkeypatch):
    """As `docker run -v out.csv:/out.csv` has it: the name cannot be given to another file."""
    path = tmp_path / "out"
    path.write_bytes(b"old, and longer")
    inode = path.stat().st_ino
    mount = subprocess.run(["mount", "--bind", path, path], check=False, capture_output=True)
    if mount.returncode == 0:
        try:
            write(path)
        finally:
            subprocess.run(["umount", path], check=True)
    else:

        def busy(*_):
            raise OSError(16, "Device or resource busy")

        monkeypatch.setattr(type(path), "replace", busy)
        write(path)
    assert (path.read_bytes(), path.stat().st_ino, alone(tmp_path)) == (b"new", inode, ["out"])


def test_places_that_cannot_be_written_are_told_before_the_work(reachable):
    (reachable / "file").touch()
    for name, said in [
        (".", "this is a folder; name a file in it"),
        ("file/out", "Not a directory"),
        ("x" * 300, "File name too long"),
        ("/proc/out", "cannot be written"),
    ]:
        with pytest.raises(InputError, match=said):
            require_writable(reachable / name)
    (reachable / "file").chmod(0o444)
    with nobody(), pytest.raises(InputError, match=r"file: cannot be written \(it may not be written\)"):
        require_writable(reachable / "file")
    require_writable(reachable / "new" / "folder" / "out")
    assert alone(reachable) == ["file"]


def test_a_failure_leaves_nothing_beside_the_output(tmp_path):
    for call in (replacing, new_folder):
        with pytest.raises(ZeroDivisionError), call(tmp_path / "out"):
            raise ZeroDivisionError
        assert alone(tmp_path) == []


def test_no_room_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk: no file may be longer
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write(path, bytes(2**16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(path)
    assert (alone(tmp_path), path.read_bytes()) == (["out"], b"old")


def test_a_private_file_of_a_colleague_is_not_called_missing(reachable):
    for name in ("a.json", "a.parquet", "a.safetensors"):
        (reachable / name).write_bytes(b"{}")
        (reachable / name).chmod(0)
    with nobody():
        for name, read in [
            ("a.json", files.read_json),
            ("a.json", lambda path: list(files.read_jsonl(path))),
            ("a.parquet", files.read_table),
            ("a.safetensors", read_tensors),
            ("a.safetensors", SparseHeads.load),
            ("a.safetensors", lambda path: run_key({}, [path])),
        ]:
            with pytest.raises(InputError, match=rf"{name}: it is there, but you may not read it; .*chmod -R a\+rX"):
                read(reachable / name)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([1, 2], "row 3 is no row, expected 3"),
        ([1, 3, 2], "row 2 is 3, expected 2"),
        ([1, 2, 3, 3], "row 4 is 3, expected no row"),
    ],
)
def test_lost_doubled_and_moved_rows_are_told(found, said):
    require_same_rows("answers", [1, 2, 3], [1, 2, 3])
    with pytest.raises(LostRowsError, match=f"answers: {said}; nothing was written"):
        require_same_rows("answers", found, [1, 2, 3])


def killed_at(operation, work):
    """Whether a process was killed in place of the N-th call that changes the tree of files."""
    child = os.fork()
    if not child:
        left = [operation]

        def killing(call):
            def changed(*words, **names):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*words, **names)

            return changed

        for name in ("replace", "rename", "mkdir", "rmdir", "unlink", "chmod"):
            setattr(os, name, killing(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(left[0] > 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_change_leaves_the_old_folder_the_new_one_or_none(tmp_path):
    path = tmp_path / "out"

    def make(text):
        with new_folder(path) as folder:
            for name in ("a", "b"):
                (folder / name).write_text(text)

    operation, seen = 1, set()
    make("old")
    while killed_at(operation, lambda: make("new")):
        found = tuple((path / name).read_text() for name in ("a", "b")) if path.exists() else None
        assert found in (("old", "old"), ("new", "new"), None)
        seen.add(found)
        make("old")
        assert [each.name for each in sorted(tmp_path.rglob("*"))] == ["out", "a", "b"]
        operation += 1
    assert len(seen) == 3
    assert [each.name for each in sorted(tmp_path.rglob("*"))] == ["out", "a", "b"]


def test_a_closed_standard_output_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
        with pytest.raises(InputError, match="standard output is closed"):
            require_writable(Path(name))
