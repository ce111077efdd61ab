"""Plans a cascade before any question is asked: the routed rows, their questions and the most they can cost."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from tillmap.arms import ARMS, proposer
from tillmap.arms._llm import LanguageModelArm
from tillmap.arms.context import Context
from tillmap.cascade import judge, routing
from tillmap.cascade.roles import KEPT, ROUTED, TRIAL
from tillmap.config.blocks import Cascade
from tillmap.core.completions import Question
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import KEY, Key, LabelTree, Levels, right_labels
from tillmap.evaluation.promises import Threshold, promise
from tillmap.llm.interface.inference import plan_generation
from tillmap.postprocessing.calibration import CandidateScores
from tillmap.providers.costs import require_budget
from tillmap.providers.inference import max_costs
from tillmap.retrieval import PATHS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CascadeInputs:
    """What earlier stages found out: the free arms' answers, and the label paths that may be answered.

    Attributes:
        free: the name of the free arm that answers the rows that are not routed.
        predictions: its predictions table, with calibrated confidences.
        scores: the candidate scores of each free arm that is on.
        trees: the paths that held-out rows may be answered with (those of the training subset), and the paths for new
            rows. The second may include paths of held-out rows, which would give a held-out row its own answer.
        probability: that the target accuracy is kept.
        pilot: the test rows that may be asked (split, id); None for all.
    """

    free: str
    predictions: pd.DataFrame
    scores: Mapping[str, CandidateScores]
    trees: tuple[LabelTree, LabelTree]
    probability: float
    pilot: pd.DataFrame | None

    @property
    def levels(self) -> Levels:
        return self.trees[0].levels


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Attributes:
        routes: split, id, subset, confidence and role of each row that the cascade answers.
        questions: those of the roles TRIAL and ROUTED.
        report: a block for the stage's metrics file.
    """

    routes: pd.DataFrame
    questions: Mapping[str, Sequence[Question]]
    report: dict[str, Any]


def check(settings: Cascade, free_arms: Sequence[str]) -> None:
    """Raise ParamsError if the block contradicts itself, or if a free arm is off that it needs."""
    if proposer(free_arms) is None:
        raise ParamsError("run.cascade needs an arm that costs nothing, and all are off; set `-S run.linear=true`")
    if settings.asks == "disagreement" and len(free_arms) < 2:
        raise ParamsError("cascade.asks: disagreement needs a second arm that costs nothing; set `-S run.nearest=true`")
    if settings.target_accuracy is None and settings.budget_usd is None:
        raise ParamsError(
            "cascade: target_accuracy and budget_usd are both null; set one of them to choose the routed rows"
        )
    if settings.budget_usd is not None and not ARMS[settings.llm].paid:
        raise ParamsError(
            f"cascade.budget_usd: the {settings.llm} arm runs on this machine and has no price; "
            "set budget_usd to null, and cascade.target_accuracy to a number"
        )


def make_plan(settings: Cascade, context: Context, inputs: CascadeInputs, budget_usd: float) -> Plan:
    """Plan a cascade.

    Args:
        settings: the `cascade` block.
        context: the context of the language model's arm.
        inputs: what earlier stages found out.
        budget_usd: `provider.budget_usd`, for tuning and answering together; `settings.budget_usd` is for routing.

    Raises ResourceError if a paid model may cost more than `budget_usd`.
    """
    predictions = _free_predictions(settings, context.rows, inputs)
    promised, target = None, settings.target_accuracy
    if target is not None:
        promised = _promise(target, predictions, inputs, int((context.rows["subset"] == "test").sum()))
    threshold = promised.value if promised else float("inf")
    writer = QuestionWriter(settings, context, inputs)
    if settings.budget_usd is not None:
        # The accuracy target sets an upper limit for the threshold; the budget may lower it.
        new = predictions[(predictions["subset"] == "test") & (predictions["confidence"] < threshold)]
        usd = list(writer.usd(writer.questions(new)).values())
        held_out = predictions.loc[predictions["subset"] == "calibration", "confidence"]
        paid = routing.threshold_of_budget(
            new["confidence"], usd, settings.budget_usd, held_out, settings.held_out_rows
        )
        threshold = min(threshold, paid)
    routes = routing.plan_routes(predictions, threshold, settings.held_out_rows, context.seed)
    questions = writer.questions(routes[routes["role"] != KEPT])
    usd_each = writer.usd(questions)
    if settings.budget_usd is not None:
        # The threshold counted each trial row at a mean price. Now that the questions are written, count exactly.
        routes = routing.keep_to_budget(routes, usd_each, settings.budget_usd)
    keys = {role: set(routes.loc[routes["role"] == role, KEY].itertuples(index=False)) for role in (TRIAL, ROUTED)}
    chosen = {role: [each for each in questions if (each.split, each.id) in keys[role]] for role in keys}
    max_usd = {role: sum(usd_each[each.split, each.id] for each in some) for role, some in chosen.items()}
    if writer.arm.paid:
        what = f"the cascade's {sum(map(len, chosen.values()))} rows"
        require_budget(what, Decimal(str(sum(max_usd.values()))), budget_usd, Decimal(str(context.job["usd"])))
    test = routes[routes["subset"] == "test"]
    kept = test[test["role"] == KEPT]
    report = {
        "free": inputs.free,
        "threshold": round(threshold, 6) if np.isfinite(threshold) else None,
        **({"why": promised.why} if promised and promised.why else {}),
        "coverage": round(len(kept) / len(test), 6),
        "expected_accuracy": round(float(kept["expected"].mean()), 6) if len(kept) else None,
        "to_try": len(chosen[TRIAL]),
        "to_ask": len(chosen[ROUTED]),
        "max_usd": {role: round(amount, 6) for role, amount in max_usd.items()},
    }
    shown = routes.assign(confidence=routes["expected"])[[*KEY, "subset", "confidence", "role"]]
    return Plan(shown, chosen, report)


def _free_predictions(settings: Cascade, rows: pd.DataFrame, inputs: CascadeInputs) -> pd.DataFrame:
    """The free arm's predictions joined with their rows, and three columns: `labelled`, `right` and `expected`.

    `right` is about the whole path. `expected` is the arm's confidence. `confidence` is what rows are routed by: the
    same, or with `asks: disagreement` the result of `judge.route_scores`.

    In a pilot only the piloted test rows are there, because no others can be routed.
    """
    levels = inputs.levels
    answers = inputs.predictions[[*KEY, *levels, "confidence"]]
    table = answers.merge(rows, on=KEY, suffixes=("", "_true"))
    true = table[[f"{level}_true" for level in levels]].set_axis(list(levels), axis=1)
    right = np.asarray(right_labels(table, true, levels).all(axis=1))
    table = table.assign(right=right, labelled=levels.labelled(true), expected=table["confidence"])
    if settings.asks == "disagreement":
        agree = judge.agreement(inputs.scores, list(table[KEY].itertuples(index=False, name=None)))
        table["confidence"] = judge.route_scores(table["confidence"].to_numpy(), agree)
    if inputs.pilot is not None:
        piloted = table[KEY].merge(inputs.pilot, on=KEY, how="left", indicator="_in")["_in"].eq("both").to_numpy()
        table = table[piloted | (table["subset"] != "test")].reset_index(drop=True)
    return table


def _promise(target: float, predictions: pd.DataFrame, inputs: CascadeInputs, new_rows: int) -> Threshold:
    """The confidence below which rows are routed, so that the others reach the target accuracy.

    Infinite, which allows every row to be routed, if none can be promised.
    """
    held_out = predictions[predictions["subset"] == "calibration"]
    threshold = promise(
        held_out["expected"], held_out["right"], target, inputs.probability,
        new_rows=new_rows, order=held_out["confidence"], product=held_out.get("product"),
    )  # fmt: skip
    if threshold.why:
        logger.warning("cascade: every row may be routed, because for %s %s", inputs.free, threshold.why)
    return threshold


class QuestionWriter:
    """Writes the questions of the language model's own arm about the candidates, and says what they may cost."""

    def __init__(self, settings: Cascade, context: Context, inputs: CascadeInputs) -> None:
        arm = ARMS[settings.llm]
        assert isinstance(arm, LanguageModelArm)
        self.arm = arm
        self._settings, self._context, self._inputs = settings, context, inputs

    def questions(self, asked: pd.DataFrame) -> list[Question]:
        """The questions about these rows: held-out rows first, then new rows, each in their order.

        They differ in the label paths that may be answered, see `CascadeInputs.trees`.
        """
        chosen, own = self._settings, self._context.settings
        bound = "retrieved" if chosen.constrain == "candidates" else "off"
        judges, lists = chosen.asks == "disagreement", self.arm.lists_paths(own)
        changes: dict[str, Any] = {"retriever": PATHS, "constrain": bound, "widen": None}
        # A model that was tuned to choose is asked about as many candidates as in its training.
        changes |= {} if lists and self.arm.is_tuned(own) else {"candidates": chosen.candidates}
        changes |= {"layout": "list"} if judges else {}
        context = replace(self._context, settings=own.model_copy(update=changes))
        # A model that was tuned without candidates is not shown any by default.
        shown = chosen.show_candidates == "always" or (chosen.show_candidates == "untuned" and lists)
        questions: list[Question] = []
        for new, tree in enumerate(self._inputs.trees):
            some = asked[(asked["split"] == "test") == new]
            written = self.arm.questions_for(context, some, tree, list_paths=shown or judges)
            if judges:
                answer_format = self.arm.format_for(own, tree)
                written = (judge.show_opinions(each, self._inputs.scores, answer_format) for each in written)
            questions += written
        return questions

    def usd(self, questions: Sequence[Question]) -> dict[Key, float]:
        """The most that each question can cost, in dollars by (split, id); 0 if the model runs on this machine."""
        if not self.arm.paid:
            return {(question.split, question.id): 0.0 for question in questions}
        provider, chosen, job = self._context.provider, self._context.settings, self._context.job
        assert provider is not None
        most = max_costs(provider, chosen, job, questions, plan_generation(chosen, self._context.seed, None))
        return {(question.split, question.id): float(usd) for question, usd in zip(questions, most, strict=True)}
