"""Which rows the cascade asks a language model about, and the questions; what they may cost is known before any is."""

import logging
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd
from runner import Metrics, run

from tillmap.arms import nearest
from tillmap.cascade import routing
from tillmap.cascade import trial as cascade
from tillmap.cascade.routing import ASKED, FREE, TRIED, keep_to_budget, plan_routes, threshold_of_budget
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import Question
from tillmap.core.errors import ParamsError
from tillmap.core.files import new_folder, read_json, read_jsonl, read_table, write_json, write_jsonl, write_table
from tillmap.core.taxonomy import LEVELS, LabelPath, LabelTree
from tillmap.evaluation.metrics import KEY
from tillmap.llm.asking import prices_of
from tillmap.llm.few_shot import FewShotExamples
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.postprocessing.repairing import ASKED as LLMS
from tillmap.postprocessing.repairing import known_paths
from tillmap.providers.costs import TokenCounter, require_budget

PARAMS = ("seed", "run.linear", "run.cascade", "cascade", "nearest", "linear", "rag", "llama", "openai", "provider")

logger = logging.getLogger("tillmap.route")


def main(params: Params) -> Metrics:
    with new_folder(paths.PROMPTS / "cascade") as folder:
        if not params.run.cascade:
            write_json({"off": True}, folder / "off.json")
            return {"off": True}
        check(params)
        chosen, rows = params.cascade, read_table(paths.ROWS)
        predictions = read_predictions(rows)
        threshold = choose_threshold(params, predictions)
        asker = Asker(params, rows)
        if chosen.budget_usd is not None:
            new = predictions[(predictions["subset"] == "test") & (predictions["confidence"] < threshold)]
            usd = list(asker.usd(asker.questions(new)).values())
            held_out = predictions.loc[predictions["subset"] == "calibration", "confidence"]
            paid = threshold_of_budget(new["confidence"], usd, chosen.budget_usd, held_out, chosen.held_out_rows)
            threshold = min(threshold, paid)
        routes = plan_routes(predictions, threshold, chosen.held_out_rows, params.seed)
        questions = asker.questions(routes[routes["role"] != FREE])
        usd_each = asker.usd(questions)
        if chosen.budget_usd is not None:
            routes = keep_to_budget(routes, usd_each, chosen.budget_usd)
        asked = {role: set(routes.loc[routes["role"] == role, KEY].itertuples(index=False)) for role in (TRIED, ASKED)}
        for role, name in ((TRIED, paths.TRIAL), (ASKED, paths.QUESTIONS)):
            kept = (question.as_record() for question in questions if (question.split, question.id) in asked[role])
            write_jsonl(kept, folder / name)
        most = {role: sum(usd_each[key] for key in keys) for role, keys in asked.items()}
        if chosen.llm == "openai":
            what = f"the cascade's {sum(map(len, asked.values()))} rows"
            spent = Decimal(str(asker.job["usd"]))
            require_budget(what, Decimal(str(sum(most.values()))), params.provider.budget_usd, spent)
        write_table(routes[[*KEY, "subset", "confidence", "role"]], folder / paths.ROUTES)
    test = routes[routes["subset"] == "test"]
    sure = test[test["role"] == FREE]
    return {
        "threshold": round(threshold, 6) if np.isfinite(threshold) else None,
        "coverage": round(len(sure) / len(test), 6),
        "expected_accuracy": round(float(sure["confidence"].mean()), 6) if len(sure) else None,
        "to_try": len(asked[TRIED]),
        "to_ask": len(asked[ASKED]),
        "max_usd": {role: round(amount, 6) for role, amount in most.items()},
    }


def check(params: Params) -> None:
    chosen = params.cascade
    if not params.run.linear:
        raise ParamsError("run.cascade needs the linear arm, which answers for it; set `-S run.linear=true`")
    if chosen.target_accuracy is None and chosen.budget_usd is None:
        raise ParamsError("cascade: neither target_accuracy nor budget_usd says which rows to route; set one of them")
    if chosen.budget_usd is not None and chosen.llm != "openai":
        raise ParamsError(
            f"cascade.budget_usd: {chosen.llm} runs on this machine and has no price a row; "
            "set it to null, and cascade.target_accuracy instead"
        )


def read_predictions(rows: pd.DataFrame) -> pd.DataFrame:
    """The free arm's predictions with what is known of each row: its item, its part, whether it is labelled, right."""
    free = read_table(paths.PREDICTIONS / "linear.parquet")
    table = free[[*KEY, *LEVELS, "confidence"]].merge(rows, on=KEY, suffixes=("", "_true"))
    true = table[[f"{level}_true" for level in LEVELS]].to_numpy(object)
    right = (table[list(LEVELS)].to_numpy(object) == true).all(axis=1)
    return table.assign(right=right, labelled=table["brand_true"].notna())


def choose_threshold(params: Params, predictions: pd.DataFrame) -> float:
    target, held_out = params.cascade.target_accuracy, predictions[predictions["subset"] == "calibration"]
    if target is None:
        return float("inf")
    threshold = routing.choose_threshold(held_out["confidence"], held_out["right"], target)
    if np.isinf(threshold):
        logger.warning("linear reaches cascade.target_accuracy %s on no row: every row is one to route", target)
    return threshold


class Asker:
    """Writes the questions of the language model's own arm, with the candidates, and says what they may cost."""

    def __init__(self, params: Params, rows: pd.DataFrame) -> None:
        self._params, self._rows = params, rows
        self._module, self._chosen = LLMS[params.cascade.llm], getattr(params, params.cascade.llm)
        self._training = rows[rows["subset"] == "train"]
        self._tuned = params.cascade.llm == "llama" or (
            params.cascade.llm == "openai" and params.openai.mode == "tuned"
        )
        neighbours = read_table(paths.NEIGHBOURS / f"{self._chosen.retriever}.parquet")
        self._evidence = None if self._tuned else FewShotExamples(self._training, neighbours)
        # As for linear, the labels of held-out rows are known when a new row is asked, and not when one of them is.
        self._trees = (LabelTree.from_table(read_table(paths.TREE)), known_paths(params, "linear", rows))
        self._scored = candidate_scores(list(read_jsonl(paths.COMPLETIONS / "linear.jsonl")))
        self.job = read_json(paths.MODELS / "openai" / paths.JOB)

    def questions(self, asked: pd.DataFrame) -> list[Question]:
        """The questions of these rows, held-out rows first, else in their order."""
        cascading = self._params.cascade
        candidates = self._candidates(asked)
        questions: list[Question] = []
        for new in (False, True):
            questions += cascade.write_questions(
                asked[(asked["split"] == "test") == new],
                self._evidence,
                candidates,
                self._module.renderer_of(self._chosen, self._trees[new]),
                examples=0 if self._tuned else self._chosen.examples,
                show=cascading.show_candidates in ({"always"} if self._tuned else {"always", "untuned"}),
                constrain=cascading.constrain == "candidates",
            )
        return questions

    def usd(self, questions: Sequence[Question]) -> dict[tuple[str, int], float]:
        """What each may cost at most, by its row's key; nothing where the model runs here."""
        if self._params.cascade.llm != "openai":
            return {(question.split, question.id): 0.0 for question in questions}
        chosen, counter = self._params.openai, TokenCounter(self.job["model"])
        prices = prices_of(self._params, self.job)
        return {
            (question.split, question.id): float(
                prices.cost(counter.prompt(question.messages), 0, chosen.max_new_tokens)
            )
            for question in questions
        }

    def _candidates(self, asked: pd.DataFrame) -> dict[tuple[str, int], Sequence[LabelPath]]:
        voting = self._params.nearest
        neighbours = read_table(paths.NEIGHBOURS / f"{voting.retriever}.parquet")
        votes = nearest.votes_by_key(nearest.vote(neighbours, self._training, asked[KEY], voting.k, voting.power))
        most = self._params.cascade.candidates
        return {key: cascade.fuse(self._scored[key], ranked, most) for key, ranked in votes.items()}


if __name__ == "__main__":
    run(main, PARAMS)
