"""The command line as a user has it: what it writes, how it is resumed, what it says where it cannot, exit codes."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from project import ROOT, kill_when
from trained import TEST, labels_of, make_trained, read_lines, set_params

from command import commands_in
from openai_server import KEY, LocalOpenAI
from stages import postprocess
from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import write_json, write_jsonl, write_table, write_text
from tillmap.core.taxonomy import CONTEST
from tillmap.evaluation.promises import promise
from tillmap.splitting.subsets import rows_to_answer

DRIFT = r"drift: \d+\.\d% of the rows are from retailers and \d+\.\d% have words that training never showed; "
EXPECTED = r"expected accuracy 0\.\d+ \(95% interval [01]\.\d+ to [01]\.\d+\)"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, make_trained(folder)


@pytest.fixture
def tillmap(trained, tmp_path, monkeypatch, capsys):
    """Runs a command in the trained project: gives its exit code and all it said."""
    return commands_in(trained[0], tmp_path / "state", monkeypatch, capsys)


@pytest.fixture
def copied(tillmap, trained, tmp_path, monkeypatch):
    """A copy of the trained project that a test may change; commands run in it."""
    folder = tmp_path / "project"
    shutil.copytree(trained[0], folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def features(trained):
    return trained[0] / "data/demo/test.features"


# predict


@pytest.mark.parametrize("arm", ["nearest", "linear"])
def test_new_rows_are_labelled_as_the_pipeline_labels_them(tillmap, trained, features, tmp_path, arm):
    code, said = tillmap("predict", features, "--arm", arm, "--out", tmp_path / "out.jsonl", "--confidence", "all")
    assert code == 0
    assert re.fullmatch(DRIFT + EXPECTED, said.splitlines()[-1])
    got = read_lines(tmp_path / "out.jsonl")
    pipeline = pd.read_parquet(trained[0] / f"data/predictions/{arm}.parquet").query("split == 'test'")
    assert [(row["indoml_id"], *labels_of(row)) for row in got] == list(
        pipeline[["id", *CONTEST]].itertuples(index=False, name=None)
    )
    assert [row["confidence"] for row in got] == pytest.approx(pipeline["confidence"].tolist(), abs=1e-6)
    assert {(row["repair"], row["in_tree"], row["source"], row["status"]) for row in got} == {("none", True, arm, "ok")}


@pytest.mark.parametrize("source", ["own", "all"])
def test_rows_below_the_promised_threshold_need_a_review(tillmap, copied, features, source):
    column = {"own": "alone", "all": "together"}[source]
    held_out = copied / "models/confidence/linear/held_out.parquet"
    known = pd.concat([pd.read_parquet(held_out)] * 20, ignore_index=True)
    known["product"] = range(len(known))
    write_table(known, held_out)
    target = round(float(known["right"].mean()) + 0.03, 2)  # the surest rows reach it, not all
    set_params(copied, {"review": {"target_accuracy": target}})
    out = copied / "out.parquet"
    code, said = tillmap("predict", features, "--arm", "linear", "--out", out, "--confidence", source)
    found = promise(known[column], known["right"], target, 0.9, new_rows=TEST, product=known["product"])
    got = pd.read_parquet(out)
    assert code == 0 and not found.why
    assert got["needs_review"].tolist() == (got["confidence"] < round(found.value, 6)).tolist()
    assert 0 < got["needs_review"].sum() < TEST
    assert f"needs review: {got['needs_review'].sum()} of {TEST} rows, those with a confidence below" in said
    assert f"at least {target:.0%} are right, with a probability of 90%" in said


def test_with_too_few_rows_to_promise_every_row_needs_a_review(tillmap, copied, features, caplog):
    held_out, out = copied / "models/confidence/linear/held_out.parquet", copied / "out.jsonl"

    def predict():
        code, said = tillmap("predict", features, "--arm", "linear", "--out", out)
        assert code == 0
        return said, read_lines(out)

    write_table(pd.read_parquet(held_out).head(9), held_out)
    said, rows = predict()
    assert "needs review: all rows, because no confidence keeps an accuracy of 0.9" in said
    assert all(row["needs_review"] is True for row in rows)
    held_out.unlink()
    said, rows = predict()
    assert "needs review: all rows, because no accuracy is promised" in said
    assert "held_out.parquet is missing, so no accuracy is promised; `dvc repro postprocess`" in caplog.text
    assert all(row["needs_review"] is True for row in rows)
    set_params(copied, {"review": {"target_accuracy": None}})
    said, rows = predict()
    assert "needs review" not in said and "needs_review" not in rows[0]


def test_every_format_in_and_out_says_the_same(tillmap, features, tmp_path):
    rows = [json.loads(line) for line in features.read_text().splitlines()]
    for row in rows:
        row["price"] = None if row["price"] is None else float(row["price"])
    with (tmp_path / "in.csv").open("w", newline="") as file:
        lines = csv.DictWriter(file, list(rows[0]))
        lines.writeheader()
        lines.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    written = {}
    for source in (features, tmp_path / "in.csv", tmp_path / "in.parquet"):
        for ending in ("jsonl", "csv", "parquet"):
            out = tmp_path / f"{source.suffix}.{ending}"
            assert tillmap("predict", source, "--arm", "linear", "--out", out)[0] == 0
            written.setdefault(ending, []).append(out.read_bytes())
    assert all(len(set(contents)) == 1 for contents in written.values())
    told = [json.loads(line) for line in written["jsonl"][0].splitlines()]
    assert pq.read_table(io.BytesIO(written["parquet"][0])).to_pylist() == told
    texts = list(csv.DictReader(io.StringIO(written["csv"][0].decode())))
    assert [list(map(str, row.values())) for row in told] == [list(row.values()) for row in texts]


def test_a_pipe_with_ids_of_text_and_other_names(tillmap, tmp_path, monkeypatch):
    rows = [{"sku": key, "text": "cad choc 45g"} for key in ("a-1", "007", " b ", "7")]
    piped = io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped))
    out = tmp_path / "out.jsonl"
    code, _ = tillmap("predict", "-", "--arm", "linear", "--id", "sku", "--description", "text", "--out", out)
    assert code == 0
    assert [row["sku"] for row in read_lines(out)] == ["a-1", "007", " b ", "7"]


def test_an_error_of_a_pipe_names_its_line(tillmap, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"indoml_id,description\n1,milk\n2,\n")))
    code, said = tillmap("predict", "-", "--format", "csv", "--arm", "linear", "--out", tmp_path / "out.csv")
    assert code == 1
    assert said.startswith("tillmap: standard input:3: `description` is empty, expected text")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
def test_killed_it_goes_on_and_writes_the_same_bytes(tillmap, trained, features, tmp_path):
    rows = read_lines(features)
    many = tmp_path / "many.jsonl"
    many.write_text(
        "".join(
            json.dumps(rows[number % TEST] | {"indoml_id": f"r{number}", "description": f"{number} {number % 97}"})
            + "\n"
            for number in range(10_000)
        )
    )
    state, out = tmp_path / "killed", tmp_path / "out.csv"
    command = [Path(sys.executable).with_name("tillmap"), "predict", many, "--arm", "linear", "--out", out]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TILLMAP_STATE": str(state)}
    kill_when(lambda: any(state.glob("predict/*/000000.sha256")), command, cwd=trained[0], env=env)
    assert not out.exists()
    done = subprocess.run(command, cwd=trained[0], env=env, text=True, capture_output=True, check=True)
    assert re.search(r"(8192|10000) of 10000 rows were labelled by an earlier run", done.stderr)
    assert not any(state.glob("predict/*"))
    whole = tmp_path / "whole.csv"
    assert (
        tillmap("predict", many, "--arm", "linear", "--out", whole)[1].splitlines()[-1] == done.stdout.splitlines()[-1]
    )
    assert out.read_bytes() == whole.read_bytes()


def test_nothing_of_the_pipeline_is_touched(tillmap, trained, features, tmp_path):
    def look():
        return {path: path.stat().st_mtime_ns for path in trained[0].rglob("*") if path.is_file()}

    before = look()
    assert tillmap("predict", features, "--arm", "nearest", "--out", tmp_path / "out.csv")[0] == 0
    assert look() == before
    code, said = tillmap("predict", features, "--arm", "linear", "--out", "data/predictions/mine.parquet")
    assert (code, "data belongs to the pipeline" in said) == (1, True)


def test_linear_needs_its_own_files_alone_and_the_missing_are_named(tillmap, trained, features, tmp_path, monkeypatch):
    alone = tmp_path / "laptop"
    alone.mkdir()
    (alone / "params.yaml").write_bytes((trained[0] / "params.yaml").read_bytes())
    monkeypatch.chdir(alone)
    out = tmp_path / "out.csv"
    code, said = tillmap("predict", features, "--arm", "linear", "--out", out)
    assert (code, "needs models/linear (missing here); `dvc pull models/linear`" in said) == (1, True)
    code, said = tillmap("predict", features, "--arm", "nearest", "--out", out)
    assert (code, "`dvc pull data/split data/index`" in said) == (1, True)
    (alone / "models").mkdir()
    (alone / "models/linear").symlink_to(trained[0] / "models/linear")
    code, said = tillmap("predict", features, "--arm", "linear", "--out", out)
    assert code == 0
    assert "drift: not known" in said
    assert "expected accuracy: not known" in said
    (alone / "models/seen.json").symlink_to(trained[0] / "models/seen.json")
    (alone / "models/confidence").symlink_to(trained[0] / "models/confidence")
    code, said = tillmap("predict", features, "--arm", "linear", "--out", out)
    assert code == 0
    assert re.search(DRIFT + EXPECTED, said)
    code, said = tillmap("predict", features, "--arm", "linear", "--out", out, "--confidence", "all")
    assert (code, "`dvc pull data/split data/index models/rerank`" in said) == (1, True)


def test_the_openai_arm_asks_a_server_within_a_budget(tillmap, trained, tmp_path, monkeypatch):
    folder = tmp_path / "paid"
    folder.mkdir()
    for name in ("data", "models"):
        (folder / name).mkdir()
    for name in ("params.yaml", "data/split", "data/index", "models/linear"):
        (folder / name).symlink_to(trained[0] / name)
    (folder / "models/openai").mkdir()
    (folder / "models/openai/job.json").write_text(
        json.dumps({"mode": "retrieved", "model": "small", "usd": 0.0, "trained_tokens": 0, "estimated_usd": 0.0})
    )
    known = pd.read_parquet(folder / "data/split/tree.parquet")[list(CONTEST)].iloc[0].tolist()
    (folder / "params.yaml").unlink()
    with LocalOpenAI() as server:
        server.answer = lambda body: f"{known[2]} | {known[3]}" if "milk" in body["messages"][-1]["content"] else ""
        provider = {"base_url": server.base_url, "poll_seconds": 0.01, "settle_seconds": 0.1}
        set_params(
            folder,
            {"run": {"openai": True, "rerank": False}, "openai": {"engine": "openai_server"}, "provider": provider},
        )
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        rows = [{"indoml_id": "a", "description": "milk"}, {"indoml_id": "b", "description": "bread"}]
        feed, out = tmp_path / "feed.jsonl", tmp_path / "out.jsonl"
        feed.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, said = tillmap("predict", feed, "--arm", "openai", "--out", out, "--budget", "0")
        assert (code, "nothing was sent" in said) == (1, True)
        assert not server.calls
        code, said = tillmap("predict", feed, "--arm", "openai", "--out", out)
        assert code == 0, said
    answered, unanswered = read_lines(out)
    assert (answered["indoml_id"], answered["status"], *labels_of(answered)) == ("a", "ok", *known)
    assert (unanswered["indoml_id"], unanswered["status"], unanswered["repair"]) == ("b", "empty", "vote")
    assert "1 of them by the neighbours' vote" in said


# submit


def check_submission(path, name, features):
    """The contest's rules, checked without the project's code."""
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"test_{name}.predict"]
        lines = [json.loads(line) for line in archive.read(f"test_{name}.predict").decode().splitlines()]
    asked = [json.loads(line)["indoml_id"] for line in features.read_text().splitlines()]
    assert [line["indoml_id"] for line in lines] == asked
    assert all(type(line["indoml_id"]) is int for line in lines)
    assert all(list(line) == ["indoml_id", "supergroup", "group", "module", "brand"] for line in lines)
    assert all(type(line[level]) is str and line[level] for line in lines for level in CONTEST)
    return lines


def test_the_zip_keeps_the_contests_rules(tillmap, trained, features, tmp_path):
    written = []
    for number, ending in enumerate(("jsonl", "csv", "parquet")):
        out = tmp_path / f"out.{ending}"
        assert tillmap("predict", features, "--arm", "linear", "--out", out)[0] == 0
        place = tmp_path / f"{number}.zip"
        assert tillmap("submit", out, "--name", "us", "--out", place, "--test", features)[0] == 0
        written.append(place.read_bytes())
    assert tillmap("submit", "--arm", "linear", "--name", "us", "--out", tmp_path / "arm.zip")[0] == 0
    written.append((tmp_path / "arm.zip").read_bytes())
    assert len(set(written)) == 1
    known = {tuple(path) for path in trained[1].query("split == 'train'")[list(CONTEST)].itertuples(index=False)}
    assert {labels_of(line) for line in check_submission(tmp_path / "arm.zip", "us", features)} <= known


def test_a_submission_of_other_rows_is_refused(tillmap, trained, features, tmp_path):
    short, out = tmp_path / "short.jsonl", tmp_path / "out.jsonl"
    short.write_text("".join(features.read_text().splitlines(keepends=True)[:-1]))
    assert tillmap("predict", short, "--arm", "linear", "--out", out)[0] == 0
    code, said = tillmap("submit", out, "--name", "us", "--out", tmp_path / "no.zip")
    assert (code, f"{TEST - 1} rows for the {TEST} of the test file" in said) == (1, True)
    assert not (tmp_path / "no.zip").exists()


@pytest.fixture
def piloted(tmp_path, tillmap, monkeypatch):
    """The trained project after a pilot of rag, which said of ten test rows what linear says; all three vote."""
    folder = tmp_path / "piloted"
    rows = make_trained(folder)
    set_params(folder, {"run": {"rag": True, "pilot_rows": 10}, "postprocess": {"embed": False}})
    monkeypatch.chdir(folder)
    params = read_params(paths.PARAMS, schema())
    asked = rows_to_answer(rows[rows["subset"].isin(["test", "calibration"])], None, params.seed, 10)
    keys = set(asked[["split", "id"]].itertuples(index=False, name=None))
    said = read_lines("data/completions/linear.jsonl")
    write_jsonl((line for line in said if (line["split"], line["id"]) in keys), Path("data/completions/rag.jsonl"))
    shutil.copytree("data/answer_rules/linear", "data/answer_rules/rag")
    postprocess.main(params)
    return folder


def test_a_piloted_arm_is_not_submitted_nor_a_vote_with_it(tillmap, piloted, features, tmp_path):
    out = tmp_path / "no.zip"
    for pilot_rows in (10, None):  # whatever params.yaml says by now
        set_params(piloted, {"run": {"pilot_rows": pilot_rows}})
        for arm in ("rag", "vote"):
            code, said = tillmap("submit", "--arm", arm, "--name", "us", "--out", out)
            assert code == 1
            assert said.startswith(f"tillmap: the {arm} arm was only piloted: it answered 10 of {TEST} test rows")
            assert "`dvc exp run -S run.pilot_rows=null`" in said
            assert not out.exists()
    for arm in ("nearest", "linear"):  # a pilot does not hold back what costs nothing
        assert tillmap("submit", "--arm", arm, "--name", "us", "--out", tmp_path / f"{arm}.zip")[0] == 0
        assert len(check_submission(tmp_path / f"{arm}.zip", "us", features)) == TEST
    set_params(piloted, {"vote": {"arms": ["nearest", "linear"]}})
    postprocess.main(read_params(paths.PARAMS, schema()))
    assert tillmap("submit", "--arm", "vote", "--name", "us", "--out", out)[0] == 0, "of two that answered every row"


def test_an_arm_that_was_off_is_not_submitted(tillmap, tmp_path):
    for arm in ("openai", "cascade"):
        code, said = tillmap("submit", "--arm", arm, "--name", "us", "--out", tmp_path / "no.zip")
        assert (code, f"the {arm} arm was off and has no predictions; switch it on" in said) == (1, True)


# summary


def test_the_summary_shows_the_arms_the_times_and_what_all_rows_would_take(tillmap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = tillmap("summary")
    assert (code, "plots/table.txt is missing; `dvc repro` makes it" in said) == (1, True)
    metrics = {
        "infer/rag": {"infer": {"rag": {"seconds": 61.26, "peak_memory_mib": 2100, "rows": 30}}},
        "train_llama": {"train_llama": {"seconds": 1200.4, "peak_memory_mib": 900}},
        "stratify": {"stratify": {"seconds": 0.5, "peak_memory_mib": 100}},
        "ingest": {"ingest": {"seconds": 0.25, "peak_memory_mib": 150}},
        "train_openai": {"train_openai": {"off": True}},
        "scores": {"scores": {"arms": {}}},
    }
    for name, content in metrics.items():
        write_json(content, Path("metrics") / f"{name}.json")
    write_text("arm      right\nlinear   0.81\n", Path("plots/table.txt"))
    assert tillmap("summary")[0] == 1, "the estimate is missing, too"
    write_text("arm      minutes\nrag      62.1\n", Path("plots/estimate.txt"))
    code, said = tillmap("summary")
    assert code == 0
    places = ("linear   0.81", "Time and memory of each stage", "rag      62.1")
    arms, times, estimate = (said.index(text) for text in places)
    assert arms < times < said.index("Estimate for all test rows") < estimate
    lines = [line.split() for line in said[times:].splitlines()]
    assert [line for line in lines if line and line[0] in ("train_llama", "infer@rag", "2", "all")] == [
        ["train_llama", "1,200.4", "900"], ["infer@rag", "61.3", "2,100"], ["2", "others", "0.8", "150"],
        ["all", "1,262.4", "2,100"],
    ]  # fmt: skip
    assert "openai" not in said and "scores" not in said


# The rest


@pytest.mark.parametrize(
    "words",
    ["predict FEED --arm linear --out OUT --text", "predict FEED --arm linear --out OUT --encoding",
     "predict FEED --arm linear --out", "predict --arm linear --out OUT", "submit --arm linear --out OUT --name",
     "init", "review --rows", "estimate --gpu", "profile"],
)  # fmt: skip
def test_an_empty_value_is_refused_where_it_means_nothing(tillmap, features, tmp_path, words):
    """As a shell gives it for a variable that is not set: `--out "$OUT"`."""
    words = words.replace("FEED", str(features)).replace("OUT", str(tmp_path / "out.csv")).split()
    code, said = tillmap(*words, "")
    assert (code, "it is empty; is a variable of your shell not set?" in said) == (2, True)
    assert tillmap("predict", features, "--arm", "linear", "--out", tmp_path / "out.csv", "--price", "")[0] == 0


def test_wrong_calls_exit_with_2_and_help_with_0(tillmap, features, tmp_path):
    assert tillmap("predict", features, "--out", tmp_path / "x.csv")[0] == 2
    assert tillmap("predict", features, "--arm", "mine", "--out", tmp_path / "x.csv")[0] == 2
    assert tillmap("submit", "--name", "us", "--out", tmp_path / "x.zip")[0] == 2
    assert tillmap("nonsense")[0] == 2
    for command in ("predict", "review", "submit", "summary", "doctor", "profile", "cancel", "prune", "private"):
        code, said = tillmap(command, "--help")
        assert code == 0
        assert "Exit codes: 0 success, 1 an error that you can fix" in said
        assert command in tillmap("--help")[1]


def test_a_users_mistake_is_one_line_and_no_traceback(tillmap, features, tmp_path, monkeypatch):
    cases = [
        (["predict", "nowhere.csv", "--arm", "linear", "--out", tmp_path / "x.csv"], "not there"),
        (["predict", features, "--arm", "linear", "--out", tmp_path / "x.txt"], "--out-format"),
        (["predict", features, "--arm", "linear", "--out", features], "data belongs"),
        (["predict", features, "--arm", "linear", "--out", tmp_path], "this is a folder"),
        (["predict", features, "--arm", "rag", "--out", tmp_path / "x.csv"], "`dvc pull models/base/rag`"),
        (["cancel", "nowhere"], "no run nowhere"),
        (["profile", "nowhere"], "nowhere"),
    ]
    for words, expected in cases:
        code, said = tillmap(*words)
        assert code == 1, words
        assert expected in said
        assert "Traceback" not in said
    monkeypatch.chdir(tmp_path)
    code, said = tillmap("predict", features, "--arm", "linear", "--out", "x.csv")
    assert (code, "run this from the project's root" in said) == (1, True)
