"""A project folder with the nearest and the linear arm trained, made in seconds by the library and without DVC."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from project import ROOT
from ruamel.yaml import YAML

from tillmap.arms import linear, nearest
from tillmap.catalogue.demo import make_demo, write_contest_files
from tillmap.catalogue.source import read_source
from tillmap.core.files import new_folder, write_json, write_table
from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.linear.model import LinearModel, Recipe
from tillmap.postprocessing.calibration import calibrate, candidate_scores, make_signals
from tillmap.postprocessing.predictions import predict
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import neighbours_table
from tillmap.splitting.drift import Seen

TRAIN, TEST = 300, 40


def make_trained(folder):
    """Write params.yaml and what the stages would write of these arms into `folder`; gives the rows table."""
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    set_params(folder, {"run": {"rag": False, "llama": False}})
    write_contest_files(make_demo(TRAIN, TEST, seed=3), folder / "data/demo")
    rows = read_source(folder / "data/demo").rows
    part = np.where(rows["split"] == "test", "test", np.where(rows["id"] % 5 == 0, "calibration", "train"))
    rows.insert(2, "subset", pd.Series(part, dtype="str"))
    training, asked = rows[rows["subset"] == "train"], rows[rows["subset"] != "train"]
    tree = LabelTree.from_rows(training)
    write_table(rows, folder / "data/split/rows.parquet")
    write_table(tree.to_table(), folder / "data/split/tree.parquet")
    lexical = LexicalRetriever.build(training["id"], training["description"].tolist())
    with new_folder(folder / "data/index") as index:
        lexical.save(index)
    model = LinearModel.fit(training, tree, Recipe(epochs=2), seed=1)
    with new_folder(folder / "models/linear") as trained:
        linear.save(model, trained)
    write_json(Seen.of(training).as_json(), folder / "models/seen.json")
    near = neighbours_table(lexical, training, asked, k=20)
    said = {
        "nearest": nearest.completions(nearest.vote(near, training, asked[["split", "id"]])),
        "linear": linear.completions(model.predict(asked), asked),
    }
    said = {arm: [answer.as_record() for answer in answers] for arm, answers in said.items()}
    for arm, completions in said.items():
        predictions = predict(completions, Repairer(tree, nearest.answer_format_of(tree)), {}, arm)
        free = {other: candidate_scores(answers) for other, answers in said.items() if other != arm}
        for name, said_of_it in (("alone", {}), ("together", free)):
            signals = make_signals(completions, predictions, rows, said_of_it, tree)
            calibrated, confidence = calibrate(predictions, signals, rows)
            replace(confidence, free=tuple(said_of_it)).save(folder / f"models/confidence/{arm}/{name}.json")
        write_table(calibrated, folder / f"data/predictions/{arm}.parquet")
    return rows


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
    return tuple(record[level] for level in LEVELS)
