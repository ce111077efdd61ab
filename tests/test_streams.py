"""`tillmap predict` and `submit` with pipes, devices, links and full disks: each row once, and nothing is destroyed."""

import bz2
import csv
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from project import ROOT
from trained import TEST, make_trained, read_lines

from command import run_command
from stages import infer, postprocess
from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError, LostRowsError, TillmapError
from tillmap.core.files import write_jsonl
from tillmap.core.taxonomy import Levels
from tillmap.serving import batch
from tillmap.serving.feed import open_feed
from tillmap.serving.formats import write_answers
from tillmap.serving.labeller import open_arm

ROWS = b'{"indoml_id": 1, "description": "milk 1l"}\n{"indoml_id": 2, "description": "bread"}\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    make_trained(folder)
    return folder


@pytest.fixture
def tillmap(project, tmp_path, monkeypatch, capfd):
    """Runs a command in the trained project: gives its exit code, standard output and standard error."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))

    return partial(run_command, monkeypatch, capfd)


@pytest.fixture
def feed(tmp_path):
    path = tmp_path / "feed.jsonl"
    path.write_bytes(ROWS)
    return path


def ids(text):
    return [json.loads(line)["indoml_id"] for line in text.splitlines()]


def fed(path, content):
    """A FIFO, and a thread that writes to it."""
    os.mkfifo(path)
    threading.Thread(target=lambda: path.write_bytes(content)).start()
    return path


def device(folder, name, minor):
    """A device that may be lost if the code is wrong: root has one made, and nobody else can harm the machine's own."""
    if os.geteuid() != 0:
        return Path("/dev") / name
    try:
        os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (folder / name).open("wb").close()
    except OSError:
        pytest.skip("no devices can be made here")
    return folder / name


# What goes in


def test_a_pipe_gives_every_row_once(tillmap, tmp_path):
    pipe = fed(tmp_path / "pipe", ROWS)
    assert tillmap("predict", pipe, "--arm", "linear", "--out", tmp_path / "out.jsonl")[0] == 0
    assert ids((tmp_path / "out.jsonl").read_text()) == [1, 2]


def test_a_pipe_to_a_pipe_without_a_line_between_the_rows(tillmap, tmp_path):
    reader, writer = os.pipe()
    os.write(writer, gzip.compress(ROWS))
    os.close(writer)
    code, out, said = tillmap("predict", f"/dev/fd/{reader}", "--arm", "linear", "--out", "-")
    os.close(reader)
    assert code == 0
    assert ids(out) == [1, 2]
    assert "2 rows labelled by linear: -" in said
    assert "expected accuracy" in said


def test_a_bad_row_of_a_pipe_is_named_by_the_pipe(tillmap, tmp_path):
    pipe = fed(tmp_path / "pipe", ROWS + b"{}\n")
    code, _, said = tillmap("predict", pipe, "--arm", "linear", "--out", tmp_path / "out.jsonl")
    assert (code, f"{pipe}:3: `indoml_id` is missing" in said) == (1, True)


def test_bad_rows_that_are_left_out_of_a_stream_are_told(tillmap, tmp_path, caplog):
    pipe = fed(tmp_path / "pipe", ROWS + b"{}\n")
    code, out, _ = tillmap("predict", pipe, "--arm", "linear", "--out", "-", "--on-bad-row", "quarantine")
    assert (code, ids(out)) == (0, [1, 2])
    assert f"1 bad rows were left out; the first:\n{pipe}:3: `indoml_id` is missing" in caplog.text
    assert not Path("-.bad.jsonl").exists()


def test_an_empty_pipe_is_told(tillmap, tmp_path):
    code, _, said = tillmap("predict", "/dev/null", "--arm", "linear", "--out", tmp_path / "out.jsonl")
    assert (code, "/dev/null: there is no row in it" in said) == (1, True)
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_compressed_file_has_the_format_that_its_name_says(tillmap, tmp_path, ending):
    plain = tmp_path / f"rows.{ending}"
    table = pd.DataFrame([json.loads(line) for line in ROWS.splitlines()])
    if ending == "parquet":
        table.to_parquet(plain)
    elif ending == "csv":
        table.to_csv(plain, index=False)
    else:
        plain.write_bytes(ROWS)
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for given in (plain, packed):
        code, out, said = tillmap("predict", given, "--arm", "linear", "--out", "-")
        assert code == 0, said
        assert ids(out) == [1, 2]


# What comes out


def test_devices_pipes_links_and_modes_stay(tillmap, feed, tmp_path):
    disk, link, pipe = tmp_path / "disk.csv", tmp_path / "link.csv", tmp_path / "pipe"
    disk.write_text("old")
    disk.chmod(0o640)
    link.symlink_to(disk)
    assert tillmap("predict", feed, "--arm", "linear", "--out", link)[0] == 0
    assert link.is_symlink()
    assert disk.read_text().startswith("indoml_id,")
    assert stat.S_IMODE(disk.stat().st_mode) == 0o640
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    assert tillmap("predict", feed, "--arm", "linear", "--out", pipe, "--out-format", "csv")[0] == 0
    reader.join()
    assert got == [disk.read_bytes()]
    assert pipe.is_fifo()
    null = device(tmp_path, "null", 3)
    assert tillmap("predict", feed, "--arm", "linear", "--out", null)[0] == 0
    assert null.is_char_device()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_format_goes_through_a_pipe(tillmap, feed, tmp_path, ending):
    code, _, _ = tillmap("predict", feed, "--arm", "linear", "--out", tmp_path / f"out.{ending}")
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert (
        code,
        tillmap("predict", feed, "--arm", "linear", "--out", tmp_path / "pipe", "--out-format", ending)[0],
    ) == (0, 0)
    reader.join()
    assert got == [(tmp_path / f"out.{ending}").read_bytes()]


@pytest.mark.parametrize("ending", ["csv.gz", "jsonl.zst", "csv.bz2", "parquet.gz"])
def test_an_output_is_packed_as_its_name_says(tillmap, feed, tmp_path, ending):
    plain, packed = tmp_path / f"out.{ending.partition('.')[0]}", tmp_path / f"out.{ending}"
    for out in (plain, packed, packed):
        code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", out)
        assert code == 0, said
    if ending.endswith("zst"):
        unpacked = pa.CompressedInputStream(str(packed), "zstd").read()
    else:
        unpacked = {"gz": gzip, "bz2": bz2}[ending[-3:].lstrip(".")].decompress(packed.read_bytes())
    assert unpacked == plain.read_bytes()
    code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", tmp_path / "out.csv.zip")
    assert (code, "a zip is read but not written" in said) == (1, True)


def test_a_place_that_cannot_be_written_is_told_before_the_work(tillmap, feed, tmp_path, monkeypatch):
    def worked(*_):
        raise AssertionError("the work began")

    monkeypatch.setattr(batch, "label_feed", worked)
    monkeypatch.setattr("tillmap.core.inputs.steady", worked)
    (tmp_path / "file").touch()
    for place in ("/proc/out.csv", tmp_path / "file/out.csv", tmp_path / ("x" * 300 + ".csv")):
        code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", place)
        assert (code, "cannot be written" in said) == (1, True)
    code, _, said = tillmap("submit", "--arm", "linear", "--name", "us", "--out", "/proc/out.zip")
    assert (code, "cannot be written" in said) == (1, True)
    assert "Traceback" not in said


def test_a_full_disk_at_the_end_keeps_what_was_labelled(tillmap, feed, tmp_path, caplog):
    full = device(tmp_path, "full", 7)
    code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", full)
    assert code == 1
    assert said.splitlines()[-1] == f"tillmap: {full}: No space left on device; fix that and run the command again"
    assert tillmap("predict", feed, "--arm", "linear", "--out", tmp_path / "out.jsonl")[0] == 0
    assert "2 of 2 rows were labelled by an earlier run" in caplog.text
    assert ids((tmp_path / "out.jsonl").read_text()) == [1, 2]
    assert not any((tmp_path / "state/predict").iterdir())


def test_the_file_to_label_is_not_overwritten(tillmap, feed, tmp_path):
    other, hard = tmp_path / "same.jsonl", tmp_path / "hard.jsonl"
    other.symlink_to(feed)
    hard.hardlink_to(feed)
    with feed.open("r+b") as opened:
        for place in (feed, other, hard, f"/dev/fd/{opened.fileno()}", f"/proc/self/fd/{opened.fileno()}"):
            code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", place)
            assert (code, "this is the input; write to another file" in said) == (1, True)
    assert feed.read_bytes() == ROWS


def test_what_is_open_for_reading_only_is_no_output(tillmap, feed):
    """As standard input is: `--out /dev/fd/0`."""
    with Path("/dev/null").open("rb") as opened:
        code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", f"/dev/fd/{opened.fileno()}")
    assert (code, "this is open for reading only; name a file, or - for standard output" in said) == (1, True)


def test_a_file_that_standard_output_goes_to_is_not_the_one_to_label(project, tmp_path):
    """As a shell opens it: `tillmap predict FILE --out - >> FILE`."""
    feed = tmp_path / "feed.jsonl"
    feed.write_bytes(ROWS)
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TILLMAP_STATE": str(tmp_path / "state")}
    command = [sys.executable, "-m", "tillmap", "predict", "--arm", "linear", "--out"]
    for words, given in ((["-", feed], None), ([feed, "-"], feed), (["-", "-"], feed)):
        with feed.open("ab") as end, feed.open("rb") as start:
            done = subprocess.run(
                [*command, *words],
                cwd=project,
                env=env,
                stdin=start if given else None,
                stdout=end,
                stderr=-1,
                check=False,
            )
        assert (done.returncode, b"this is the input; write to another file" in done.stderr) == (1, True)
        assert feed.read_bytes() == ROWS


def test_a_list_of_bad_rows_that_cannot_be_written_is_told_before_the_work(tillmap, feed, tmp_path):
    listed = tmp_path / "out.csv.bad.jsonl"
    listed.mkdir()
    words = ("predict", feed, "--arm", "linear", "--out", tmp_path / "out.csv")
    code, _, said = tillmap(*words, "--on-bad-row", "quarantine")
    assert (code, f"{listed}: this is a folder" in said) == (1, True)
    assert not (tmp_path / "out.csv").exists()
    assert tillmap(*words)[0] == 0  # without such a list it is in nobody's way


def test_a_list_of_bad_rows_does_not_replace_the_input_nor_an_output_go_into_its_folder(tillmap, tmp_path):
    listed, folder = tmp_path / "out.csv.bad.jsonl", tmp_path / "feed.jsonl"
    folder.mkdir()
    for file in (listed, folder / "part.jsonl"):
        file.write_bytes(ROWS + b"bad\n")
    options = ("--arm", "linear", "--on-bad-row", "quarantine")
    code, _, said = tillmap("predict", listed, *options, "--out", tmp_path / "out.csv")
    assert (code, f"{listed}: this is the input" in said) == (1, True)
    code, _, said = tillmap("predict", folder, *options, "--out", folder / "out.jsonl")
    assert (code, "this is in the folder of the input" in said) == (1, True)
    assert listed.read_bytes() == (folder / "part.jsonl").read_bytes() == ROWS + b"bad\n"
    assert list(folder.iterdir()) == [folder / "part.jsonl"]


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock", "src/x.csv", "models/linear"])
def test_the_project_itself_is_not_overwritten(tillmap, project, feed, name):
    before = (project / "params.yaml").read_bytes()
    for command in (("predict", feed, "--arm", "linear", "--out-format", "csv"), ("submit", feed, "--name", "a")):
        code, _, said = tillmap(*command, "--out", name)
        assert (code, f"{name.partition('/')[0]} belongs to the pipeline" in said or "this is a folder" in said) == (
            1,
            True,
        )
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["group", "brand", "source", "status", "confidence", "in_tree"])
def test_the_column_of_ids_may_be_called_like_an_answer(tillmap, tmp_path, name):
    source = tmp_path / "in.csv"
    source.write_text(f"{name},description\n4711,milk 1l\n0012,bread\n")
    found = {}
    for ending in ("jsonl", "csv", "parquet"):
        out = tmp_path / f"out.{ending}"
        assert tillmap("predict", source, "--arm", "linear", "--id", name, "--out", out)[0] == 0
    found["jsonl"] = read_lines(tmp_path / "out.jsonl")
    found["csv"] = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    found["parquet"] = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for rows in found.values():
        assert [row[name] for row in rows] == ["4711", "0012"]
        assert len(rows[0]) == 11
        assert rows[0][f"answer_{name}"] not in ("", "4711")
    assert found["jsonl"] == found["parquet"]


def test_a_submission_from_pipes_and_to_one(tillmap, project, tmp_path):
    features, out = project / "data/demo/test.features", tmp_path / "out.jsonl"
    assert tillmap("predict", features, "--arm", "linear", "--out", out)[0] == 0
    words = ("submit", "--name", "us", "--out")
    assert tillmap(*words, tmp_path / "plain.zip", out, "--test", features)[0] == 0
    answers, asked = fed(tmp_path / "answers", out.read_bytes()), fed(tmp_path / "asked", features.read_bytes())
    assert tillmap(*words, tmp_path / "piped.zip", answers, "--test", asked)[0] == 0
    assert (tmp_path / "piped.zip").read_bytes() == (tmp_path / "plain.zip").read_bytes()
    null = device(tmp_path, "null", 3)
    assert f"{TEST} rows in test_us.predict: {null}" in tillmap(*words, null, out)[1]


# Each row once


@pytest.fixture
def labeller(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    return open_arm("linear", read_params(paths.PARAMS, schema()))


@pytest.mark.parametrize("when", ["before the labels", "before the output"])
def test_a_feed_that_changes_while_it_is_labelled_gives_no_output(labeller, feed, tmp_path, monkeypatch, when):
    out = tmp_path / "out.jsonl"

    def changed(before):
        def call(*arguments, **options):
            with feed.open("ab") as file:
                file.write(b'{"indoml_id": 3, "description": "late"}\n')
            return before(*arguments, **options)

        return call

    name = "_key" if when == "before the labels" else "write_answers"
    monkeypatch.setattr(batch, name, changed(getattr(batch, name)))
    with pytest.raises(InputError, match="it changed while it was read"):
        batch.label_feed(labeller, open_feed(feed, labeller.params.data), out, "jsonl")
    assert not out.exists()
    assert (when == "before the labels") != any((tmp_path / "state").rglob("*.parquet")), (
        "no answers under a wrong name"
    )


def test_an_arm_that_loses_a_row_gives_no_output(labeller, feed, tmp_path, monkeypatch):
    label = type(labeller).label
    monkeypatch.setattr(type(labeller), "label", lambda *a, **options: label(*a, **options).iloc[1:])
    with pytest.raises(LostRowsError, match="linear gave 1 answers to 2 rows; nothing was written"):
        batch.label_feed(labeller, open_feed(feed, labeller.params.data), tmp_path / "out.jsonl", "jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    assert not any((tmp_path / "state").rglob("*.parquet"))


def cut(piece):
    piece.write_bytes(piece.read_bytes()[:-9])


def turn(piece):
    pd.read_parquet(piece).iloc[::-1].to_parquet(piece)


@pytest.mark.parametrize("damage", [cut, turn])
def test_a_saved_batch_that_is_damaged_is_made_again(labeller, feed, tmp_path, caplog, damage):
    def label():
        batch.label_feed(labeller, open_feed(feed, labeller.params.data), tmp_path / "out.jsonl", "jsonl")
        return (tmp_path / "out.jsonl").read_bytes()

    unbroken = label()
    with patch.object(batch, "write_answers", nullcontext), pytest.raises(TypeError):  # as it takes other arguments
        label()
    (piece,) = (tmp_path / "state").rglob("*.parquet")
    damage(piece)
    assert label() == unbroken
    assert f"{piece}: damaged, so its rows are labelled again" in caplog.text


def test_a_saved_batch_that_lost_a_row_gives_no_output(labeller, feed, tmp_path, monkeypatch):
    read = batch.read_table
    monkeypatch.setattr(batch, "read_table", lambda path: read(path).iloc[1:])
    with pytest.raises(LostRowsError, match=r"state/predict/\w+: delete this folder; it gave 1 answers to 2 rows"):
        batch.label_feed(labeller, open_feed(feed, labeller.params.data), tmp_path / "out.jsonl", "jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_writer_counts_its_rows(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    path.write_text("old")
    row = {"key": "a", "supergroup": "s", "group": "g", "module": "m", "brand": "b", "confidence": 0.5}
    answers = pd.DataFrame(
        [row | {"repair": "none", "in_tree": True, "source": "linear", "status": "ok", "needs_review": True}]
    )
    shape = {"numbers": False, "levels": Levels(("supergroup", "group", "module", "brand"), "brand"), "codes": False}
    for rows in (0, 2):
        with (
            pytest.raises(LostRowsError, match=f"1 rows were to be written, but {rows} were read"),
            write_answers(path, ending, "id", rows=rows, **shape) as write,
        ):
            write(answers)
    assert path.read_text() == "old"
    with write_answers(path, ending, "id", rows=1, **shape) as write:
        write(answers)
    assert path.read_bytes() != b"old"


def test_stages_write_no_answers_where_rows_are_lost(tmp_path, monkeypatch):
    make_trained(tmp_path)
    monkeypatch.chdir(tmp_path)
    params = read_params(paths.PARAMS, schema())
    completions = Path("data/completions/linear.jsonl")
    before = completions.read_bytes()
    answer = type(ARMS["linear"]).answer
    for lost in (lambda answers: answers[1:], lambda answers: answers[:1] + answers, lambda answers: answers[::-1]):
        monkeypatch.setattr(type(ARMS["linear"]), "answer", lambda *a, lost=lost: lost(list(answer(*a))))
        with pytest.raises(LostRowsError, match=r"the answers of linear: row \d is"):
            infer.main(params, "linear")
    assert completions.read_bytes() == before
    for name in ("predict", "calibrate_arm"):
        with monkeypatch.context() as patched:
            found = getattr(postprocess, name)
            patched.setattr(postprocess, name, lambda *a, found=found, **options: found(*a, **options).iloc[:-1])
            with pytest.raises(TillmapError, match=r"the predictions of nearest: row|not of the same rows"):
                postprocess.main(params)
    predictions = Path("data/predictions/nearest.parquet").read_bytes()
    postprocess.main(params)
    assert Path("data/predictions/nearest.parquet").read_bytes() == predictions
    lines = read_lines(completions)
    write_jsonl(lines[:-3], completions)  # a vote is of the rows that all have answered
    postprocess.main(params)
    assert len(pd.read_parquet("data/predictions/vote.parquet")) == len(lines) - 3


# As a shell has it


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["<(zcat {0}.gz) --out -", "/dev/stdin --out >(cat) < {0}", "- --out /proc/self/fd/1 < {0}"]
)
def test_what_shells_offer(project, feed, tmp_path, words):
    feed.with_name("feed.jsonl.gz").write_bytes(gzip.compress(ROWS))
    program = Path(sys.executable).with_name("tillmap")
    line = f'"{program}" predict --arm linear {words.format(feed)} | cat'
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TILLMAP_STATE": str(tmp_path / "state")}
    done = subprocess.run(["bash", "-c", line], cwd=project, env=env, text=True, capture_output=True, check=True)
    assert ids("".join(line for line in done.stdout.splitlines(keepends=True) if line.startswith("{"))) == [1, 2]


def test_the_reader_of_a_pipe_that_ends_early_is_no_traceback(tillmap, feed, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    code, _, said = tillmap("predict", feed, "--arm", "linear", "--out", f"/dev/fd/{writer}")
    os.close(writer)
    assert code == 1
    assert "Traceback" not in said
