"""What answers cost: vLLM against transformers, and constrained against free decoding with vLLM for each answer format.

    python benchmarks/engines.py [--rows 64]

Run it after `make demo`: the questions and the model are the demo's. Engines answer greedily, in float32, in batches of
64, each in a process of its own. `first s` is the time of the first row, which includes compiling a grammar. If other
programs share the machine, compare the processor time.
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

from contexts import open_context

from tillmap.arms import ARMS, schema
from tillmap.config.params import read_params
from tillmap.core.completions import Completion, Question
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.interface.generation import Generation, Machine

BASELINE, *OTHERS = "transformers", "vllm"
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True)
FORMATS = ("short", "joined", "json")
WAYS = ("free", "tree", "retrieved", "unseen brands", "tree, likeliest", "retrieved, likeliest")
Case = tuple[str, str, Generation, list[Question]]  # an answer format, a way to constrain answers, and what is asked


def measure(engine: str, model: Path, cases: list[Case]) -> dict[tuple[str, str], dict[str, Any]]:
    """Answer the questions of each case with one loaded model. Loading is timed separately."""
    began = time.perf_counter()
    loaded: Any = load_engine(engine, model, MACHINE, cases[0][2])
    load_s = time.perf_counter() - began
    found = {}
    for name, way, loaded.generation, (first, *questions) in cases:
        began = time.perf_counter()
        loaded.answer([first])
        ready, used = time.perf_counter(), time.process_time()
        size = MACHINE.batch_rows
        answers: list[Completion] = [
            answer
            for start in range(0, len(questions), size)
            for answer in loaded.answer(questions[start : start + size])
        ]
        found[name, way] = {
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


def make_cases(settings: Any, rows: int, formats: Sequence[str]) -> Iterator[Case]:
    """The demo's first questions of the `rag` arm, in each way and for each answer format."""
    rag = ARMS["rag"]
    for name in formats:
        changes = {"recipe": "ours", "answer_format": name, "constrain": "retrieved"}
        context = open_context("rag", settings.model_copy(update=changes))
        answer_format = rag.format_for(context.settings, context.tree)
        asked = context.rows[context.rows["subset"] == "test"]
        own = list(islice(rag.questions(context, asked), rows + 1))
        free = [replace(question, answers=None) for question in own]
        greedy = Generation(max_new_tokens=96, temperature=0.0, seed=0)
        whole = replace(greedy, answers=tuple(answer_format.answers))
        ways = (
            (greedy, free),
            (whole, free),
            (greedy, own),
            (replace(whole, open_answers=answer_format.open_answers), free),
            (replace(whole, choose="likelihood"), free),
            (replace(greedy, choose="likelihood"), own),
        )
        for way, (generation, questions) in zip(WAYS, ways, strict=True):
            yield name, way, generation, questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--model", type=Path, default=Path("models/base/rag"))
    args = parser.parse_args()
    settings = read_params(Path("params.yaml"), schema()).block("rag")
    cases = list(make_cases(settings, args.rows, args.formats))
    print(f"{args.rows} rows, {json.dumps(MACHINE.__dict__)}\n")

    print_engines(
        {engine: in_own_process(engine, args.model, cases[:1])[cases[0][:2]] for engine in (BASELINE, *OTHERS)}
    )
    # For ranking by likelihood vLLM has smaller cache blocks, so it is loaded again.
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
            f"({result['peak_gib'] / base['peak_gib']:.2f} x)  answers equal to {BASELINE}: {same:.1%}"
        )


def print_ways(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    print(f"\n{'format':8}{'answers':22}{'tokens':>8}{'rows/s':>9}{'x free':>8}{'x free, by cpu':>16}{'first s':>9}")
    for name, way in sorted(found, key=lambda case: (FORMATS.index(case[0]), WAYS.index(case[1]))):
        result, free = found[name, way], found[name, "free"]
        wall, cpu = result["rows_per_s"] / free["rows_per_s"], free["cpu_s"] / result["cpu_s"]
        print(
            f"{name:8}{way:22}{result['tokens']:8.1f}{result['rows_per_s']:9.2f}{wall:8.2f}{cpu:16.2f}"
            f"{result['first_s']:9.2f}"
        )


if __name__ == "__main__":
    main()
