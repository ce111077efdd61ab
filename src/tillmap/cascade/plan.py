"""Plans a cascade: which rows are routed, the questions about them, and what asking may cost, before any is asked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms._llm import LanguageModelArm
from tillmap.arms.context import Context
from tillmap.cascade import routing, trial
from tillmap.cascade.roles import FREE_ARM, KEPT, ROUTED, TRIAL
from tillmap.config.blocks import Cascade
from tillmap.core.completions import Question
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import KEY, LEVELS, LabelPath, LabelTree, right_labels
from tillmap.evaluation.calibration_curves import threshold_for_use
from tillmap.llm.interface.few_shot import FewShotExamples
from tillmap.postprocessing.calibration import CandidateScores
from tillmap.providers.costs import TokenCounter, require_budget
from tillmap.providers.inference import prices_of
from tillmap.retrieval.vote import vote, votes_by_key

logger = logging.getLogger(__name__)
Key = tuple[str, int]


@dataclass(frozen=True)
class Known:
    """What the free arms say, and the paths that may be answered.

    Attributes:
        predictions: the free arm's, with calibrated confidences.
        scores: the candidate scores of each free arm that is on.
        trees: the paths of the training subset, and those that new rows may be answered with. The labels of held-out
            rows are known when a new row is asked, and not when one of them is.
        voting: the `nearest` block, which says how a row's neighbours vote.
        pilot: the test rows that may be asked (split, id); None for all.
    """

    predictions: pd.DataFrame
    scores: Mapping[str, CandidateScores]
    trees: tuple[LabelTree, LabelTree]
    voting: Any
    pilot: pd.DataFrame | None


@dataclass(frozen=True)
class Plan:
    """The routes (split, id, subset, confidence, role), the questions by role, and what goes into the metrics."""

    routes: pd.DataFrame
    questions: Mapping[str, Sequence[Question]]
    report: dict[str, Any]


def check(settings: Cascade, free_arm_is_on: bool) -> None:
    """Raise ParamsError where the params contradict each other."""
    if not free_arm_is_on:
        raise ParamsError(f"run.cascade needs the {FREE_ARM} arm, which answers for it; set `-S run.{FREE_ARM}=true`")
    if settings.target_accuracy is None and settings.budget_usd is None:
        raise ParamsError("cascade: neither target_accuracy nor budget_usd says which rows to route; set one of them")
    if settings.budget_usd is not None and not ARMS[settings.llm].paid:
        raise ParamsError(
            f"cascade.budget_usd: {settings.llm} runs on this machine and has no price a row; "
            "set it to null, and cascade.target_accuracy instead"
        )


def make_plan(settings: Cascade, context: Context, known: Known, budget_usd: float) -> Plan:
    """Plan a cascade. `context` is that of the language model's arm, `budget_usd` the provider's.

    Raises ResourceError where a paid model may cost more than the budget.
    """
    predictions = _free_predictions(context.rows, known)
    threshold = _choose_threshold(settings, predictions)
    asker = Asker(settings, context, known)
    if settings.budget_usd is not None:
        new = predictions[(predictions["subset"] == "test") & (predictions["confidence"] < threshold)]
        usd = list(asker.usd(asker.questions(new)).values())
        held_out = predictions.loc[predictions["subset"] == "calibration", "confidence"]
        paid = routing.threshold_of_budget(
            new["confidence"], usd, settings.budget_usd, held_out, settings.held_out_rows
        )
        threshold = min(threshold, paid)
    routes = routing.plan_routes(predictions, threshold, settings.held_out_rows, context.seed)
    questions = asker.questions(routes[routes["role"] != KEPT])
    usd_each = asker.usd(questions)
    if settings.budget_usd is not None:
        routes = routing.keep_to_budget(routes, usd_each, settings.budget_usd)
    keys = {role: set(routes.loc[routes["role"] == role, KEY].itertuples(index=False)) for role in (TRIAL, ROUTED)}
    chosen = {role: [asked for asked in questions if (asked.split, asked.id) in keys[role]] for role in keys}
    most = {role: sum(usd_each[asked.split, asked.id] for asked in some) for role, some in chosen.items()}
    if asker.arm.paid:
        what = f"the cascade's {sum(map(len, chosen.values()))} rows"
        require_budget(what, Decimal(str(sum(most.values()))), budget_usd, Decimal(str(context.job["usd"])))
    test = routes[routes["subset"] == "test"]
    sure = test[test["role"] == KEPT]
    report = {
        "threshold": round(threshold, 6) if np.isfinite(threshold) else None,
        "coverage": round(len(sure) / len(test), 6),
        "expected_accuracy": round(float(sure["confidence"].mean()), 6) if len(sure) else None,
        "to_try": len(chosen[TRIAL]),
        "to_ask": len(chosen[ROUTED]),
        "max_usd": {role: round(amount, 6) for role, amount in most.items()},
    }
    return Plan(routes[[*KEY, "subset", "confidence", "role"]], chosen, report)


def _free_predictions(rows: pd.DataFrame, known: Known) -> pd.DataFrame:
    """The free arm's predictions with what is known of each row: its item, subset, whether it is labelled, right."""
    answers = known.predictions[[*KEY, *LEVELS, "confidence"]]
    table = answers.merge(rows, on=KEY, suffixes=("", "_true"))
    true = table[[f"{level}_true" for level in LEVELS]].set_axis(list(LEVELS), axis=1)
    right = np.asarray(right_labels(table, true).all(axis=1))
    table = table.assign(right=right, labelled=table["brand_true"].notna())
    if known.pilot is not None:
        piloted = table[KEY].merge(known.pilot, on=KEY, how="left", indicator="_in")["_in"].eq("both").to_numpy()
        table = table[piloted | (table["subset"] != "test")].reset_index(drop=True)
    return table


def _choose_threshold(settings: Cascade, predictions: pd.DataFrame) -> float:
    if settings.target_accuracy is None:
        return float("inf")
    held_out = predictions[predictions["subset"] == "calibration"]
    threshold = threshold_for_use(held_out["confidence"], held_out["right"], settings.target_accuracy)
    if np.isinf(threshold):
        logger.warning(
            "%s reaches cascade.target_accuracy %s on no row: every row may be routed",
            FREE_ARM,
            settings.target_accuracy,
        )
    return threshold


class Asker:
    """Writes the questions of the language model's own arm, with the candidates, and says what they may cost."""

    def __init__(self, settings: Cascade, context: Context, known: Known) -> None:
        arm = ARMS[settings.llm]
        assert isinstance(arm, LanguageModelArm)
        self.arm = arm
        self._settings, self._context, self._known = settings, context, known
        self._tuned = arm.is_tuned(context.settings)

    def questions(self, asked: pd.DataFrame) -> list[Question]:
        """The questions of these rows, held-out rows first, else in their order."""
        chosen = self._context.settings
        candidates = self._candidates(asked)
        few_shot = None
        if not self._tuned:
            few_shot = FewShotExamples(self._context.training, self._context.neighbours(asked, chosen.retriever))
        questions: list[Question] = []
        for new in (False, True):
            questions += trial.write_questions(
                asked[(asked["split"] == "test") == new],
                few_shot,
                candidates,
                self.arm.renderer(chosen, self._known.trees[new]),
                examples=self.arm.examples_shown(chosen),
                show=self._settings.show_candidates in ({"always"} if self._tuned else {"always", "untuned"}),
                constrain=self._settings.constrain == "candidates",
            )
        return questions

    def usd(self, questions: Sequence[Question]) -> dict[Key, float]:
        """What each may cost at most, by its row's key; nothing where the model runs here."""
        if not self.arm.paid:
            return {(question.split, question.id): 0.0 for question in questions}
        provider, chosen, job = self._context.provider, self._context.settings, self._context.job
        assert provider is not None
        counter, prices = TokenCounter(job["model"]), prices_of(provider, chosen, job)
        return {
            (question.split, question.id): float(
                prices.cost(counter.prompt(question.messages), 0, chosen.max_new_tokens)
            )
            for question in questions
        }

    def _candidates(self, asked: pd.DataFrame) -> dict[Key, Sequence[LabelPath]]:
        voting, training = self._known.voting, self._context.training
        neighbours = self._context.neighbours(asked, voting.retriever)
        votes = votes_by_key(vote(neighbours, training, asked[KEY], voting.k, voting.power))
        scores, most = self._known.scores[FREE_ARM], self._settings.candidates
        return {key: trial.fuse(scores[key], ranked, most) for key, ranked in votes.items()}
