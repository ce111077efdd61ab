"""A taxonomy, a labelled file and a running `tillmap review`, for the tests of the page."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tillmap.core.files import write_table
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels

ROOT = Path(__file__).parents[1]
LEVELS = Levels(("group", "module", "brand"), brand="brand")
COMMAND = (sys.executable, "-c", "from tillmap.cli import run; run()", "review")

TEA = LabelPath("Hot Drinks", "Tea", "Alder")
GREEN = LabelPath("Hot Drinks", "Green Tea", "Alder")
COFFEE = LabelPath("Hot Drinks", "Coffee", "Bruma")
CREME = LabelPath("Dairy", "Crème Fraîche", "Alder")
SCRIPT = LabelPath("Home", "<script>alert(1)</script>", "<b>Bold</b>")
TREE = LabelTree(LEVELS, tuple(sorted((TEA, GREEN, COFFEE, CREME, SCRIPT))), (3, 9, 5, 7, 1))

# The line, the answer and the confidence. The first two have the same product, the second and the third are twins.
ROWS = [
    ("TEA BAGS 80", TEA, 0.3),
    ("<script>alert(1)</script>", SCRIPT, 0.35),
    ("Crème fraîche", CREME, 0.5),
    ("CREME FRAICHE", CREME, 0.6),
    ("<img src=x onerror=alert(2)>", COFFEE, 0.4),
    ("\u202eevil \u0645\u0631\u062d\u0628\u0627 & <b>bold</b>", GREEN, 0.7),
    ("COFFEE BEANS 1KG", COFFEE, 0.95),
]


def write_project(folder, rows=ROWS, tree=TREE):
    """A folder in which `tillmap review labelled.jsonl` runs."""
    (folder / "data/split").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    write_table(tree.to_table(), folder / "data/split/tree.parquet")
    with (folder / "labelled.jsonl").open("w") as file:
        for number, (text, path, confidence) in enumerate(rows):
            record = {"indoml_id": number, "description": text, "retailer": "<i>Shop</i>", "price": 1.5}
            labels = tree.levels.of(path)
            print(json.dumps(record | labels | {"confidence": confidence, "source": "linear"}), file=file)
    return folder


def environment():
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(folder, *arguments):
    """Run `tillmap review` in a folder. Gives the process and the address that it printed."""
    command = [*COMMAND, "labelled.jsonl", "--no-browser", *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            yield process, address
        finally:
            process.kill()


def ask(address, call, body=None, headers=None):
    """The JSON answer of a running page."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + call, data, headers or {}), timeout=30) as answer:
        return json.load(answer)
