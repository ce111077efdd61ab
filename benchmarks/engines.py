"""What answers cost: vLLM against the baseline, transformers in padded batches; and each way to constrain answers
against free decoding, for each target, with vLLM. Everything in one run.

    python benchmarks/engines.py [--rows 64]

Run it after `make demo`: the questions are the demo's, the model is its base. Engines answer greedily, in float32, in
batches of 64, and each in a process of its own. `first` is the first row alone, for which a grammar is compiled. Where
other programs share the machine, go by the ratios of the processor's time.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tillmap.arms import rag
from tillmap.config.params import Rag, read_params
from tillmap.core.completions import Completion, Question
from tillmap.core.files import read_table
from tillmap.core.taxonomy import LabelTree
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.generation import Generation, Machine

BASELINE, *OTHERS = "transformers", "vllm"
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True)
TARGETS = ("short", "joined", "json")
WAYS = ("free", "tree", "retrieved", "unseen brands", "tree, likeliest", "retrieved, likeliest")
Case = tuple[str, str, Generation, list[Question]]  # a target and a way to constrain it


def measure(engine: str, model: Path, cases: list[Case]) -> dict[tuple[str, str], dict[str, Any]]:
    """Answer each case's questions with one loaded model; loading is timed apart."""
    began = time.perf_counter()
    loaded: Any = load_engine(engine, model, MACHINE, cases[0][2])
    load_s = time.perf_counter() - began
    found = {}
    for target, way, loaded.generation, (first, *questions) in cases:
        began = time.perf_counter()
        loaded.answer([first])
        ready, used = time.perf_counter(), time.process_time()
        size = MACHINE.batch_rows
        answers: list[Completion] = [
            answer
            for start in range(0, len(questions), size)
            for answer in loaded.answer(questions[start : start + size])
        ]
        found[target, way] = {
            "load_s": load_s,
            "first_s": ready - began,
            "rows_per_s": len(answers) / (time.perf_counter() - ready),
            "cpu_s": (time.process_time() - used) / len(answers),
            "tokens": sum(answer.completion_tokens for answer in answers) / len(answers),
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "texts": [answer.text for answer in answers],
        }
    return found


def in_own_process(engine: str, model: Path, cases: list[Case]) -> dict[tuple[str, str], dict[str, Any]]:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (engine, model, cases))


def make_cases(chosen: Rag, rows: int, targets: Sequence[str]) -> Iterator[Case]:
    """The demo's first questions, each way and for each target."""
    table, tree = (
        read_table(Path("data/split/rows.parquet")),
        LabelTree.from_table(read_table(Path("data/split/tree.parquet"))),
    )
    neighbours = read_table(Path("data/neighbours") / f"{chosen.retriever}.parquet")
    training, asked = table[table["subset"] == "train"], table[table["subset"] == "test"]
    for name in targets:
        params = chosen.model_copy(update={"recipe": "ours", "target": name, "constrain": "retrieved"})
        target = rag.answer_format_of(params, tree)
        own = list(islice(rag.write_questions(asked, training, neighbours, tree, params), rows + 1))
        free = [replace(question, answers=None) for question in own]
        greedy = Generation(max_new_tokens=96, temperature=0.0, seed=0)
        whole = replace(greedy, answers=tuple(target.answers))
        ways = (
            (greedy, free),
            (whole, free),
            (greedy, own),
            (replace(whole, open_answers=target.open_answers), free),
            (replace(whole, choose="likelihood"), free),
            (replace(greedy, choose="likelihood"), own),
        )
        for way, (generation, questions) in zip(WAYS, ways, strict=True):
            yield name, way, generation, questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--model", type=Path, default=Path("models/base/rag"))
    args = parser.parse_args()
    cases = list(make_cases(read_params(Path("params.yaml")).rag, args.rows, args.targets))
    print(f"{args.rows} rows, {json.dumps(MACHINE.__dict__)}\n")

    print_engines(
        {engine: in_own_process(engine, args.model, cases[:1])[cases[0][:2]] for engine in (BASELINE, *OTHERS)}
    )
    # vLLM keeps its cache in smaller blocks where it chooses by likelihood, so that is an engine of its own.
    chosen = [case for case in cases if case[2].choose == "likelihood"]
    decoded = [case for case in cases if case[2].choose == "greedy"]
    print_ways(in_own_process("vllm", args.model, decoded) | in_own_process("vllm", args.model, chosen))


def print_engines(found: dict[str, dict[str, Any]]) -> None:
    base = found[BASELINE]
    for engine, result in found.items():
        same = sum(a == b for a, b in zip(result["texts"], base["texts"], strict=True)) / len(base["texts"])
        print(
            f"{engine:13} load {result['load_s']:5.1f} s  {result['rows_per_s']:6.2f} rows/s "
            f"({result['rows_per_s'] / base['rows_per_s']:.2f} x {BASELINE})  peak {result['peak_gib']:.2f} GiB "
            f"({result['peak_gib'] / base['peak_gib']:.2f} x)  answers as {BASELINE}'s: {same:.1%}"
        )


def print_ways(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    print(f"\n{'target':8}{'answers':22}{'tokens':>8}{'rows/s':>9}{'x free':>8}{'x free, by cpu':>16}{'first s':>9}")
    for target, way in sorted(found, key=lambda case: (TARGETS.index(case[0]), WAYS.index(case[1]))):
        result, free = found[target, way], found[target, "free"]
        wall, cpu = result["rows_per_s"] / free["rows_per_s"], free["cpu_s"] / result["cpu_s"]
        print(
            f"{target:8}{way:22}{result['tokens']:8.1f}{result['rows_per_s']:9.2f}{wall:8.2f}{cpu:16.2f}"
            f"{result['first_s']:9.2f}"
        )


if __name__ == "__main__":
    main()
