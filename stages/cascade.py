"""Tries the language model on routed held-out rows, and where it gains asks it the rest; linear answers the others."""

import logging
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
from runner import Metrics, run

from tillmap import paths
from tillmap.arms import cascade, llama, openai, rag
from tillmap.asking import Asked, ask_locally, ask_provider, find_model, prices_of, read_questions
from tillmap.confidence import beliefs, calibrate, make_signals
from tillmap.costs import cents
from tillmap.engines import Completion, Generation, Machine
from tillmap.labels import LabelPath, LabelTree
from tillmap.params import Params
from tillmap.predictions import COLUMNS, no_predictions, predict
from tillmap.repair import Repairer
from tillmap.retrieval.embedding import Embedder
from tillmap.routing import ASKED, TRIED
from tillmap.scoring import KEY
from tillmap.storage import read_json, read_jsonl, read_table, write_jsonl, write_table
from tillmap.targets import Target

PARAMS = (
    "seed", "run.nearest", "run.linear", "run.cascade", "cascade", "linear", "rag", "llama", "openai", "engine",
    "provider", "embedding", "postprocess",
)  # fmt: skip
LLMS: dict[str, Any] = {"rag": rag, "llama": llama, "openai": openai}
PROMPTS = paths.PROMPTS / "cascade"

logger = logging.getLogger("tillmap.cascade")


def main(params: Params) -> Metrics:
    if not params.run.cascade:
        write_jsonl([Completion(None, None, "", "off").as_record()], paths.COMPLETIONS / "cascade.jsonl")
        write_table(no_predictions(), paths.PREDICTIONS / "cascade.parquet")
        return {"off": True}
    began = time.perf_counter()
    rows, routes = read_table(paths.ROWS), read_table(PROMPTS / paths.ROUTES)
    linear = read_table(paths.PREDICTIONS / "linear.parquet").merge(routes[[*KEY, "role"]], on=KEY)
    free, tried = linear[COLUMNS], linear.loc[linear["role"] == TRIED, COLUMNS]
    reader = Reader(params, rows)
    asked = [ask(params, PROMPTS / paths.TRIAL)] if len(tried) and (routes["role"] == ASKED).any() else []
    answers = [reader.read(part) for part in asked]
    trial = judge(params, rows, reader, tried, answers) if asked else cascade.Trial(False, idle(routes), 0)
    logger.info("cascade: %s", trial.reason)
    if trial.routes:
        asked.append(ask(params, PROMPTS / paths.QUESTIONS, spent=asked[0].most_usd))
        answers.append(reader.read(asked[1]))
        free = reader.merge(free, reader.calibrate(answers, asked))
    write_jsonl((record for part in asked for record in part.records), paths.COMPLETIONS / "cascade.jsonl")
    write_table(free, paths.PREDICTIONS / "cascade.parquet")
    return {
        "trial": trial.report(),
        **bill(params, routes, asked),
        "rows": len(free),
        "rows_per_second": round(len(free) / (time.perf_counter() - began), 2),
    }


def idle(routes: pd.DataFrame) -> str:
    """Why no language model is asked at all."""
    if not (routes["role"] == ASKED).any():
        return "no row is routed: linear is sure of all, or the budget pays for no more than the trial"
    return "no row of the calibrate part is below the threshold, so that no gain can be shown; linear answers every row"


def ask(params: Params, file: Path, spent: Decimal = Decimal(0)) -> Asked:
    llm = params.cascade.llm
    chosen = getattr(params, llm)
    generation = Generation(chosen.max_new_tokens, chosen.temperature, params.seed)
    if llm == "openai":
        job = read_json(paths.MODELS / "openai" / paths.JOB)
        return ask_provider(file, chosen=chosen, generation=generation, provider=params.provider, job=job, spent=spent)
    machine = Machine(**params.engine.model_dump())
    model, adapter = find_model(paths.BASE / llm, paths.MODELS / llm if llm == "llama" else None)
    return ask_locally(
        file, chosen=chosen, generation=generation, machine=machine, model=model, adapter=adapter, name="cascade"
    )


class Reader:
    """Reads the language model's answers: to paths, and how sure they are."""

    def __init__(self, params: Params, rows: pd.DataFrame) -> None:
        self._params, self._rows = params, rows
        self._bound = params.cascade.constrain == "candidates"
        trial, questions = (read_questions(PROMPTS / name) for name in (paths.TRIAL, paths.QUESTIONS))
        self._questions = {(question.split, question.id): question for question in [*trial, *questions]}
        refitted = LabelTree.from_rows(rows[rows["split"] == "train"]) if params.linear.refit else None
        self._trees = {False: LabelTree.from_table(read_table(paths.TREE)), True: refitted}

    def read(self, asked: Asked) -> pd.DataFrame:
        """Predictions of the rows asked, in their order; those of held-out rows know no held-out label."""
        tables = []
        for new in (False, True):
            records = [record for record in asked.records if (record["split"] == "test") == new]
            if records:
                tables.append(predict(records, self._repairer(new), {}, self._params.cascade.llm))
        return pd.concat(tables, ignore_index=True)

    def merge(self, free: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
        return cascade.merge(free, answered, self._allowed() if self._bound else None)

    def calibrate(self, answers: Sequence[pd.DataFrame], asked: Sequence[Asked]) -> pd.DataFrame:
        """All the answers, as sure as the tried ones among them turned out to be."""
        answered = pd.concat(answers, ignore_index=True)
        records = {(record["split"], record["id"]): record for part in asked for record in part.records}
        ordered = [records[key] for key in answered[KEY].itertuples(index=False, name=None)]
        free = {name: beliefs(list(read_jsonl(paths.COMPLETIONS / f"{name}.jsonl"))) for name in self._free()}
        return calibrate(answered, make_signals(ordered, answered, self._rows, free, self._tree(True)), self._rows)[0]

    def _free(self) -> list[str]:
        return [name for name in ("nearest", "linear") if getattr(self._params.run, name)]

    def _tree(self, new: bool) -> LabelTree:
        return self._trees[new] or self._trees[False]  # type: ignore[return-value]  # the training part's always is one

    def _target(self, new: bool) -> Target:
        llm = self._params.cascade.llm
        return LLMS[llm].target_of(getattr(self._params, llm), self._tree(new))  # type: ignore[no-any-return]

    def _repairer(self, new: bool) -> Repairer:
        meaning = self._params.embedding
        embedder = Embedder(meaning.model, meaning.revision, meaning.batch_size)
        by_meaning = self._params.postprocess.embed and not self._bound  # one of ten candidates is told by its letters
        return Repairer(
            self._tree(new),
            self._target(new),
            embed=embedder.encode if by_meaning else None,
            least_score=self._params.postprocess.min_similarity,
        )

    def _allowed(self) -> dict[tuple[str, int], list[LabelPath]]:
        decoded = {new: self._target(new) for new in (False, True)}
        return {
            key: [decoded[key[0] == "test"].decode(answer) for answer in question.answers or ()]
            for key, question in self._questions.items()
        }


def judge(
    params: Params, rows: pd.DataFrame, reader: Reader, free: pd.DataFrame, answers: Sequence[pd.DataFrame]
) -> cascade.Trial:
    """Whether the language model gains on the rows it was tried on."""
    truth = free[KEY].merge(rows, on=KEY)
    [answered] = answers
    merged = reader.merge(free, answered)
    return cascade.judge(free, answered, merged, truth, seed=params.seed)


def bill(params: Params, routes: pd.DataFrame, asked: Sequence[Asked]) -> Metrics:
    """What was asked of the test rows, what that took, and what asking all of them would have taken besides."""
    new = routes["part"] != "calibrate"
    called = sum(len(part.records) for part in asked)
    answered = int((new & (routes["role"] == ASKED)).sum()) if len(asked) > 1 else 0
    saved = int(new.sum()) - answered
    names = ("prompt_tokens", "cached_tokens", "completion_tokens")
    tokens = {name: sum(record[name] for part in asked for record in part.records) for name in names}
    seconds = sum(part.seconds for part in asked)
    found: Metrics = {"llm": params.cascade.llm, "calls": called, "calls_saved": saved, **tokens}
    found |= {
        "llm_seconds": round(seconds, 2),
        "llm_seconds_saved": round(seconds / called * saved, 2) if called else 0,
    }
    for part in asked:
        found |= part.about
    if params.cascade.llm == "openai":
        job = read_json(paths.MODELS / "openai" / paths.JOB)
        spent = prices_of(params.openai, params.provider, job).cost(*tokens.values())
        found |= {
            "usd": round(float(spent), 6),
            "usd_saved": round(float(spent) / called * saved, 6) if called else None,
            "estimated_usd": cents(sum((part.most_usd for part in asked), Decimal(0))),
        }
    return found


if __name__ == "__main__":
    run(main, PARAMS)
