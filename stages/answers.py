"""Reads what earlier stages wrote about the arms: completions, predictions, confidences and usage."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms.context import QUESTIONS
from tillmap.config import paths
from tillmap.config.blocks import CASCADE, VOTE
from tillmap.config.params import Params
from tillmap.core.stored import read_completions, read_predictions, read_questions, read_training, read_usage
from tillmap.postprocessing.calibration import CandidateScores, Confidence, candidate_scores
from tillmap.postprocessing.predictions import TOGETHER


def completions_of(arm: str) -> list[dict[str, Any]]:
    """An arm's completions, one record per row."""
    return list(read_completions(paths.COMPLETIONS / f"{arm}.jsonl"))


def said_by(arm: str) -> Iterator[dict[str, Any]]:
    """The completions of any arm, of the vote and of the cascade, one record at a time."""
    files = {VOTE: paths.PREDICTIONS / f"{VOTE}.jsonl", CASCADE: paths.CASCADE / "completions.jsonl"}
    return read_completions(files.get(arm, paths.COMPLETIONS / f"{arm}.jsonl"))


def asked_by(arm: str) -> Iterator[dict[str, Any]]:
    """The questions of an arm that asks a language model, one record at a time."""
    if arm != CASCADE:
        return map(vars, read_questions(paths.PROMPTS / arm / QUESTIONS))
    return map(vars, chain(read_questions(paths.CASCADE / "trial.jsonl"), read_questions(paths.CASCADE / QUESTIONS)))


def predictions_of(arm: str) -> pd.DataFrame:
    """An arm's predictions table."""
    folder = paths.CASCADE if arm == CASCADE else paths.PREDICTIONS
    return read_predictions(folder / ("predictions.parquet" if arm == CASCADE else f"{arm}.parquet"))


def usage_of(arm: str) -> dict[str, Any]:
    """What an arm's answers took, see `providers.costs.bill`."""
    return read_usage(paths.CASCADE / "usage.json" if arm == CASCADE else paths.USAGE / f"{arm}.json")


def training_usage(arm: str, usage: dict[str, Any]) -> dict[str, Any] | None:
    """What the training of the arm's model took; None if nothing was trained.

    A cascade that asked a provider's model (`batch` is in its usage) is billed for the training of that model.
    """
    name = str(usage["llm"]) if arm == CASCADE and "batch" in usage else arm
    if name not in ARMS or not ARMS[name].trains:
        return None
    return read_training(paths.USAGE / f"train_{name}.json")


def confidences_of(arms: Sequence[str]) -> dict[str, Confidence]:
    """The confidence model of each arm that has one."""
    files = {arm: paths.CONFIDENCE / arm / f"{TOGETHER}.json" for arm in arms}
    return {arm: Confidence.load(file) for arm, file in files.items() if file.is_file()}


def free_arms(params: Params) -> list[str]:
    """The free arms that are on."""
    return [arm for arm in params.run.on if arm in ARMS and ARMS[arm].free]


def free_scores(params: Params) -> dict[str, CandidateScores]:
    """The candidate scores of the free arms that are on."""
    return {arm: candidate_scores(completions_of(arm)) for arm in free_arms(params)}
