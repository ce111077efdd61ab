"""Every answer becomes a label path with a confidence; what it took is written beside it."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from runner import Metrics, run_arm

from tillmap.arms import nearest
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import new_folder, read_jsonl, read_table, write_json, write_table
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.postprocessing.calibration import FREE, CandidateScores, calibrate, candidate_scores, make_signals
from tillmap.postprocessing.predictions import no_predictions, predict
from tillmap.postprocessing.repairing import known_paths, make_repairer

Key = tuple[str, int]
Completions = list[dict[str, Any]]

PARAMS = ("run.{arm}", "{arm}", "nearest", "embedding", "postprocess")

logger = logging.getLogger("tillmap.postprocess")


def main(params: Params, arm: str) -> Metrics:
    rows = read_table(paths.ROWS)
    training = LabelTree.from_table(read_table(paths.TREE))
    tree = known_paths(params, arm, rows)
    completions = list(read_jsonl(paths.COMPLETIONS / f"{arm}.jsonl"))
    votes = neighbours_votes(params, rows, completions)
    predictions = predict(completions, make_repairer(params, arm, tree), votes, arm)
    free = free_candidate_scores(arm)
    held_out = rows.loc[rows["subset"] == "calibration", ["split", "id"]]
    calibrated = predictions
    with new_folder(paths.CONFIDENCE / arm) as folder:
        if predictions.merge(held_out, on=["split", "id"]).empty:
            logger.warning("%s answered no row of the calibration subset: its confidences are not calibrated", arm)
            write_json({"off": True}, folder / "off.json")
        else:
            # Where the free arms' files are not at hand, new rows are judged by what the arm itself says.
            # Not by the tree of all labelled rows: there a row of the calibration subset would speak for its own answer.
            for name, beliefs_ in (("alone", {}), ("together", free)):
                signals = make_signals(completions, predictions, rows, beliefs_, training)
                calibrated, model = calibrate(predictions, signals, rows)
                replace(model, free=tuple(beliefs_)).save(folder / f"{name}.json")
    write_table(calibrated, paths.PREDICTIONS / f"{arm}.parquet")
    return {
        "rows": len(predictions),
        "repair": {str(kind): int(count) for kind, count in predictions["repair"].value_counts().items()},
        "out_of_tree": int((~predictions["in_tree"]).sum()),
    }


def neighbours_votes(
    params: Params, rows: pd.DataFrame, completions: Completions
) -> dict[Key, list[tuple[LabelPath, float]]]:
    """What each row's neighbours would answer, for the rows whose own answer says nothing."""
    neighbours = read_table(paths.NEIGHBOURS / f"{params.nearest.retriever}.parquet")
    asked = pd.DataFrame({name: [answer[name] for answer in completions] for name in ("split", "id")})
    training = rows.loc[rows["subset"] == "train", ["id", *LEVELS]]
    return nearest.votes_by_key(nearest.vote(neighbours, training, asked, params.nearest.k, params.nearest.power))


def free_candidate_scores(arm: str) -> Mapping[str, CandidateScores]:
    """What the free arms other than this one say of each row, those that are off left out."""
    said = {name: list(read_jsonl(paths.COMPLETIONS / f"{name}.jsonl")) for name in FREE if name != arm}
    return {name: candidate_scores(answers) for name, answers in said.items() if answers[0]["status"] != "off"}


def write_off(arm: str) -> None:
    write_table(no_predictions(), paths.PREDICTIONS / f"{arm}.parquet")
    with new_folder(paths.CONFIDENCE / arm) as folder:
        write_json({"off": True}, folder / "off.json")


if __name__ == "__main__":
    run_arm(main, PARAMS, write_off)
