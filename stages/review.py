"""The arms' answers only as far down as they are sure, and the rows that a person should label, in useful order."""

import pandas as pd
from runner import Metrics, run

from tillmap.config import paths
from tillmap.config.params import ARMS, Params
from tillmap.core.files import new_folder, read_jsonl, read_table, write_json, write_table, write_text
from tillmap.core.taxonomy import LEVELS
from tillmap.evaluation.metrics import KEY
from tillmap.evaluation.review import hold_back, level_confidences, needs_review
from tillmap.postprocessing.calibration import FREE, candidate_scores

PARAMS = ("run", "review")


def main(params: Params) -> Metrics:
    least = params.review.min_confidence
    with new_folder(paths.REVIEW) as folder:
        if least is None:
            write_json({"off": True}, folder / "off.json")
            return {"off": True}
        rows = read_table(paths.ROWS)
        on = [arm for arm in ARMS if getattr(params.run, arm)]
        free = {
            arm: candidate_scores(list(read_jsonl(paths.COMPLETIONS / f"{arm}.jsonl"))) for arm in FREE if arm in on
        }
        metrics: Metrics = {}
        for arm in on:
            predictions = read_table(paths.PREDICTIONS / f"{arm}.parquet")
            held = hold_back(predictions, level_confidences(predictions, free, rows), least)
            todo = needs_review(held, predictions, rows)
            write_table(held, folder / f"{arm}.parquet")
            write_text(todo.to_csv(index=False, lineterminator="\n"), folder / f"{arm}_needs_review.csv")
            metrics[arm] = count(held.merge(rows.loc[rows["subset"] == "test", KEY], on=KEY)) | {
                "needs_review": len(todo)
            }
    return metrics


def count(held: pd.DataFrame) -> Metrics:
    """How many test rows are answered down to each level."""
    return {level: int((held["answered"] > depth).sum()) for depth, level in enumerate(LEVELS)}


if __name__ == "__main__":
    run(main, PARAMS)
