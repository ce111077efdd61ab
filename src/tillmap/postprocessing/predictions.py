"""Turns completions into predictions: every answer becomes a label path with a confidence."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import exp
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import Embedding, Postprocess
from tillmap.core.files import OFF, write_json, write_table
from tillmap.core.taxonomy import KEY, Key, LabelPath, LabelTree, Levels, RankedPaths, right_labels
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing.calibration import CandidateScores, calibrate, make_signals
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.embedding import Embedder

Completions = Sequence[Mapping[str, Any]]
# The two models of an arm's confidences: from its own answers alone, or together with those of the free arms.
ALONE, TOGETHER = "alone", "together"
HELD_OUT = "held_out.parquet"  # next to them: what they say of the calibration rows, and whether that is right

logger = logging.getLogger(__name__)


def prediction_columns(levels: Levels) -> list[str]:
    """The columns of a predictions table. A level is null where the path has no label."""
    return [*KEY, *levels, "confidence", "repair", "in_tree", "source", "status"]


def predictions_table(
    answers: Iterable[tuple[Key, LabelPath, float, str, bool, str, str]], levels: Levels
) -> pd.DataFrame:
    """The predictions table of some answers: the key, the path, and the values of the columns after the levels."""
    table = [(*key, *(label or None for label in path), *others) for key, path, *others in answers]
    return pd.DataFrame(table, columns=prediction_columns(levels)).astype(dict.fromkeys(levels, "str"))


def make_repairer(rules: AnswerRules, training: LabelTree, settings: Postprocess, embedding: Embedding) -> Repairer:
    """Make the repairer of an arm's answers.

    Args:
        rules: how the arm writes its answers.
        training: the paths of the training subset, for an arm whose rules have no paths.
        settings: the `postprocess` block.
        embedding: the `embedding` block. Its model is only loaded if free text has to be repaired by meaning.
    """
    tree = rules.paths or training
    embed = None
    if rules.free_text and settings.repair and settings.embed:
        embed = _embedder(embedding.model, embedding.revision, embedding.batch_size).encode
    return Repairer(
        tree,
        make_answer_format(rules.format, tree),
        embed=embed,
        unseen_brand=rules.unseen,
        min_score=settings.min_similarity,
        exact_only=not settings.repair,
    )


@cache
def _embedder(model: str, revision: str | None, batch_size: int) -> Embedder:
    """One for all arms of a run, because its model takes seconds to load."""
    return Embedder(model, revision, batch_size)


def predict(completions: Completions, repairer: Repairer, votes: Mapping[Key, RankedPaths], arm: str) -> pd.DataFrame:
    """Make a predictions table: one row per completion, in order.

    Its `confidence` is not calibrated. It is the arm's own confidence (the share of the first candidate, else the
    probability of the text, else 1) times the confidence of the repair. `status` is that of the completion.

    Args:
        completions: the arm's answers, as records.
        repairer: turns texts into label paths.
        votes: the paths of each row's neighbours with weights, by (split, id), for answers that name no path.
        arm: the arm's name, for the column `source`.
    """
    keys = [(answer["split"], answer["id"]) for answer in completions]
    neighbours: list[RankedPaths] = [votes.get(key, ()) for key in keys]
    repaired = repairer.repair_all([answer["text"] for answer in completions], neighbours)
    table = [
        (
            key,
            found.path,
            _own_confidence(answer, found.repair) * found.confidence,
            found.repair,
            found.in_tree,
            arm,
            answer["status"],
        )
        for key, answer, found in zip(keys, completions, repaired, strict=True)
    ]
    return predictions_table(table, repairer.tree.levels)


def calibrate_arm(
    arm: str,
    completions: Completions,
    predictions: pd.DataFrame,
    rows: pd.DataFrame,
    *,
    free: Mapping[str, CandidateScores],
    training: LabelTree,
    folder: Path,
    keep_own: bool = False,
) -> pd.DataFrame:
    """Calibrate an arm's confidences, and save two models of them in a folder, which is made.

    `together` uses the answers of the free arms, too, and gives the confidences returned here. `alone` uses the arm's
    own answers only, so `tillmap predict` can use it where the files of the free arms are missing. A table has the
    cross-fitted confidences of both for the answered calibration rows (`alone`, `together`), `right`, and the number of
    the row's `product`: thresholds for new rows are chosen on it.

    Args:
        arm: the arm's name.
        completions: its answers, as records.
        predictions: its predictions table, in the same order.
        rows: the split's rows.
        free: the candidate scores of the free arms, by name; the arm's own are left out.
        training: the paths of the training subset. The paths of all labelled rows would leak: a path may be known only
            because of the calibration row that is being scored.
        folder: where the models are saved.
        keep_own: whether the arm's own confidences say how likely an answer is right, see `calibrate`.

    Returns the predictions with calibrated confidences; unchanged, with a warning, if no row of the calibration subset
    was answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = {name: scores for name, scores in free.items() if name != arm}
    held_out = rows.loc[rows["subset"] == "calibration", KEY]
    if predictions.merge(held_out, on=KEY).empty:
        logger.warning("%s answered no row of the calibration subset: its confidences are not calibrated", arm)
        write_json({"off": True}, folder / OFF)
        return predictions
    result = predictions
    asked = predictions[KEY].reset_index(drop=True).reset_index(names="place")
    place = asked.merge(rows[rows["subset"] == "calibration"], on=KEY)
    known = place["place"].to_numpy()
    right = right_labels(predictions.iloc[known], place, training.levels).all(axis=1)
    table = pd.DataFrame({"right": right, "product": pd.factorize(place.get("product", place["place"]))[0]})
    for name, scores in ((ALONE, {}), (TOGETHER, others)):
        signals = make_signals(completions, predictions, rows, scores, training)
        result, model = calibrate(predictions, signals, rows, training.levels, keep_own=keep_own)
        replace(model, free=tuple(scores)).save(folder / f"{name}.json")
        table[name] = result["confidence"].to_numpy()[known]
    write_table(table, folder / HELD_OUT)
    return result


def write_off(folder: Path, levels: Levels) -> pd.DataFrame:
    """What is written for an arm that is off: a note in the folder of its confidences, and a table without rows."""
    folder.mkdir(parents=True)
    write_json({"off": True}, folder / OFF)
    return pd.DataFrame([], columns=prediction_columns(levels))


def count_repairs(predictions: pd.DataFrame) -> dict[str, Any]:
    """Count the repairs by kind, and the answers that are not a known path, for a metrics file."""
    kinds = predictions["repair"].value_counts()
    return {
        "rows": len(predictions),
        "repair": {str(kind): int(count) for kind, count in kinds.items()},
        "out_of_tree": int((~predictions["in_tree"]).sum()),
    }


def _own_confidence(answer: Mapping[str, Any], repair: str) -> float:
    if repair == "vote":
        return 1.0  # the label path is the vote's, so only the vote's share counts
    if answer["candidates"]:
        return float(answer["candidates"][0][1])
    return exp(answer["logprob"]) if answer["logprob"] is not None else 1.0
