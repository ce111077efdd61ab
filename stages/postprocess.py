"""Turns every arm's answers into label paths with confidences, and holds the vote."""

import time
from collections.abc import Mapping

import pandas as pd

from stages.answers import completions_of, free_scores
from stages.context import neighbours
from tillmap.arms.rules import AnswerRules
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.blocks import VOTE
from tillmap.config.params import Params
from tillmap.core.files import read_table, require_same_rows, write_json, write_jsonl, write_table
from tillmap.core.stored import read_rows
from tillmap.core.taxonomy import KEY, Key, LabelTree, Levels, RankedPaths
from tillmap.core.writing import new_folder
from tillmap.postprocessing.predictions import calibrate_arm, count_repairs, make_repairer, predict, write_off
from tillmap.postprocessing.voting import choose_voters, hold_election
from tillmap.retrieval.vote import vote, votes_by_key

PARAMS = ("run", "nearest", "embedding", "postprocess", "vote")


def main(params: Params) -> Metrics:
    rows, training = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE))
    arms = [arm for arm in params.run.on if arm in params.run.own_answers]
    voters = choose_voters(params.vote.arms, arms) if params.run.vote else []
    free, votes = free_scores(params), neighbours_votes(params, rows, training.levels)
    tables: dict[str, pd.DataFrame] = {}
    metrics: Metrics = {}
    with new_folder(paths.PREDICTIONS) as answers, new_folder(paths.CONFIDENCE) as confidences:
        for arm in params.run.own_answers:
            if arm not in arms:
                tables[arm] = write_off(confidences / arm, training.levels)
                continue
            completions, rules = completions_of(arm), AnswerRules.load(paths.RULES / arm)
            repairer = make_repairer(rules, training, params.postprocess, params.embedding)
            table = predict(completions, repairer, votes, arm)
            metrics[arm] = count_repairs(table)
            tables[arm] = calibrate_arm(
                arm, completions, table, rows, free=free, training=training, folder=confidences / arm,
                keep_own=rules.calibrated,
            )  # fmt: skip
            answered = [(answer["split"], answer["id"]) for answer in completions]
            require_same_rows(f"the predictions of {arm}", _keys(tables[arm]), answered)
        if voters:
            began, ballots = time.perf_counter(), {arm: tables[arm] for arm in voters}
            elected = hold_election(ballots, {arm: free[arm] for arm in free if arm in voters}, rows, training)
            write_jsonl(elected.completions, answers / f"{VOTE}.jsonl")
            tables[VOTE] = elected.predictions
            shared = set.intersection(*(set(_keys(ballot)) for ballot in ballots.values()))
            voted = [key for key in _keys(tables[voters[0]]) if key in shared]
            require_same_rows(f"the predictions of {VOTE}", _keys(tables[VOTE]), voted)
            metrics[VOTE] = elected.usage(time.perf_counter() - began) | {"voters": voters}
        for arm, table in tables.items():
            write_table(table, answers / f"{arm}.parquet")
    write_json(metrics.get(VOTE, {"off": True}), paths.USAGE / f"{VOTE}.json")
    return metrics


def _keys(table: pd.DataFrame) -> list[Key]:
    return list(table[KEY].itertuples(index=False, name=None))


def neighbours_votes(params: Params, rows: pd.DataFrame, levels: Levels) -> Mapping[Key, RankedPaths]:
    """The label paths of each row's neighbours, best first. They replace answers that name no path."""
    voting, train = params.neighbours_vote, rows["subset"] == "train"
    table = neighbours(voting.retriever)
    return votes_by_key(vote(table, rows[train], rows.loc[~train, KEY], levels, voting.k, voting.power), levels)


if __name__ == "__main__":
    run_stage(main, PARAMS)
