"""What a language model makes of its evidence: item accuracy, tokens and rows per second, by the params of its arm.

    python benchmarks/choosing.py rag --rows 200 "retriever=lexical constrain=off" "retriever=paths" "examples=0"

Run it in a project after `dvc repro candidates`. Each line is a run of the arm with its block of params.yaml and these
changes, which are YAML values (none: the block as it is). All are asked about the same rows, drawn from --subset.
Differences are to the first line, with intervals and tests as in the report. Answers are kept, and not asked for again.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from contexts import open_context
from ruamel.yaml import YAML

from tillmap.arms import ARMS, schema
from tillmap.arms.rules import AnswerRules
from tillmap.config.blocks import Engine
from tillmap.config.params import read_params
from tillmap.core.completions import TOKENS
from tillmap.core.files import read_table
from tillmap.core.taxonomy import KEY
from tillmap.evaluation.comparison import compare_arms
from tillmap.evaluation.metrics import mark
from tillmap.postprocessing.predictions import make_repairer, predict
from tillmap.retrieval.vote import vote, votes_by_key

SHOWN = ("prompt_tokens", "cached_tokens", "completion_tokens")


def changed(block: Any, text: str) -> Any:
    """The arm's block with the changes of a line, such as "retriever=paths examples=0"."""
    values = dict(word.split("=", 1) for word in text.split())
    read = {name: YAML(typ="safe").load(value) for name, value in values.items()}
    read = {name: "off" if value is False and name == "constrain" else value for name, value in read.items()}
    return type(block)(**(block.model_dump() | read))


def answer(
    params: Any, arm: str, text: str, rows: pd.DataFrame, engine: Engine
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The predictions of one line, and what they took a row."""
    context = open_context(arm, changed(params.block(arm), text))
    context.engine, context.provider = engine, params.provider
    records = [each.as_record() for each in ARMS[arm].answer(context, rows)]
    voting, levels = params.neighbours_vote, context.levels
    near = read_table(Path("data/neighbours") / f"{voting.retriever}.parquet")
    votes = votes_by_key(vote(near, context.training, rows[KEY], levels, voting.k, voting.power), levels)
    repairer = make_repairer(AnswerRules.of_arm(ARMS[arm], context), context.tree, params.postprocess, params.embedding)
    took = {name: sum(record[name] for record in records) / len(records) for name in TOKENS}
    return predict(records, repairer, votes, arm), took | {"rows_per_s": len(records) / context.notes["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=[name for name, arm in ARMS.items() if not arm.free])
    parser.add_argument("lines", nargs="+", metavar="CHANGES")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--subset", default="calibration", choices=["calibration", "dev", "test"])
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    args = parser.parse_args()
    params = read_params(Path("params.yaml"), schema())
    table = read_table(Path("data/split/rows.parquet"))
    rows = table[table["subset"] == args.subset]
    rows = rows.sample(min(args.rows, len(rows)), random_state=args.seed).sort_index()
    levels = open_context(args.arm, params.block(args.arm)).levels
    marks: dict[str, pd.DataFrame] = {}
    for text in args.lines:
        predictions, took = answer(params, args.arm, text, rows, params.engine)
        marks[text] = mark(predictions, rows, args.arm, levels)
        own = compare_arms({text: marks[text], **marks}, args.lines[0], seed=1) if len(marks) > 1 else None
        line = f"{marks[text]['right'].mean():.3f}"
        if own is not None:
            found = own[own["arm"] == text].iloc[0]
            line += f"  {found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}) {found['verdict']}"
        exact = marks[text]["repair"].eq("none").mean()
        tokens = " ".join(f"{took[name]:.0f}" for name in SHOWN)
        print(f"{text:60} {line}  exact {exact:.2f}  tokens {tokens}  {took['rows_per_s']:.1f} rows/s", flush=True)


if __name__ == "__main__":
    main()
