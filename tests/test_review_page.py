"""The queue, the search and the answers of the page's server."""

import json
import shutil
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from project import ROOT
from starlette.testclient import TestClient
from trained import make_trained

from review_rows import COFFEE, CREME, GREEN, LEVELS, SCRIPT, TEA, TREE, write_project
from stages.answers import completions_of, predictions_of
from tillmap.arms import schema
from tillmap.catalogue.formats import RowFile, format_of
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.csv_files import to_csv
from tillmap.core.errors import InputError
from tillmap.core.files import write_jsonl, write_table
from tillmap.core.taxonomy import CONTEST, KEY, LabelPath, LabelTree, Levels
from tillmap.evaluation.review import review_arms
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.review import sources
from tillmap.review.decisions import open_log
from tillmap.review.page import Page
from tillmap.review.queue import Queue, ReviewRow, gains, hourly_gains, pace
from tillmap.review.search import PathSearch
from tillmap.review.server import make_app
from tillmap.serving.batch import label_feed
from tillmap.serving.feed import open_feed
from tillmap.serving.labeller import open_arm

TOKEN = "a-token"
BASE = "http://127.0.0.1:8000"


def row(number, text, answer=TEA, confidence=0.5, gain=1.0, **more):
    return ReviewRow(number, text, answer, confidence, gain, **more)


QUEUE = Queue.of(
    [
        row(0, "small", gain=0.1),
        row(1, "Crème fraîche", CREME, 0.4, 2.0, candidates=[(CREME, 0.6), (COFFEE, 0.3)]),
        row(2, "CREME FRAICHE", CREME, 0.6, 0.2, retailer="Lune"),
        row(3, "no answer", None, 0.0, 1.5, candidates=[(GREEN, 0.2)]),
    ],
    total=100,
    source="linear",
)


@pytest.fixture
def page(tmp_path):
    with open_log(tmp_path / "log.jsonl", LEVELS) as log:
        yield Page(QUEUE, log, TREE)


@pytest.fixture
def client(page):
    return TestClient(make_app(page, TOKEN), base_url=BASE, raise_server_exceptions=False)


# --- The queue ---


def test_rows_come_in_the_order_of_their_gain_with_their_twins():
    assert [[row.id for row in item] for item in QUEUE.items] == [[1, 2], [3], [0]]
    assert Queue.of([row(0, "?"), row(1, "!")]).items == ((row(0, "?"),), (row(1, "!"),)), "lines without a word"


def test_the_gains_are_those_of_the_pipelines_table():
    doubts, products = [0.5, 0.75, 0.5, 0.25, 0.125], ["tea", "tea", "soap", "tea", "soap"]
    assert gains(doubts, products) == pytest.approx([0.5 / 3, 1.5, 0.625, 0.25 / 3, 0.0625])


def test_the_pace_leaves_breaks_out():
    start = datetime(2026, 3, 1, tzinfo=UTC)
    steady = [start + timedelta(seconds=12 * step) for step in range(6)]
    assert pace(steady) == pytest.approx(300)
    assert pace([*steady, *(time + timedelta(hours=5) for time in steady)]) == pytest.approx(300)
    assert pace([*steady, *(time - timedelta(hours=5) for time in steady)]) == pytest.approx(300)
    assert pace(steady[:5]) is None
    assert pace([start] * 9) is None, "a clock that stands still"


def test_each_hour_gains_what_its_items_are_expected_to_correct():
    assert hourly_gains([1.0, 0.5, 0.5, 0.25, 0.25], 2, 10) == pytest.approx([0.15, 0.075, 0.025])
    assert hourly_gains([1.0], 240, 10) == [0.1]
    assert hourly_gains([], 240, 10) == []


# --- The search ---


@pytest.mark.parametrize(
    "query, expected",
    [
        ("coffee", [COFFEE]),
        ("bru hot", [COFFEE]),
        ("FRAICHE creme", [CREME]),
        ("crème", [CREME]),
        ("tea", [TEA, GREEN]),  # a label of its own comes before a more frequent path
        ("ee t", [GREEN, COFFEE]),
        ("<script>", [SCRIPT]),
        ("coffee tea", []),
        ("  ", []),
        ("|", []),
    ],
)
def test_paths_are_found_by_any_part_of_any_label(query, expected):
    assert PathSearch(TREE).find(query, 5) == (expected, len(expected))


def test_paths_are_found_by_their_code():
    tree = LabelTree(
        Levels(("a", "b")), (LabelPath("Food", "Bread"), LabelPath("Food", "Rice")), (1, 1), ("1.4", "1.5")
    )
    assert PathSearch(tree).find("1.5", 5)[0][0] == LabelPath("Food", "Rice")


def test_near_paths_share_the_most_labels():
    search = PathSearch(TREE)
    assert search.near(TEA, 9) == [GREEN, COFFEE]
    assert search.near(CREME, 9) == []
    assert search.near(TEA, 1) == [GREEN]


# --- The page ---


def test_a_decision_is_about_the_twins_too_and_the_next_open_row_is_shown(page):
    start = page.start()
    assert start["about"]["levels"] == ["group", "module", "brand"] and start["about"]["source"] == "linear"
    assert start["item"]["text"] == "Crème fraîche"
    assert start["item"]["twins"] == [{"text": "CREME FRAICHE", "retailer": "Lune", "price": ""}]
    assert [path["labels"] for path in start["item"]["candidates"]] == [list(COFFEE)], "without the answer"
    assert start["progress"]["gains"] == [pytest.approx((0.6 + 0.4 + 1.0 + 0.5) / 100)]
    after = page.decide(0, list(COFFEE), twins=True)
    assert after["saved"]["rows"] == 2 and after["item"]["text"] == "no answer"
    assert after["progress"]["decided"] == 2
    assert page.show(0)["item"]["decision"]["labels"] == list(COFFEE)


def test_one_row_alone_leaves_its_twin_open(page):
    page.decide(0, None, twins=False)
    assert page.show(0)["item"]["text"] == "CREME FRAICHE"
    assert page.show(0)["item"]["decision"] is None
    assert page.undo(1)["item"]["text"] == "Crème fraîche"
    assert page.undo(1)["undone"] is None


def test_when_all_is_decided_the_page_stays_and_any_row_can_be_decided_again(page):
    for place in range(3):
        last = page.decide(place, list(TEA), twins=True)
    assert last["place"] == 2 and last["progress"]["decided"] == 4 and last["progress"]["gains"] == []
    assert page.decide(0, list(CREME), twins=True)["progress"]["decided"] == 4
    assert page.show(0)["item"]["decision"]["labels"] == list(CREME)


def test_a_row_without_candidates_gets_paths_near_its_answer(page):
    (*_, last) = (page.show(place)["item"] for place in range(3))
    assert [path["labels"] for path in last["candidates"]] == [list(GREEN), list(COFFEE)]
    assert all("share" not in path for path in last["candidates"])


def test_the_state_survives_a_new_server(tmp_path):
    log_file = tmp_path / "log.jsonl"
    with open_log(log_file, LEVELS) as log:
        Page(QUEUE, log, TREE).decide(0, list(TEA), twins=True)
    with open_log(log_file, LEVELS) as log:
        start = Page(QUEUE, log, TREE).start()
    assert start["item"]["text"] == "no answer" and start["progress"]["decided"] == 2


def test_only_decisions_about_the_queues_rows_are_undone(tmp_path):
    with open_log(tmp_path / "log.jsonl", LEVELS) as log:
        log.decide([row(0, "small")], TEA)
        log.decide([row(0, "of another file")], TEA)
        assert Page(QUEUE, log, TREE).start()["progress"]["last"] == 1


def test_an_empty_queue_is_said(tmp_path):
    with open_log(tmp_path / "log.jsonl", LEVELS) as log, pytest.raises(InputError, match="no row to review"):
        Page(Queue.of([]), log, TREE)


def test_of_ten_thousand_rows_one_is_sent(tmp_path):
    rows = [row(n, f"line number {n}", gain=1 / (n + 1)) for n in range(10_000)]
    with open_log(tmp_path / "log.jsonl", LEVELS) as log:
        page = Page(Queue.of(rows), log, TREE)
        assert len(json.dumps(page.start())) < 2500
        assert len(json.dumps(page.decide(9_999, list(TEA), twins=True))) < 2500


# --- The server ---


def test_every_answer_has_a_strict_policy_and_no_cookie(client):
    for call in ("/", "/review.js", "/review.css", "/colours.css", "/icon.svg", "/start", "/find?q=tea", "/nothing"):
        answer = client.get(f"/{TOKEN}{call}")
        assert answer.status_code == (404 if call == "/nothing" else 200), call
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "require-trusted-types-for 'script'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


def test_the_page_names_no_other_site(client):
    for call in ("/", "/review.js", "/review.css", "/colours.css"):
        text = client.get(f"/{TOKEN}{call}").text
        assert "http://" not in text and "https://" not in text and "//cdn" not in text
        assert "innerHTML" not in text and "style=" not in text and "onclick" not in text


@pytest.mark.parametrize("path", ["/", "/start", "/wrong/start", f"/{TOKEN}x/start", "/é/start", "//start", ""])
def test_without_the_token_there_is_nothing(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "line" not in answer.text
    assert "content-security-policy" in answer.headers
    assert client.post(path, json={"place": 0, "labels": None, "twins": True}).status_code == 404


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1:9", 200),
        ("localhost:9", 200),
        ("evil.example", 400),
        ("evil.example:9", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ],
)
def test_a_name_that_points_here_is_refused(client, host, status):
    assert client.get(f"/{TOKEN}/start", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "call, body, status",
    [
        ("decide", {"place": 0, "labels": list(TEA), "twins": True}, 200),
        ("decide", {"place": 0, "labels": None, "twins": False}, 200),
        ("decide", {"place": 3, "labels": None, "twins": True}, 400),
        ("decide", {"place": -1, "labels": None, "twins": True}, 400),
        ("decide", {"place": True, "labels": None, "twins": True}, 400),
        ("decide", {"place": 0, "twins": True}, 400),
        ("decide", {"place": 0, "labels": None}, 400),
        ("decide", {"place": 0, "labels": ["Hot Drinks", "Soap", "Alder"], "twins": True}, 400),
        ("decide", {"place": 0, "labels": [1, 2, 3], "twins": True}, 400),
        ("decide", [], 400),
        ("decide", {"place": 0, "labels": ["x" * 70_000], "twins": True}, 413),
        ("undo", {"number": "1"}, 400),
        ("undo", {"number": 99}, 200),
    ],
)
def test_only_sound_requests_are_saved(client, page, call, body, status):
    answer = client.post(f"/{TOKEN}/{call}", json=body)
    assert answer.status_code == status, answer.text
    assert bool(page._log.valid) == (status == 200 and call == "decide")
    if status != 200:
        assert answer.json()["error"]


def test_a_disk_without_room_is_said(client, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        answer = client.post(f"/{TOKEN}/decide", json={"place": 0, "labels": list(TEA), "twins": True})
    assert answer.status_code == 507 and answer.json() == {"error": "not saved: No space left on device"}
    assert client.get(f"/{TOKEN}/start").json()["progress"]["decided"] == 0


def test_nobody_leaves_the_folder_of_the_pages_files(client):
    for path in ("/../page.py", "/%2e%2e/page.py", "/..%2fpage.py", "//etc/passwd"):
        assert client.get(f"/{TOKEN}{path}").status_code == 404


# --- Where rows come from ---


def lines_of(path, **fields):
    return open_feed(path, read_params(ROOT / "params.yaml", schema(), ["data"]).data, **fields)


def save(rows, path):
    """Write rows in the format that the file's name says."""
    match path.suffix:
        case ".csv":
            rows.to_csv(path, index=False)
        case ".parquet":
            rows.to_parquet(path)
        case ".jsonl":
            rows.to_json(path, orient="records", lines=True)


def test_a_labelled_file_and_the_lines_beside_it(tmp_path):
    file = write_project(tmp_path) / "labelled.jsonl"
    queue = sources.from_file(RowFile(file), lines_of(file), LEVELS)
    assert queue.source == "linear" and queue.total == 7
    assert len(queue.items) == 6, "two lines are twins"
    one = next(row for item in queue.items for row in item if row.id == 0)
    assert (one.text, one.retailer, one.price, one.answer) == ("TEA BAGS 80", "<i>Shop</i>", "1.50", TEA)

    labelled = pd.read_json(file, lines=True)
    lines = tmp_path / "lines.csv"
    labelled[["indoml_id", "description", "retailer", "price"]].to_csv(lines, index=False)
    for name in ("bare.csv", "bare.parquet", "bare.jsonl"):
        bare = labelled.drop(columns=["description", "retailer", "price"])
        save(bare, tmp_path / name)
        again = sources.from_file(RowFile(tmp_path / name), lines_of(lines), LEVELS)
        assert [[row.text for row in item] for item in again.items] == [
            [row.text for row in item] for item in queue.items
        ]
        with pytest.raises(InputError, match="name the file that was labelled with --rows"):
            sources.from_file(RowFile(tmp_path / name), lines_of(tmp_path / name), LEVELS)
    short = tmp_path / "short.csv"
    labelled[["indoml_id", "description"]].head(3).to_csv(short, index=False)
    with pytest.raises(InputError, match=r"labelled.jsonl:4: .*short.csv has no row with the id 3"):
        sources.from_file(RowFile(file), lines_of(short), LEVELS)


def test_rows_that_pass_the_promised_threshold_are_not_shown(tmp_path):
    file = write_project(tmp_path) / "labelled.jsonl"
    labelled = pd.read_json(file, lines=True).assign(needs_review=[False, True, True, True, False, False, False])
    for name in ("l.csv", "l.parquet", "l.jsonl"):
        save(labelled, tmp_path / name)
        queue = sources.from_file(RowFile(tmp_path / name), lines_of(tmp_path / name), LEVELS)
        assert {str(row.id) for item in queue.items for row in item} == {"1", "2", "3"} and queue.total == 7


def test_paths_may_end_early_and_columns_have_other_names(tmp_path):
    levels = Levels(("division", "class"))
    record = {"sku": "007", "title": "BREAD", "division": "Food", "class": None, "confidence": 0.5}
    write_jsonl([record], tmp_path / "f.jsonl")
    feed = lines_of(tmp_path / "f.jsonl", id="sku", text=["title"])
    ((row_,),) = sources.from_file(RowFile(tmp_path / "f.jsonl"), feed, levels).items
    assert (row_.id, row_.text, row_.answer, row_.retailer, row_.price) == (
        "007", "BREAD", LabelPath("Food", ""), "", "",
    )  # fmt: skip


@pytest.mark.parametrize("confidence", [None, "high", 1.5])
def test_a_row_without_a_confidence_is_refused(tmp_path, confidence):
    file = tmp_path / "f.jsonl"
    write_jsonl([{"indoml_id": 1, "description": "TEA", **LEVELS.of(TEA), "confidence": confidence}], file)
    with pytest.raises(InputError, match=r"f.jsonl:1: `confidence` is missing or not from 0 to 1; label the file"):
        sources.from_file(RowFile(file), lines_of(file), LEVELS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with trained free arms, whose test rows want a review; its rows."""
    folder = tmp_path_factory.mktemp("trained")
    rows = make_trained(folder)
    with chdir(folder):
        tree = sources.known_tree()
        predictions = {arm: predictions_of(arm) for arm in ("linear", "nearest")}
        scores = {arm: candidate_scores(completions_of(arm)) for arm in predictions}
        paths.REVIEW.mkdir(parents=True)
        review_arms(predictions, scores, rows, tree.levels, target=0.97, probability=0.9, folder=paths.REVIEW)
    return folder, rows


def test_the_pipelines_rows_come_with_their_lines_and_candidates(trained, monkeypatch):
    folder, table = trained
    monkeypatch.chdir(folder)
    queue = sources.from_pipeline("linear", CONTEST)
    rows = [row for item in queue.items for row in item]
    wanted = pd.read_csv("data/review/linear_needs_review.csv")
    assert len(rows) == len(wanted) > 20
    assert rows[0].id == wanted["id"][0] and rows[0].gain == wanted["teaches"].max()
    assert queue.total == (table["split"] == "test").sum() and queue.source == "linear"
    texts = {(split, row_id): text for split, row_id, text in table[[*KEY, "description"]].to_numpy()}
    chains = set(sources.known_tree().chains)
    assert set(sources.known_tree()) == set(CONTEST.paths(table[table["split"] == "train"]))
    for each in rows:
        assert texts[each.split, each.id] == each.text
        assert each.candidates
        assert all(CONTEST.chain_of(path) in chains for path, _ in each.candidates)
    with pytest.raises(InputError, match="nothing to review of the llama arm; choose one of linear, nearest"):
        sources.from_pipeline("llama", CONTEST)


def test_the_pipelines_rows_have_the_ids_of_the_users_files(trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    table = trained[1]
    write_table(table.assign(given_id=[f"A-{row_id}" for row_id in table["id"]]), paths.ROWS)
    item, *_ = sources.from_pipeline("linear", CONTEST).items
    assert item[0].id == f"A-{pd.read_csv('data/review/linear_needs_review.csv')['id'][0]}"
    assert item[0].candidates


def test_what_predict_wrote_can_be_reviewed(trained, tmp_path, monkeypatch):
    folder, table = trained
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
    feed = Path("data/demo/test.features")
    labeller = open_arm("linear", read_params(paths.PARAMS, schema()))
    for name in ("labelled.csv", "labelled.parquet"):
        out = tmp_path / name
        reviewed = label_feed(labeller, lines_of(feed), out, format_of(out)).reviewed
        queue = sources.from_file(RowFile(out), lines_of(feed), CONTEST)
        assert queue.total == (table["split"] == "test").sum() and queue.source == "linear"
        assert sum(map(len, queue.items)) == reviewed > 0
        texts = table[table["split"] == "test"].set_index("id")["description"]
        assert all(texts[row.id if type(row.id) is int else int(row.id)] == row.text for (row, *_) in queue.items)


def test_names_such_as_na_are_names(trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    file = Path("data/review/linear_needs_review.csv")
    pd.read_csv(file).assign(retailer="NA", description="null").to_csv(file, index=False)
    (first, *_), *_ = sources.from_pipeline("linear", CONTEST).items
    assert (first.retailer, first.text) == ("NA", "null")


def test_texts_that_a_spreadsheet_would_compute_come_back(trained, tmp_path, monkeypatch):
    shutil.copytree(trained[0] / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    file = Path("data/review/linear_needs_review.csv")
    table = pd.read_csv(file).assign(retailer="@shop", description="'=1+1'", guess_brand="-brand")
    file.write_text(to_csv(table, for_people=True))
    (first, *_), *_ = sources.from_pipeline("linear", CONTEST).items
    assert (first.retailer, first.text, first.answer[-1]) == ("@shop", "'=1+1'", "-brand")
