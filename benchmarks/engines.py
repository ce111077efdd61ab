"""Items a second and peak memory of vLLM against the baseline, transformers in padded batches, in one run.

    python benchmarks/engines.py [--rows 128]

Run it after `make demo`: the questions are the demo's (data/prompts/rag), the model its base. Each engine answers them
in a process of its own, greedily, in float32, in batches of 64.
"""

import argparse
import json
import resource
import time
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from tillmap.engines import Generation, Machine, Question
from tillmap.engines.loading import load_engine
from tillmap.storage import read_jsonl

BASELINE, *OTHERS = "transformers", "vllm"
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True)


def measure(engine: str, model: Path, questions: list[Question], tokens: int) -> dict[str, object]:
    """Answer all questions; loading is timed apart."""
    began = time.perf_counter()
    loaded = load_engine(engine, model, MACHINE, Generation(tokens, temperature=0.0, seed=0))
    ready = time.perf_counter()
    size = MACHINE.batch_rows
    answers = [a for i in range(0, len(questions), size) for a in loaded.answer(questions[i : i + size])]
    return {
        "load_s": ready - began,
        "rows_per_s": len(answers) / (time.perf_counter() - ready),
        "tokens": sum(answer.completion_tokens for answer in answers),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "texts": [answer.text for answer in answers],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts/rag/questions.jsonl"))
    parser.add_argument("--model", type=Path, default=Path("models/base/rag"))
    args = parser.parse_args()
    questions = [Question(**record) for record in islice(read_jsonl(args.prompts), args.rows)]
    found = {}
    for engine in (BASELINE, *OTHERS):
        with get_context("spawn").Pool(1) as pool:
            found[engine] = pool.apply(measure, (engine, args.model, questions, args.tokens))
    base = found[BASELINE]
    print(f"{len(questions)} rows, {json.dumps(MACHINE.__dict__)}")
    for engine, result in found.items():
        same = sum(a == b for a, b in zip(result["texts"], base["texts"], strict=True)) / len(questions)
        print(
            f"{engine:13} load {result['load_s']:5.1f} s  {result['rows_per_s']:6.2f} rows/s "
            f"({result['rows_per_s'] / base['rows_per_s']:.2f} x {BASELINE})  peak {result['peak_gib']:.2f} GiB "
            f"({result['peak_gib'] / base['peak_gib']:.2f} x)  answers as {BASELINE}'s: {same:.1%}"
        )


if __name__ == "__main__":
    main()
