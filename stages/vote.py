"""The arms that are on vote on every row that all of them answered."""

import logging
import time
from collections.abc import Iterator, Sequence

import pandas as pd
from runner import Metrics, run

from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import Completion
from tillmap.core.errors import ParamsError
from tillmap.core.files import read_jsonl, read_table, write_jsonl, write_table
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.evaluation.metrics import KEY
from tillmap.postprocessing import voting as vote
from tillmap.postprocessing.calibration import FREE, CandidateScores, calibrate, candidate_scores, make_signals
from tillmap.postprocessing.predictions import COLUMNS, no_predictions

PARAMS = ("run", "vote")

logger = logging.getLogger("tillmap.vote")


def main(params: Params) -> Metrics:
    arms = [arm for arm in params.vote.arms if getattr(params.run, arm)]
    if not params.run.vote:
        write_jsonl([Completion(None, None, "", "off").as_record()], paths.COMPLETIONS / "vote.jsonl")
        write_table(no_predictions(), paths.PREDICTIONS / "vote.parquet")
        return {"off": True}
    if not arms:
        raise ParamsError(
            f"vote.arms: {', '.join(params.vote.arms)}: every arm is off that could vote; switch one on in `run`, "
            "or the vote off with `-S run.vote=false`"
        )
    began = time.perf_counter()
    rows = read_table(paths.ROWS)
    free = {arm: candidate_scores(list(read_jsonl(paths.COMPLETIONS / f"{arm}.jsonl"))) for arm in FREE if arm in arms}
    tables = [read_table(paths.PREDICTIONS / f"{arm}.parquet") for arm in arms]
    shared = tables[0][KEY]
    for table in tables[1:]:
        shared = shared.merge(table[KEY], on=KEY)
    tables = [shared.merge(table, on=KEY) for table in tables]
    cast = [ballots(table, free.get(arm)) for arm, table in zip(arms, tables, strict=True)]
    keys = list(shared.itertuples(index=False, name=None))
    elected = {key: vote.elect(row) for key, row in zip(keys, zip(*cast, strict=True), strict=True)}
    seconds = time.perf_counter() - began
    completions = [answer.as_record() for answer in vote.completions(elected)]
    write_jsonl(completions, paths.COMPLETIONS / "vote.jsonl")
    tree = LabelTree.from_rows(rows[rows["split"] == "train"])
    predictions = pd.DataFrame(
        [
            (*key, *path, share, "none", path in tree, "vote", "ok")
            for key, ((path, share), *_) in elected.items()
        ],
        columns=COLUMNS,
    )  # fmt: skip
    if rows.loc[rows["subset"] == "calibration", KEY].merge(predictions, on=KEY).empty:
        logger.warning("vote: no row of the calibration subset was answered by all: its confidences are not calibrated")
    else:
        # Of the training subset's tree: in the other a row of the calibration subset would speak for its own answer.
        training = LabelTree.from_table(read_table(paths.TREE))
        signals = make_signals(completions, predictions, rows, free, training)
        predictions, _ = calibrate(predictions, signals, rows)
    write_table(predictions, paths.PREDICTIONS / "vote.parquet")
    answers = (table[list(LEVELS)].itertuples(index=False, name=None) for table in tables)
    agreed = sum(len(set(row)) == 1 for row in zip(*answers, strict=True))
    return {
        "voters": arms,
        "rows": len(predictions),
        "agreed": agreed,
        "rows_per_second": round(len(predictions) / seconds, 2),
    }


def ballots(
    predictions: pd.DataFrame, believed: CandidateScores | None
) -> Iterator[tuple[float, Sequence[tuple[LabelPath, float]]]]:
    """One arm's ballot for each row of its predictions, in order; of a free arm, with all its candidates."""
    for split, row_id, *labels, confidence in predictions[[*KEY, *LEVELS, "confidence"]].itertuples(
        index=False, name=None
    ):
        answer = LabelPath(*labels)
        yield confidence, (believed or {}).get((split, row_id)) or [(answer, 1.0)]


if __name__ == "__main__":
    run(main, PARAMS)
