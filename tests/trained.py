"""A project folder with the free arms trained, made in seconds by the stages' own code without DVC."""

import json
import shutil
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from project import ROOT
from ruamel.yaml import YAML

from stages import candidates, catalogue, infer, ingest, postprocess, stratify, train
from tillmap.arms import ARMS, schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import new_folder, read_table, write_table
from tillmap.core.taxonomy import CONTEST
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
        index_rows(read_table(paths.ROWS), params.retrieval)
        train.main(params, "linear")
        train.main(params, "rerank")
        for arm in (arm for arm in ARMS if ARMS[arm].free):
            infer.main(params, arm)
        candidates.main(params)
        postprocess.main(params)
    return folder


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
