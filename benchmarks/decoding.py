"""What constraining and repair do for the language models' answers: item accuracy, rows a second, tokens.

    python benchmarks/decoding.py --arms rag llama --sample-rows 1000 --seeds 3407 --rows 1000

Run it in a project after `dvc repro retrieve`: questions, neighbours and the tree are that project's. `llama` is tuned
on --sample-rows of the training part, once for each seed; both arms otherwise ask as params.yaml says, with vLLM. The
rows are test rows, the same for every line. Ways to answer:

    off          any text; only an answer that is exactly a path of the tree counts: the baseline
    off, repaired   the same answers, repaired, the neighbours' vote standing in where an answer says nothing
    tree         only paths of the tree can be decoded
    retrieved    only the paths of the row's neighbours; `, likeliest`: the one that is likeliest as a whole

What is finished is kept in --state and not done again: delete the folder to measure anew.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tillmap.arms import llama, nearest, rag
from tillmap.checkpoints import fetch_checkpoint
from tillmap.engines import Generation, Machine, Question
from tillmap.engines.loading import load_engine
from tillmap.labels import LabelTree
from tillmap.params import Llama, Params, Rag, read_params
from tillmap.predictions import predict
from tillmap.repair import Repairer
from tillmap.resampling import cluster_codes, mean_interval
from tillmap.sampling import sample_for_training
from tillmap.scoring import mark
from tillmap.storage import read_json, read_table, write_json
from tillmap.training.lora import train_adapter
from tillmap.training.recipes import choose_recipe

ARMS = {"rag": rag, "llama": llama}
WAYS = ("off", "tree", "retrieved", "retrieved, likeliest")
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True, lora="merge")
NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


class Catalogue:
    """A project's rows, neighbours and tree, and the test rows that are asked."""

    def __init__(self, params: Params, rows: int) -> None:
        table = read_table(Path("data/split/rows.parquet"))
        test = table[table["part"] == "test"]
        self.params = params
        self.training = table[table["part"] == "train"]
        self.asked = test.sample(min(rows, len(test)), random_state=0).sort_index()
        self.tree = LabelTree.from_table(read_table(Path("data/split/tree.parquet")))
        self.neighbours = read_table(Path("data/neighbours/lexical.parquet"))

    def questions(self, arm: str, chosen: Rag | Llama) -> list[Question]:
        return list(ARMS[arm].write_questions(self.asked, self.training, self.neighbours, self.tree, chosen))

    def scores(self, arm: str, chosen: Rag | Llama, completions: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """How right the answers are, as they stand and repaired."""
        votes = nearest.vote(self.neighbours, self.training, self.asked[["split", "id"]])
        repairer = Repairer(self.tree, ARMS[arm].target_of(chosen, self.tree), least_score=0.5)
        table = predict(completions, repairer, nearest.votes_by_key(votes), arm)
        marks = mark(table, self.asked, arm)
        exact = marks["repair"].eq("none")
        clusters = cluster_codes(marks["product"])
        for name, right in (("exact", marks["right"] & exact), ("repaired", marks["right"])):
            yield name, [float(right.mean()), *mean_interval(right, clusters)]
        yield "valid", float(exact.mean())


def train(catalogue: Catalogue, base: Path, size: int, seed: int, folder: Path) -> dict[str, Any]:
    """Tune the base on a sample as the stages do; give what training measured."""
    chosen, how = catalogue.params.llama, catalogue.params.train_llama
    sample = sample_for_training(catalogue.training, size, chosen.sample_policy, seed)
    conversations = list(llama.write_training(sample, catalogue.tree, chosen))
    recipe = choose_recipe("ours", how.model_dump(exclude=NOT_OF_THE_RECIPE))
    folder.mkdir(parents=True, exist_ok=True)
    state = folder.with_name(f"{folder.name}-state")
    return train_adapter(conversations, base, recipe, state, folder, checkpoint_steps=20, seed=seed).report()


def answer(
    catalogue: Catalogue, arm: str, ways: Sequence[str], weights: tuple[Path, Path | None], seed: int
) -> dict[str, dict[str, Any]]:
    """Answer all questions each way with one loaded model: a base and, for `llama`, the adapter on it."""
    block = getattr(catalogue.params, arm)
    engine: Any = None
    found = {}
    for way in ways:
        chosen = block.model_copy(update={"constrain": way.split(",")[0]})
        target = ARMS[arm].target_of(chosen, catalogue.tree)
        generation = Generation(
            chosen.max_new_tokens, 0.0, seed, answers=tuple(target.answers) if way == "tree" else None,
            choose="likelihood" if way.endswith("likeliest") else "greedy",
        )  # fmt: skip
        if engine is None:
            engine = load_engine("vllm", weights[0], MACHINE, generation, weights[1])
        engine.generation = generation
        questions = catalogue.questions(arm, chosen)
        began = time.perf_counter()
        completions = [
            each.as_record()
            for start in range(0, len(questions), MACHINE.batch_rows)
            for each in engine.answer(questions[start : start + MACHINE.batch_rows])
        ]
        seconds = time.perf_counter() - began
        found[way] = dict(catalogue.scores(arm, chosen, completions)) | {
            "rows_per_s": len(questions) / seconds,
            "prompt": sum(each["prompt_tokens"] for each in completions) / len(questions),
            "tokens": sum(each["completion_tokens"] for each in completions) / len(questions),
        }
    return found


def run(args: argparse.Namespace, arm: str, size: int, seed: int) -> dict[str, Any]:
    """One model: trained where it must be, and asked every way. Runs in a process of its own."""
    catalogue = Catalogue(read_params(Path("params.yaml")), args.rows)
    base = args.state / "base"
    if not base.is_dir():
        fetch_checkpoint(getattr(catalogue.params, arm).base, None, base)
    place = args.state / f"{arm}-{size}-{seed}"
    training: dict[str, Any] = {}
    if arm == "llama":
        # In a process of its own, because Unsloth changes the libraries that vLLM needs.
        if not (place.with_suffix(".json")).is_file():
            command = [sys.executable, __file__, "--train", str(size), str(seed), "--state", str(args.state)]
            subprocess.run(command, check=True)
        training = read_json(place.with_suffix(".json"))
    adapter = place if arm == "llama" else None
    missing = [way for way in args.ways if not kept(args, arm, size, seed, way).is_file()]
    # vLLM is loaded otherwise where it is to choose by likelihood.
    for ways in ([way for way in missing if "likeliest" not in way], [way for way in missing if "likeliest" in way]):
        if ways:
            with get_context("spawn").Pool(1) as pool:
                found = pool.apply(answer, (catalogue, arm, ways, (base, adapter), seed))
            for way, result in found.items():
                write_json(result, kept(args, arm, size, seed, way))
    results = {way: read_json(kept(args, arm, size, seed, way)) for way in args.ways}
    return {"training": training, "ways": results}


def kept(args: argparse.Namespace, arm: str, size: int, seed: int, way: str) -> Path:
    """Where the result of one line is kept: `args` count as far as they change it."""
    key = hashlib.sha256(json.dumps([arm, size, seed, way, args.rows]).encode()).hexdigest()[:16]
    return args.state / "results" / f"{key}.json"


def print_lines(arm: str, size: int, seed: int, found: dict[str, Any]) -> None:
    name = f"{arm}, {size} rows, seed {seed}" if arm == "llama" else arm
    if found["training"]:
        done = found["training"]
        print(f"{name}: trained in {done['train_seconds']:.0f} s, {done['tokens_per_second']} tokens/s")
    for way, result in found["ways"].items():
        both = (("off", "exact"), ("off, repaired", "repaired"))
        for shown, score in both if way == "off" else ((way, "repaired"),):
            accuracy, low, high = result[score]
            print(
                f"{name:28} {shown:22} {accuracy:.3f} ({low:.3f} to {high:.3f})  exact paths {result['valid']:.3f}  "
                f"{result['rows_per_s']:5.2f} rows/s  {result['prompt']:5.1f} + {result['tokens']:4.1f} tokens",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--sample-rows", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3407])
    parser.add_argument("--rows", type=int, default=1000, help="test rows to answer")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["off", "tree", "retrieved"])
    parser.add_argument("--state", type=Path, default=Path("build/decoding"))
    parser.add_argument("--train", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        size, seed = args.train
        catalogue = Catalogue(read_params(Path("params.yaml")), args.rows)
        place = args.state / f"llama-{size}-{seed}"
        write_json(train(catalogue, args.state / "base", size, seed, place), place.with_suffix(".json"))
        return
    catalogue = Catalogue(read_params(Path("params.yaml")), args.rows)
    votes = nearest.vote(catalogue.neighbours, catalogue.training, catalogue.asked[["split", "id"]]).query("rank == 0")
    print(
        f"{len(votes)} rows; the neighbours' vote: {mark(votes, catalogue.asked, 'nearest')['right'].mean():.3f}",
        flush=True,
    )
    for arm in args.arms:
        for size in args.sample_rows if arm == "llama" else [0]:
            for seed in args.seeds if arm == "llama" else args.seeds[:1]:
                print_lines(arm, size, seed, run(args, arm, size, seed))


if __name__ == "__main__":
    main()
