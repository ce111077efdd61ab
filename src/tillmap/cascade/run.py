"""Runs a planned cascade: the trial first, then the routed rows if the trial shows a gain, and the bill."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms._llm import LanguageModelArm
from tillmap.arms.context import Context
from tillmap.cascade import trial
from tillmap.cascade.judge import split_reason
from tillmap.cascade.plan import CascadeInputs, Plan
from tillmap.cascade.roles import ROUTED, TRIAL
from tillmap.config.blocks import Cascade
from tillmap.core.completions import TOKENS, Question
from tillmap.core.taxonomy import KEY, Key, LabelPath
from tillmap.postprocessing.calibration import calibrate, make_signals
from tillmap.postprocessing.predictions import predict
from tillmap.postprocessing.repair import Repairer
from tillmap.providers.inference import prices_of

logger = logging.getLogger(__name__)


@dataclass
class Round:
    """One round of questions: the trial's or the routed rows'.

    Attributes:
        records: the completions, as `Completion.as_record` gives them.
        predictions: the same answers as a predictions table, not calibrated; rows may be in another order.
        notes: what the arm noted: seconds and, for a paid model, estimated_usd.
    """

    records: list[dict[str, Any]]
    predictions: pd.DataFrame
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The cascade's completions (records) and predictions, and what goes into the metrics and the bill."""

    completions: list[dict[str, Any]]
    predictions: pd.DataFrame
    report: dict[str, Any]


def run_cascade(settings: Cascade, context: Context, inputs: CascadeInputs, plan: Plan) -> Outcome:
    """Ask the trial's questions, and the routed rows' questions if the trial shows a gain.

    Where it shows none, the result has the free arm's predictions alone. Raises what the language model's arm raises.
    """
    routes = plan.routes
    free = inputs.predictions.merge(routes[[*KEY, "role"]], on=KEY)
    role = free.pop("role")
    tried = free[role == TRIAL]
    reader, rounds = AnswerReader(settings, context, inputs), []
    judged = trial.Trial(False, _why_idle(routes, inputs.free), 0)
    if len(tried) and (routes["role"] == ROUTED).any():
        first = reader.ask(plan.questions[TRIAL])
        rounds.append(first)
        truth = tried[KEY].merge(context.rows, on=KEY)
        merged = reader.merge(tried, first.predictions)
        judged = trial.judge(
            tried, first.predictions, merged, truth, arm=inputs.free, levels=inputs.levels, seed=context.seed
        )
    logger.info("cascade: %s", judged.reason)
    if judged.routes:
        rounds.append(reader.ask(plan.questions[ROUTED]))
        free = reader.merge(free, reader.calibrate(rounds))
    report = {"trial": judged.report(), **_bill(settings, context, routes, rounds), "rows": len(free)}
    return Outcome([record for each in rounds for record in each.records], free, report)


def _why_idle(routes: pd.DataFrame, free: str) -> str:
    """Why not even the trial is run."""
    if not (routes["role"] == ROUTED).any():
        return f"no row is routed: {free} is above the threshold on every row, or the budget is used up by the trial"
    return (
        f"no row of the calibration subset is below the threshold, so a gain cannot be shown; {free} answers every row"
    )


class AnswerReader:
    """Asks the language model, and turns its answers into predictions with calibrated confidences."""

    def __init__(self, settings: Cascade, context: Context, inputs: CascadeInputs) -> None:
        arm = ARMS[settings.llm]
        assert isinstance(arm, LanguageModelArm)
        self._arm, self._settings, self._context, self._inputs = arm, settings, context, inputs
        self._allowed: dict[Key, set[LabelPath]] = {}

    def ask(self, questions: Sequence[Question]) -> Round:
        """Ask some questions, and read the answers."""
        self._context.notes.clear()
        completions = self._arm.ask(self._context, questions, None)
        records = [answer.as_record() for answer in completions]
        if self._settings.asks == "disagreement":
            for record in records:
                record["text"], record["reason"] = split_reason(record["text"])
        tables = []
        for new, tree in enumerate(self._inputs.trees):  # held-out rows first, then new rows
            answer_format = self._arm.format_for(self._context.settings, tree)
            some = [record for record in records if (record["split"] == "test") == new]
            # No embedding model here: labels are compared by their letters, which is enough to find a candidate. So a
            # change of the `embedding` or `postprocess` params does not rerun this stage.
            repairer = Repairer(tree, answer_format, unseen_brand=True)  # a candidate may pair a known chain and brand
            tables.append(predict(some, repairer, {}, self._settings.llm))
            if self._settings.constrain == "candidates":
                for question in questions:
                    if (question.split == "test") == new:
                        paths = map(answer_format.decode_open, question.choices or question.answers or ())
                        self._allowed[question.split, question.id] = {path for path in paths if path}
        table = pd.concat([table for table in tables if len(table)], ignore_index=True)
        return Round(records, table, dict(self._context.notes))

    def merge(self, free: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
        """`trial.merge` with the paths that the questions allowed."""
        return trial.merge(free, answered, self._allowed or None, self._inputs.levels)

    def calibrate(self, rounds: Sequence[Round]) -> pd.DataFrame:
        """The predictions of all rounds, with confidences calibrated on the trial's rows."""
        table = pd.concat([each.predictions for each in rounds], ignore_index=True)
        records = {(record["split"], record["id"]): record for each in rounds for record in each.records}
        ordered = [records[key] for key in table[KEY].itertuples(index=False, name=None)]
        rows = self._context.rows
        # The tree of the training subset: the other one may hold a path only because of the row that is scored.
        training = self._inputs.trees[0]
        signals = make_signals(ordered, table, rows, self._inputs.scores, training)
        return calibrate(table, signals, rows, training.levels)[0]


def _bill(settings: Cascade, context: Context, routes: pd.DataFrame, rounds: Sequence[Round]) -> dict[str, Any]:
    """What the questions took, and at the same rates the savings on the rows that the free arm answers."""
    new = routes["subset"] != "calibration"
    called = sum(len(each.records) for each in rounds)
    answered = int((new & (routes["role"] == ROUTED)).sum()) if len(rounds) > 1 else 0
    saved = int(new.sum()) - answered
    tokens = {name: sum(record[name] for each in rounds for record in each.records) for name in TOKENS}
    seconds = sum(each.notes["seconds"] for each in rounds)
    found: dict[str, Any] = {"llm": settings.llm, "calls": called, "calls_saved": saved, **tokens}
    found |= {
        "llm_seconds": round(seconds, 2),
        "llm_seconds_saved": round(seconds / called * saved, 2) if called else 0,
    }
    for each in rounds:
        found |= {name: note for name, note in each.notes.items() if name != "seconds"}
    if ARMS[settings.llm].paid:
        assert context.provider is not None
        spent = float(prices_of(context.provider, context.settings, context.job).cost(*tokens.values()))
        found |= {
            "usd": round(spent, 6),
            "usd_saved": round(spent / called * saved, 6) if called else None,
            "estimated_usd": round(sum(each.notes["estimated_usd"] for each in rounds), 2),
        }
    return found
