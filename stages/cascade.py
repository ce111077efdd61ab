"""Tries the language model on routed held-out rows, and where it gains asks it the rest; linear answers the others."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from runner import Metrics, run

from tillmap.cascade import trial as cascade
from tillmap.cascade.routing import ASKED, TRIED
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.completions import Completion, Question
from tillmap.core.files import read_json, read_jsonl, read_table, write_jsonl, write_table
from tillmap.core.taxonomy import LabelPath, LabelTree
from tillmap.evaluation.metrics import KEY
from tillmap.llm.asking import Answers, ask, prices_of
from tillmap.postprocessing.calibration import FREE, calibrate, candidate_scores, make_signals
from tillmap.postprocessing.predictions import COLUMNS, no_predictions, predict
from tillmap.postprocessing.repair import Repairer
from tillmap.postprocessing.repairing import ASKED as LLMS
from tillmap.postprocessing.repairing import known_paths

PARAMS = (
    "seed", "run.nearest", "run.linear", "run.cascade", "cascade", "linear", "rag", "llama", "openai", "engine",
    "provider",
)  # fmt: skip
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
    reader, asked, tables = Reader(params, rows), [], []
    trial = cascade.Trial(False, why_idle(routes), 0)
    if len(tried) and (routes["role"] == ASKED).any():
        answers, table = reader.ask(PROMPTS / paths.TRIAL)
        asked, tables = [answers], [table]
        trial = cascade.judge(tried, table, reader.merge(tried, table), tried[KEY].merge(rows, on=KEY), params.seed)
    logger.info("cascade: %s", trial.reason)
    if trial.routes:
        answers, table = reader.ask(PROMPTS / paths.QUESTIONS)
        asked, tables = [*asked, answers], [*tables, table]
        free = reader.merge(free, reader.calibrate(tables, asked))
    write_jsonl((record for part in asked for record in part.records), paths.COMPLETIONS / "cascade.jsonl")
    write_table(free, paths.PREDICTIONS / "cascade.parquet")
    return {
        "trial": trial.report(),
        **bill(params, routes, asked),
        "rows": len(free),
        "rows_per_second": round(len(free) / (time.perf_counter() - began), 2),
    }


def why_idle(routes: pd.DataFrame) -> str:
    """Why no language model is asked at all."""
    if not (routes["role"] == ASKED).any():
        return "no row is routed: linear is sure of all, or the budget pays for no more than the trial"
    return "no row of the calibration subset is below the threshold, so that no gain can be shown; linear answers every row"


class Reader:
    """Asks, and reads the answers: to paths, and how sure they are."""

    def __init__(self, params: Params, rows: pd.DataFrame) -> None:
        self._params, self._rows, self._llm = params, rows, params.cascade.llm
        # As for linear, the labels of held-out rows are known when a new row is asked, and not when one of them is.
        self._trees = (LabelTree.from_table(read_table(paths.TREE)), known_paths(params, "linear", rows))
        self._allowed: dict[tuple[str, int], set[LabelPath | None]] = {}

    def ask(self, file: Path) -> tuple[Answers, pd.DataFrame]:
        """The answers to a file's questions, and as predictions, not calibrated, in the same order."""
        questions = [Question(**record) for record in read_jsonl(file)]
        answers = ask(self._params, self._llm, questions, {"answers": None, "open_answers": None})
        settings, tables = getattr(self._params, self._llm), []
        for new, tree in enumerate(self._trees):
            target = LLMS[self._llm].answer_format_of(settings, tree)
            records = [record for record in answers.records if (record["split"] == "test") == new]
            # By letters alone, which finds a candidate, so that this stage with its models waits for no other's params.
            tables.append(predict(records, Repairer(tree, target), {}, self._llm))
            if self._params.cascade.constrain == "candidates":
                for asked in questions:
                    if (asked.split == "test") == new:
                        self._allowed[asked.split, asked.id] = set(map(target.decode, asked.answers or ()))
        return answers, pd.concat([table for table in tables if len(table)], ignore_index=True)

    def merge(self, free: pd.DataFrame, answered: pd.DataFrame) -> pd.DataFrame:
        return cascade.merge(free, answered, self._allowed or None)

    def calibrate(self, tables: Sequence[pd.DataFrame], asked: Sequence[Answers]) -> pd.DataFrame:
        """All the answers, as sure as those of the trial turned out to be."""
        table = pd.concat(tables, ignore_index=True)
        records = {(record["split"], record["id"]): record for part in asked for record in part.records}
        ordered = [records[key] for key in table[KEY].itertuples(index=False, name=None)]
        free = {
            name: candidate_scores(list(read_jsonl(paths.COMPLETIONS / f"{name}.jsonl")))
            for name in FREE
            if getattr(self._params.run, name)
        }
        # The training subset's tree: in the other a row of the calibration subset would speak for its own answer.
        return calibrate(table, make_signals(ordered, table, self._rows, free, self._trees[False]), self._rows)[0]


def bill(params: Params, routes: pd.DataFrame, asked: Sequence[Answers]) -> Metrics:
    """What was asked of the test rows, what that took, and what asking all of them would have taken besides."""
    new = routes["subset"] != "calibration"
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
        found |= part.notes
    if params.cascade.llm == "openai":
        job = read_json(paths.MODELS / "openai" / paths.JOB)
        spent = float(prices_of(params, job).cost(*tokens.values()))
        found |= {
            "usd": round(spent, 6),
            "usd_saved": round(spent / called * saved, 6) if called else None,
            "estimated_usd": round(sum(part.notes["estimated_usd"] for part in asked), 2),
        }
    return found


if __name__ == "__main__":
    run(main, PARAMS)
