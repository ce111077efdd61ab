"""`tillmap review` as a process: kills, a second page on the same file, Ctrl-C, and the table of corrections."""

import json
import os
import signal
import socket
import subprocess
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from time import monotonic, sleep

import pandas as pd
import pytest

from command import run_command
from review_rows import COFFEE, COMMAND, GREEN, LEVELS, TEA, TREE, ask, environment, serving, write_project
from tillmap.core.files import read_jsonl
from tillmap.review.decisions import open_log, read_decisions
from tillmap.review.page import Page
from tillmap.review.queue import Queue, ReviewRow
from tillmap.review.server import serve

PATHS = (TEA, GREEN, COFFEE)
LINES = 2000


@pytest.fixture
def folder(tmp_path):
    return write_project(tmp_path, [(f"line {number:04}", TEA, 0.5) for number in range(5)])


@pytest.fixture
def tillmap(folder, monkeypatch, capsys):
    """Runs `tillmap review` in the folder, where it fails or ends by itself: gives its exit code and all it said."""
    monkeypatch.chdir(folder)

    def call(*words):
        code, out, err = run_command(monkeypatch, capsys, "review", *words)
        return code, out + err

    return call


@contextmanager
def forked(log_file):
    """A page in a process of its own, which starts at once. Gives its id and address."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        rows = [ReviewRow(number, f"line {number:04}", TEA, 0.5, 1.0) for number in range(LINES)]
        with open_log(log_file, LEVELS) as log:
            serve(Page(Queue.of(rows), log, TREE), 0, lambda address: os.write(writer, address.encode()))
        os._exit(0)
    os.close(writer)
    address = os.read(reader, 200).decode()
    os.close(reader)
    try:
        yield child, address
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def decide_until_killed(address, first):
    """Decide one row after the other. Returns what was said to be saved, by line."""
    saved = {}
    for place in range(first, LINES):
        labels = list(PATHS[place % 3])
        try:
            answer = ask(address, "decide", {"place": place, "labels": labels, "twins": True})
        except (OSError, HTTPException, json.JSONDecodeError):
            break
        saved[f"line {place:04}"] = answer["saved"]["labels"]
    return saved


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_in_the_middle_of_decisions_lose_none_that_was_saved(tmp_path, kills):
    log, saved = tmp_path / "corrections.jsonl", {}
    for kill in range(kills):
        with forked(log) as (child, address), ThreadPoolExecutor() as pool:
            enough = log.stat().st_size + 400 * (2 + kill % 5) + 37 * kill
            deciding = pool.submit(decide_until_killed, address, len(saved) + kill)
            end = monotonic() + 60
            while log.stat().st_size < enough and monotonic() < end:
                sleep(0.0005)
            os.kill(child, signal.SIGKILL)
            new = deciding.result()
        assert new
        saved |= new
        found = {row.text: decision.labels for row, decision in read_decisions(log, LEVELS).current()}
        assert {text: LEVELS.of(labels) for text, labels in saved.items()}.items() <= found.items()
        assert len(found) - len(saved) <= kill + 1, "each kill may leave one that is saved, and nobody was told"


def test_a_kill_a_second_page_and_ctrl_c(folder, tillmap):
    with serving(folder, "--who", "Ana") as (process, address):
        ask(address, "decide", {"place": 0, "labels": list(GREEN), "twins": True})
        code, said = tillmap("labelled.jsonl", "--no-browser")
        assert code == 1 and "another page is open on this file" in said and "Traceback" not in said
        process.send_signal(signal.SIGKILL)
    with serving(folder) as (process, address):
        start = ask(address, "start")
        assert start["progress"]["decided"] == 1 and start["place"] == 1
        ask(address, "decide", {"place": 1, "labels": None, "twins": True})
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0 and errors == ""
        assert "2 decisions in data/decisions.jsonl" in rest
        assert "data/corrections.jsonl: 0 corrections added" in rest, "the start had saved what the kill left"
    code, said = tillmap("--export", "out.csv")
    assert code == 0 and "1 corrections: out.csv" in said
    (row,) = pd.read_csv(folder / "out.csv").to_dict("records")
    assert (row["id"], row["text"], row["who"], row["source"]) == (0, "line 0000", "Ana", "linear")
    assert [row[level] for level in LEVELS] == list(GREEN)
    assert [row[f"answer_{level}"] for level in LEVELS] == list(TEA)
    (saved,) = read_jsonl(folder / "data/corrections.jsonl")
    assert saved["text"] == "line 0000" and saved["who"] == "Ana" and saved["retailer"] == "<i>Shop</i>"


def test_what_the_page_decided_can_be_saved_without_it_and_never_into_a_csv(folder, tillmap):
    code, said = tillmap("--save")
    assert code == 1 and "data/decisions.jsonl: file not found; `tillmap review` writes it" in said
    with open_log(folder / "data/decisions.jsonl", LEVELS) as log:
        log.decide([ReviewRow(1, "line 0001", TEA, 0.5, 1.0)], GREEN)
    code, said = tillmap("--save")
    assert code == 0 and "data/corrections.jsonl: 1 corrections added" in said
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("data/corrections.jsonl", "fixes.csv"))
    code, said = tillmap("labelled.jsonl", "--no-browser")
    assert code == 1 and "set `data.corrections` to the folder" in said and "Traceback" not in said


def test_a_table_of_corrections_destroys_nothing_and_goes_where_it_is_told(folder, tillmap):
    log_file = folder / "data/decisions.jsonl"
    with open_log(log_file, LEVELS) as log:
        log.decide([ReviewRow(1, "line 0001", TEA, 0.5, 1.0)], GREEN)
    kept = log_file.read_bytes()
    (folder / "link.jsonl").symlink_to(log_file)
    for place, says in (
        ("data/decisions.jsonl", "data belongs to the pipeline"),
        ("link.jsonl", "data belongs to the pipeline"),
        ("data/corrections.jsonl", "data belongs to the pipeline"),
        ("/proc/out.csv", "cannot be written"),
        ("out.csv.zip", "a zip is read but not written"),
        ("out.xlsx", "a spreadsheet is neither read nor written"),
    ):
        code, said = tillmap("--export", place)
        assert code == 1 and says in said and len(said.splitlines()) == 1
    log_file.rename(folder / "mine.jsonl")
    code, said = tillmap("--decisions", "mine.jsonl", "--export", "mine.jsonl")
    assert code == 1 and "this is the input" in said
    assert (folder / "mine.jsonl").read_bytes() == kept
    code, said = tillmap("--decisions", "mine.jsonl", "--export", "out.csv.gz")
    assert code == 0 and len(pd.read_csv(folder / "out.csv.gz")) == 1
    code, said = tillmap("--decisions", "mine.jsonl", "--export", "out.parquet")
    assert code == 0 and pd.read_parquet(folder / "out.parquet")["id"].tolist() == [1]


@pytest.mark.parametrize("place", ["-", "/dev/stdout"])
def test_a_table_of_corrections_on_standard_output(folder, place):
    with open_log(folder / "data/decisions.jsonl", LEVELS) as log:
        log.decide([ReviewRow(1, "line 0001", TEA, 0.5, 1.0)], GREEN)
    done = subprocess.run(
        [*COMMAND, "--export", place], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["id"] == 1
    assert f"1 corrections: {place}" in done.stderr


def test_the_page_is_on_this_machine_alone(folder, tillmap):
    with serving(folder) as (_, address):
        port = int(address.split(":")[2].split("/")[0])
        for number in {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), port)} - {"127.0.0.1"}:
            with pytest.raises(OSError):
                socket.create_connection((number, port), timeout=5).close()
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(address, "start", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(address.replace("/" + address.split("/")[3], "/" + "A" * 32), "start")
        code, said = tillmap("labelled.jsonl", "--no-browser", "--port", str(port), "--decisions", "other.jsonl")
        assert code == 1 and "Address already in use; choose another one" in said and "Traceback" not in said


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["missing.jsonl"], "the file is not there"),
        ([], "nothing to review of the rerank arm; run `dvc repro`"),
        (["--export", "out.csv"], "file not found; `tillmap review` writes it"),
        (["--arm", "nobody"], "nothing to review of the nobody arm"),
    ],
)
def test_errors_are_one_line(tillmap, arguments, says):
    code, said = tillmap(*arguments)
    assert code == 1 and says in said and len(said.splitlines()) == 1


def test_without_a_taxonomy_it_says_what_to_do(folder, tillmap):
    (folder / "data/split/tree.parquet").unlink()
    code, said = tillmap("labelled.jsonl")
    assert code == 1 and "data/split/tree.parquet: file not found; run `dvc repro`" in said
