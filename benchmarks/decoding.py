"""What constraining and repair do for the language models' answers: item accuracy, rows a second, tokens.

    python benchmarks/decoding.py --arms rag llama --sample-rows 1000 --seeds 3407 --targets short --rows 1000

Run it in a project after `dvc repro retrieve`: questions, neighbours and the tree are that project's. `llama` is tuned
on --sample-rows of the training subset, once for each seed; both arms otherwise ask as params.yaml says, with vLLM. The
rows are test rows, the same for every line. Ways to answer:

    off          any text; only an answer that is exactly a path of the tree counts: the baseline
    off, repaired   the same answers, repaired, the neighbours' vote standing in where an answer says nothing
    tree         only paths of the tree can be decoded
    retrieved    only the paths of the row's neighbours; `, likeliest`: the one that is likeliest as a whole

What is finished is kept in --state and not done again: delete the folder to measure anew.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from tillmap.arms import llama, nearest, rag
from tillmap.config.params import Llama, Rag, read_params
from tillmap.core.completions import Question
from tillmap.core.files import read_json, read_table, write_json
from tillmap.core.taxonomy import LabelTree
from tillmap.evaluation.bootstrap import cluster_codes, mean_interval
from tillmap.evaluation.metrics import mark
from tillmap.llm.checkpoints import fetch_checkpoint
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.generation import Generation, Machine
from tillmap.postprocessing.predictions import predict
from tillmap.postprocessing.repair import Repairer
from tillmap.splitting.samples import sample_for_training
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

ARMS = {"rag": rag, "llama": llama}
WAYS = ("off", "tree", "retrieved", "retrieved, likeliest")
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True, lora="merge")
LONGEST = {"short": 40, "joined": 64, "json": 96}  # tokens of an answer
NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


class Case(NamedTuple):
    """A model to measure: the arm, how its answers are written, the rows it is tuned on (0: none), and the seed."""

    arm: str
    target: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm} {self.target}" + (f" {self.size} rows seed {self.seed}" if self.size else "")


class Catalogue:
    """A project's rows, neighbours and tree, and the test rows that are asked."""

    def __init__(self, target: str, rows: int) -> None:
        params = read_params(Path("params.yaml"))
        table = read_table(Path("data/split/rows.parquet"))
        test = table[table["subset"] == "test"]
        blocks = {arm: getattr(params, arm).model_copy(update={"target": target}) for arm in ARMS}
        self.params = params.model_copy(update=blocks)
        self.training = table[table["subset"] == "train"]
        self.asked = test.sample(min(rows, len(test)), random_state=0).sort_index()
        self.tree = LabelTree.from_table(read_table(Path("data/split/tree.parquet")))
        self.neighbours = read_table(Path("data/neighbours/lexical.parquet"))

    def questions(self, arm: str, chosen: Rag | Llama) -> list[Question]:
        return list(ARMS[arm].write_questions(self.asked, self.training, self.neighbours, self.tree, chosen))

    def scores(self, arm: str, chosen: Rag | Llama, completions: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """How right the answers are, as they stand and repaired."""
        votes = nearest.vote(self.neighbours, self.training, self.asked[["split", "id"]])
        repairer = Repairer(self.tree, ARMS[arm].answer_format_of(chosen, self.tree), min_score=0.5)
        table = predict(completions, repairer, nearest.votes_by_key(votes), arm)
        marks = mark(table, self.asked, arm)
        exact = marks["repair"].eq("none")
        clusters = cluster_codes(marks["product"])
        for name, right in (("exact", marks["right"] & exact), ("repaired", marks["right"])):
            yield name, [float(right.mean()), *mean_interval(right, clusters)]
        yield "valid", float(exact.mean())


def train(catalogue: Catalogue, base: Path, case: Case, state: Path) -> dict[str, Any]:
    """Tune the base on a sample as the stages do, to a folder in `state`; give what training measured."""
    chosen, how = catalogue.params.llama, catalogue.params.train_llama
    sample = sample_for_training(catalogue.training, case.size, chosen.sample_policy, case.seed)
    conversations = list(llama.write_training(sample, catalogue.tree, chosen))
    recipe = choose_recipe("ours", how.model_dump(exclude=NOT_OF_THE_RECIPE))
    folder = state / case.name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = state / f"{case.name} checkpoints"
    return train_adapter(conversations, base, recipe, checkpoints, folder, checkpoint_steps=20, seed=case.seed).report()


def answer(
    catalogue: Catalogue, arm: str, ways: Sequence[str], weights: tuple[Path, Path | None], seed: int
) -> dict[str, dict[str, Any]]:
    """Answer all questions each way with one loaded model: a base and, for `llama`, the adapter on it."""
    block = getattr(catalogue.params, arm)
    engine: Any = None
    found = {}
    for way in ways:
        chosen = block.model_copy(update={"constrain": way.split(",")[0]})
        target = ARMS[arm].answer_format_of(chosen, catalogue.tree)
        generation = Generation(
            LONGEST[chosen.target], 0.0, seed, answers=tuple(target.answers) if way == "tree" else None,
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


def run(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """One model: trained where it must be, and asked every way; vLLM runs in a process of its own."""
    base, adapter = args.state / "base", args.state / case.name
    catalogue = Catalogue(case.target, args.rows)
    if not base.is_dir():
        fetch_checkpoint(getattr(catalogue.params, case.arm).base, None, base)
    training: dict[str, Any] = {}
    if case.arm == "llama":
        # In a process of its own, because Unsloth changes the libraries that vLLM needs.
        if not trained(args, case).is_file():
            command = [sys.executable, __file__, "--train", *map(str, case), "--state", str(args.state)]
            subprocess.run(command, check=True)
        training = read_json(trained(args, case))
    missing = [way for way in args.ways if not kept(args, case, way).is_file()]
    # vLLM is loaded otherwise where it is to choose by likelihood.
    for ways in ([way for way in missing if "likeliest" not in way], [way for way in missing if "likeliest" in way]):
        if ways:
            weights = (base, adapter if case.arm == "llama" else None)
            with get_context("spawn").Pool(1) as pool:
                found = pool.apply(answer, (catalogue, case.arm, ways, weights, case.seed))
            for way, result in found.items():
                write_json(result, kept(args, case, way))
    return {"training": training, "ways": {way: read_json(kept(args, case, way)) for way in args.ways}}


def trained(args: argparse.Namespace, case: Case) -> Path:
    """Where what training measured is kept, once it is over."""
    return Path(args.state) / f"{case.name}.json"


def kept(args: argparse.Namespace, case: Case, way: str) -> Path:
    """Where the result of one line is kept."""
    return Path(args.state) / "results" / f"{case.name} {way} {args.rows}.json"


def print_lines(case: Case, found: dict[str, Any]) -> None:
    if found["training"]:
        done = found["training"]
        print(f"{case.name}: trained in {done['train_seconds']:.0f} s, {done['tokens_per_second']} tokens/s")
    for way, result in found["ways"].items():
        both = (("off", "exact"), ("off, repaired", "repaired"))
        for shown, score in both if way == "off" else ((way, "repaired"),):
            accuracy, low, high = result[score]
            print(
                f"{case.name:34} {shown:22} {accuracy:.3f} ({low:.3f} to {high:.3f})  exact {result['valid']:.3f}  "
                f"{result['rows_per_s']:5.2f} rows/s  {result['prompt']:5.1f} + {result['tokens']:4.1f} tokens",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--targets", nargs="+", choices=("short", "joined", "json"), default=["short"])
    parser.add_argument("--sample-rows", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3407])
    parser.add_argument("--rows", type=int, default=1000, help="test rows to answer")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["off", "tree", "retrieved"])
    parser.add_argument("--state", type=Path, default=Path("build/decoding"))
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        arm, target, size, seed = args.train
        case = Case(arm, target, int(size), int(seed))
        write_json(train(Catalogue(target, args.rows), args.state / "base", case, args.state), trained(args, case))
        return
    for target in args.targets:
        catalogue = Catalogue(target, args.rows)
        votes = nearest.vote(catalogue.neighbours, catalogue.training, catalogue.asked[["split", "id"]])
        right = mark(votes.query("rank == 0"), catalogue.asked, "nearest")["right"]
        print(f"{len(right)} rows, {target} targets; the neighbours' vote: {right.mean():.3f}", flush=True)
        cases = [Case("rag", target, 0, args.seeds[0])] if "rag" in args.arms else []
        if "llama" in args.arms:
            cases += [Case("llama", target, size, seed) for size in args.sample_rows for seed in args.seeds]
        for case in cases:
            print_lines(case, run(args, case))


if __name__ == "__main__":
    main()
