"""A project folder with the free arms trained, made in seconds by the stages' own code without DVC."""

import json
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from project import ROOT
from ruamel.yaml import YAML

from stages import audit, candidates, catalogue, evaluate, infer, ingest, postprocess, stratify, train
from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import read_table, write_table
from tillmap.core.taxonomy import CONTEST
from tillmap.core.writing import new_folder
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import neighbours_table

TRAIN, TEST = 300, 40


def make_trained(folder):
    """Write params.yaml and what the stages write of the free arms into `folder`; gives the rows table."""
    shutil.copytree(_original().name, folder, dirs_exist_ok=True)
    return read_table(folder / paths.ROWS)


QUICK_RERANK = {"folds": 2, "trees": 10, "candidates": 20}


@cache
def _original():
    """The project that all others are copies of.

    The stages run in this process. `index` and `retrieve` alone do not: they load the model of meaning, which no free
    arm needs here, so the lexical index and its neighbours are all there is.
    """
    folder = TemporaryDirectory(prefix="trained-")
    shutil.copytree(ROOT / "requirements", Path(folder.name) / "requirements")
    demo = {"train_rows": TRAIN, "test_rows": TEST}
    off = {"rag": False, "llama": False, "pilot_rows": None}
    set_params(Path(folder.name), {"run": off, "demo": demo, "linear": {"epochs": 2}, "rerank": QUICK_RERANK})
    with chdir(folder.name):
        params = read_params(paths.PARAMS, schema())
        Path("data").mkdir()
        Path(params.data.corrections).touch()
        for stage in (catalogue, ingest, stratify):
            stage.main(params)
        answer_freely(params)
        postprocess.main(params)
    return folder


def answer_freely(params):
    """After `stratify`: the index, the models and the answers of the free arms, and the candidates, in this folder."""
    index_rows(read_table(paths.ROWS), params.retrieval)
    for arm in ("linear", "rerank"):
        train.main(params, arm)
    for arm in (arm for arm in ARMS if ARMS[arm].free):
        infer.main(params, arm)
    candidates.main(params)


def evaluate_freely(params):
    """After `answer_freely`: the predictions, the audit and the scores, with all other arms off.

    The report has no drawings: tests/test_report.py draws all shapes.
    """
    for arm in (arm for arm in ARMS if not ARMS[arm].free):
        infer.write_off(arm)
    for name in ("dense", "hybrid"):
        write_table(read_table(paths.NEIGHBOURS / "lexical.parquet"), paths.NEIGHBOURS / f"{name}.parquet")
    postprocess.main(params)
    audit.main(params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tillmap.evaluation.report.draw", lambda *_: {})
        evaluate.main(params)


def index_rows(rows, settings):
    """Write the lexical index of the training rows, and the neighbours of all others."""
    training, asked = rows[rows["subset"] == "train"], rows[rows["subset"] != "train"]
    lexical = LexicalRetriever.build(training["id"].to_numpy(), training["description"].tolist(), sizes=settings.sizes)
    with new_folder(paths.INDEX) as index:
        lexical.save(index)
    write_table(neighbours_table(lexical, training, asked, settings.k), paths.NEIGHBOURS / "lexical.parquet")


def set_params(folder, changes):
    yaml = YAML()
    there = folder / "params.yaml"
    params = yaml.load(there if there.is_file() else ROOT / "params.yaml")
    for block, values in changes.items():
        params[block].update(values)
    with there.open("w") as file:
        yaml.dump(params, file)


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def labels_of(record):
    return tuple(record[level] for level in CONTEST)
