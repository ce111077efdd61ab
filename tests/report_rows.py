"""A small evaluation with hostile lines, labels and answers, and the report of it."""

import numpy as np
import pandas as pd

from tillmap.core.taxonomy import LabelPath, Levels
from tillmap.evaluation.labels_shown import labels_shown
from tillmap.evaluation.page import about_run, render
from tillmap.evaluation.recall import of_whole_paths, recall_of
from tillmap.evaluation.report import draw, make_report
from tillmap.evaluation.rows_shown import choose_rows, rows_shown
from tillmap.retrieval.paths import paths_of_neighbours

LEVELS = Levels(("group", "<b>module</b>", "brand"), brand="brand")
TEA = LabelPath("Hot & Cold", "Tea", "")
SCRIPT = LabelPath("</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(2)>")
HOSTILE = (
    "<script>alert(3)</script>",
    "</script><script>alert(4)</script>",
    "<img src=x onerror=alert(5)>",
    "\u202eevil \u0645\u0631\u062d\u0628\u0627 & <b>bold</b>",
    "</textarea></style><svg onload=alert(6)>",
    "{{ 7 * 7 }} $5 \\ and $9 \u2028",
)
PROMPT = "<iframe src=javascript:alert(7)></iframe>"
RAW = "<script>alert(8)</script>"
TEST = 60


def make_tables(tests=TEST):
    """The rows of a split, and the predictions of two arms: `free` has two thirds right, `asked` a third."""
    subsets = ["train"] * 20 + ["calibration"] * 40 + ["test"] * tests
    rows = pd.DataFrame({"subset": subsets, "retailer": "<i>Shop</i>", "price": 1.5, "product": range(len(subsets))})
    rows.insert(0, "split", np.where(rows["subset"] == "test", "test", "train"))
    rows.insert(1, "id", rows.groupby("split").cumcount())
    rows["description"] = [f"{HOSTILE[number % 6]} {number}" for number in range(len(rows))]
    rows = pd.concat([rows, LEVELS.columns([(TEA, SCRIPT)[number % 2] for number in range(len(rows))])], axis=1)
    asked = rows[rows["subset"] != "train"].reset_index(drop=True)
    predictions = {}
    for arm, wrong in (("free", (0,)), ("asked", (0, 1))):
        paths = LEVELS.paths(asked)
        said = [path if number % 3 not in wrong else (SCRIPT, TEA)[path == SCRIPT] for number, path in enumerate(paths)]
        predictions[arm] = pd.concat([asked[["split", "id"]], LEVELS.columns(said)], axis=1).assign(
            confidence=np.linspace(0.05, 0.95, len(asked)), repair="none", in_tree=True, source=arm, status="ok"
        )
    predictions["asked"] = predictions["asked"].query("split == 'test'").assign(repair="snapped")
    return rows, predictions


def make_shown(rows, predictions, truth):
    keys = predictions["asked"][["split", "id"]].itertuples(index=False, name=None)
    said = [{"split": split, "id": number, "text": RAW, "candidates": None} for split, number in keys]
    free = predictions["free"][["split", "id"]].itertuples(index=False, name=None)
    scored = [
        {"split": split, "id": number, "text": "", "candidates": [[list(SCRIPT), 0.7], ["<u>text</u>", 0.3]]}
        for split, number in free
    ]
    message = [{"role": "user", "content": PROMPT}]
    questions = [{"split": record["split"], "id": record["id"], "messages": message} for record in said]
    near = predictions["free"][["split", "id"]].assign(rank=0, neighbour=1, score=0.5)
    return rows_shown(
        choose_rows(predictions, rows, truth, LEVELS),
        predictions,
        LEVELS,
        truth=truth,
        completions={"free": scored, "asked": said},
        questions={"asked": questions},
        neighbours=near,
        training=rows[rows["subset"] == "train"],
    )


def make_labels(rows):
    """The first 50 labelled rows as suspects: each should have the other path."""
    some = rows[rows["split"] == "train"].head(50).reset_index(drop=True)
    guesses = LEVELS.columns([(SCRIPT, TEA)[path == SCRIPT] for path in LEVELS.paths(some)])
    suspects = pd.concat([some, guesses.add_prefix("guess_")], axis=1).assign(
        level="brand", suspicion=0.9, confidence=0.1, model_own=0.05, model_guess=0.8, votes_own=0.0, votes_guess=1.0
    )
    suspects.loc[0, ["level", "price"]] = ["group", None]
    similar = some[["split", "id"]].assign(rank=0, neighbour=3, score=0.75)
    wrong = {"share": 0.05, "low": 0.03, "high": 0.07, "rows": 12}
    return labels_shown(suspects, similar.head(49), {"rows": 60, "wrong": wrong}, rows, LEVELS)


def make_page(folder, *, audited=True):
    """The report as HTML. The charts are also written to `folder`."""
    rows, predictions = make_tables()
    rows["corrected"] = np.where(rows["id"] < 3, "changed", None)
    truth = rows[rows["subset"] == "test"]
    draws = {"resamples": 50, "seed": 1}
    usage = {arm: {"rows": 60, "rows_per_second": 2.0} for arm in predictions}
    report = make_report(
        predictions, rows, truth, LEVELS, held_back={}, confidences={}, usage=usage, probability=0.9, **draws
    )
    near = predictions["free"][["split", "id"]].assign(rank=0, neighbour=1, score=0.5)
    training = rows[rows["subset"] == "train"]
    recall = recall_of({"lexical": paths_of_neighbours(near, training, LEVELS)}, truth, LEVELS, **draws)
    every = {"rows": 600, "minutes": 5.0, "prompt_tokens": 9, "completion_tokens": 1, "usd": 0.5}
    cost = {"rows": 60, "prompt_tokens": 8, "completion_tokens": 2, "usd": 0.05, "all_rows": every}
    return render(
        report,
        LEVELS,
        run=about_run("<i>data</i>", rows, truth, "60 test rows", dict.fromkeys(predictions, "cpu")),
        params={"seed": 1, "data": {"source": "<i>data</i>"}, "free": {"k": None}},
        drawings=draw(report, recall, {}, LEVELS, folder),
        recall=of_whole_paths(recall),
        costs=dict.fromkeys(predictions, cost),
        minutes=dict.fromkeys(predictions, 0.5),
        rows=make_shown(rows, predictions, truth),
        labels=make_labels(rows) if audited else None,
    )
