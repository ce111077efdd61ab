"""Runs a planned cascade: tries the language model, asks it the rest where that gains, and bills it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms._llm import LanguageModelArm
from tillmap.arms.context import Context
from tillmap.cascade import trial
from tillmap.cascade.plan import Known, Plan
from tillmap.cascade.roles import ROUTED, TRIAL
from tillmap.config.blocks import Cascade
from tillmap.core.completions import Question
from tillmap.core.taxonomy import KEY, LabelPath
from tillmap.postprocessing.calibration import calibrate, make_signals
from tillmap.postprocessing.predictions import COLUMNS, predict
from tillmap.postprocessing.repair import Repairer
from tillmap.providers.inference import prices_of

logger = logging.getLogger(__name__)
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")


@dataclass
class Asked:
    """What was asked together: the completions (records), the same as predictions, and what the arm noted."""

    records: list[dict[str, Any]]
    predictions: pd.DataFrame
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The cascade's completions (records) and predictions, and what goes into the metrics and the bill."""

    completions: list[dict[str, Any]]
    predictions: pd.DataFrame
    report: dict[str, Any]


def run_cascade(settings: Cascade, context: Context, known: Known, plan: Plan) -> Outcome:
    """Ask the trial's questions first, and the others only where the trial shows a gain."""
    routes = plan.routes
    linear = known.predictions.merge(routes[[*KEY, "role"]], on=KEY)
    free, tried = linear[COLUMNS], linear.loc[linear["role"] == TRIAL, COLUMNS]
    reader, asked = Reader(settings, context, known), []
    judged = trial.Trial(False, _why_idle(routes), 0)
    if len(tried) and (routes["role"] == ROUTED).any():
        first = reader.ask(plan.questions[TRIAL])
        asked = [first]
        truth = tried[KEY].merge(context.rows, on=KEY)
        merged = reader.merge(tried, first.predictions)
        judged = trial.judge(tried, first.predictions, merged, truth, context.seed)
    logger.info("cascade: %s", judged.reason)
    if judged.routes:
        asked.append(reader.ask(plan.questions[ROUTED]))
        free = reader.merge(free, reader.calibrate(asked))
    report = {"trial": judged.report(), **_bill(settings, context, routes, asked), "rows": len(free)}
    return Outcome([record for some in asked for record in some.records], free, report)


def _why_idle(routes: pd.DataFrame) -> str:
    """Why no language model is asked at all."""
    if not (routes["role"] == ROUTED).any():
        return "no row is routed: linear is sure of all, or the budget pays for no more than the trial"
    return "no row of the calibration subset is below the threshold, so no gain can be shown; linear answers every row"


class Reader:
    """Asks, and reads the answers: to paths, and how sure they are."""

    def __init__(self, settings: Cascade, context: Context, known: Known) -> None:
        arm = ARMS[settings.llm]
        assert isinstance(arm, LanguageModelArm)
        self._arm, self._settings, self._context, self._known = arm, settings, context, known
        self._allowed: dict[tuple[str, int], set[LabelPath]] = {}

    def ask(self, questions: Sequence[Question]) -> Asked:
        """The answers to some questions, and as predictions, not calibrated, in the same order."""
        self._context.notes.clear()
        completions = self._arm.ask(self._context, questions, None)
        records = [answer.as_record() for answer in completions]
        tables = []
        for new, tree in enumerate(self._known.trees):
            answer_format = self._arm.format_for(self._context.settings, tree)
            some = [record for record in records if (record["split"] == "test") == new]
            # By letters alone, which finds a candidate, so that this stage with its models waits for no other's params.
            tables.append(predict(some, Repairer(tree, answer_format), {}, self._settings.llm))
            if self._settings.constrain == "candidates":
                for asked in questions:
                    if (asked.split == "test") == new:
                        paths = map(answer_format.decode, asked.answers or ())
                        self._allowed[asked.split, asked.id] = {path for path in paths if path}
        table = pd.concat([table for table in tables if len(table)], ignore_index=True)
        return Asked(records, table, dict(self._context.notes))

    def merge(self, free: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
        return trial.merge(free, answered, self._allowed or None)

    def calibrate(self, asked: Sequence[Asked]) -> pd.DataFrame:
        """All the answers, as sure as those of the trial turned out to be."""
        table = pd.concat([some.predictions for some in asked], ignore_index=True)
        records = {(record["split"], record["id"]): record for some in asked for record in some.records}
        ordered = [records[key] for key in table[KEY].itertuples(index=False, name=None)]
        rows = self._context.rows
        # The training subset's tree: in the other a row of the calibration subset would speak for its own answer.
        signals = make_signals(ordered, table, rows, self._known.scores, self._known.trees[False])
        return calibrate(table, signals, rows)[0]


def _bill(settings: Cascade, context: Context, routes: pd.DataFrame, asked: Sequence[Asked]) -> dict[str, Any]:
    """What was asked of the test rows, what that took, and what asking all of them would have taken besides."""
    new = routes["subset"] != "calibration"
    called = sum(len(some.records) for some in asked)
    answered = int((new & (routes["role"] == ROUTED)).sum()) if len(asked) > 1 else 0
    saved = int(new.sum()) - answered
    tokens = {name: sum(record[name] for some in asked for record in some.records) for name in _TOKENS}
    seconds = sum(some.notes["seconds"] for some in asked)
    found: dict[str, Any] = {"llm": settings.llm, "calls": called, "calls_saved": saved, **tokens}
    found |= {
        "llm_seconds": round(seconds, 2),
        "llm_seconds_saved": round(seconds / called * saved, 2) if called else 0,
    }
    for some in asked:
        found |= {name: note for name, note in some.notes.items() if name != "seconds"}
    if ARMS[settings.llm].paid:
        assert context.provider is not None
        spent = float(prices_of(context.provider, context.settings, context.job).cost(*tokens.values()))
        found |= {
            "usd": round(spent, 6),
            "usd_saved": round(spent / called * saved, 6) if called else None,
            "estimated_usd": round(sum(some.notes["estimated_usd"] for some in asked), 2),
        }
    return found
