"""How constrained decoding and repair change the language models' answers: item accuracy, rows per second, tokens.

    python benchmarks/decoding.py --arms rag llama --sample-rows 1000 --seeds 3407 --formats short --rows 1000

Run it in a project after `dvc repro retrieve`: rows, neighbours and tree are that project's. `llama` is tuned on
--sample-rows of the training subset, once per seed. Otherwise both arms ask as params.yaml says, with vLLM. All lines
are for the same test rows. Ways to answer:

    off             any text; only an answer that is exactly a path of the tree counts (the baseline)
    off, repaired   the same answers after repair; the neighbours' vote replaces an answer that says nothing
    tree            only paths of the tree can be decoded
    retrieved       only the paths of the row's neighbours; with `, likeliest` the one that is most likely as a whole

Finished lines are kept in --state and not measured again. Delete the folder to start again.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from contexts import open_context

from tillmap.arms import ARMS, schema
from tillmap.arms.context import Context
from tillmap.config.params import read_params
from tillmap.core.files import read_json, read_table, write_json
from tillmap.core.taxonomy import LabelTree
from tillmap.evaluation.bootstrap import cluster_codes, mean_interval
from tillmap.evaluation.metrics import mark
from tillmap.llm.checkpoints import fetch_checkpoint
from tillmap.llm.engines.loading import load_engine
from tillmap.llm.interface.generation import Generation, Machine
from tillmap.postprocessing.predictions import predict
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.vote import vote, votes_by_key
from tillmap.splitting.samples import sample_for_training
from tillmap.tuning.lora import train_adapter
from tillmap.tuning.recipes import choose_recipe

MODELS = ("rag", "llama")
FORMATS = ("short", "joined", "json")
WAYS = ("off", "tree", "retrieved", "retrieved, likeliest")
MACHINE = Machine(dtype="float32", max_model_len=1024, batch_rows=64, kv_cache_gib=1.0, eager=True, lora="merge")
MAX_NEW_TOKENS = {"short": 40, "joined": 64, "json": 96}
NOT_OF_THE_RECIPE = {"checkpoint_steps", "merge", "hub_id"}


class Case(NamedTuple):
    """A model to measure: the arm, its answer format, the rows it is tuned on (0: not tuned), and the seed."""

    arm: str
    answer_format: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm} {self.answer_format}" + (f" {self.size} rows seed {self.seed}" if self.size else "")


class Catalogue:
    """The settings, rows, neighbours and tree of a project, and the test rows that are asked."""

    def __init__(self, answer_format: str, rows: int) -> None:
        self.params = read_params(Path("params.yaml"), schema())
        self.answer_format = answer_format
        table = read_table(Path("data/split/rows.parquet"))
        test = table[table["subset"] == "test"]
        self.training = table[table["subset"] == "train"]
        self.asked = test.sample(min(rows, len(test)), random_state=0).sort_index()
        self.neighbours = read_table(Path("data/neighbours/lexical.parquet"))
        self.levels = LabelTree.from_table(read_table(Path("data/split/tree.parquet"))).levels

    def context(self, arm: str, constrain: str = "off") -> Context:
        """The context of an arm whose answers are constrained in this way."""
        changes = {"answer_format": self.answer_format, "constrain": constrain}
        return open_context(arm, self.params.block(arm).model_copy(update=changes))

    def votes(self) -> pd.DataFrame:
        return vote(self.neighbours, self.training, self.asked[["split", "id"]], self.levels)

    def scores(self, context: Context, completions: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The accuracy of the answers as they are and repaired, with its interval, and the share of valid answers."""
        answer_format = ARMS[context.arm].format_for(context.settings, context.tree)
        repairer = Repairer(context.tree, answer_format, min_score=0.5)
        answers = predict(completions, repairer, votes_by_key(self.votes(), self.levels), context.arm)
        marks = mark(answers, self.asked, context.arm, self.levels)
        exact = marks["repair"].eq("none")
        clusters = cluster_codes(marks["product"])
        for name, right in (("exact", marks["right"] & exact), ("repaired", marks["right"])):
            yield name, [float(right.mean()), *mean_interval(right, clusters)]
        yield "valid", float(exact.mean())


def train(catalogue: Catalogue, base: Path, case: Case, state: Path) -> dict[str, Any]:
    """Tune the base on a sample as the `train` stage does, into a folder of `state`. Returns what training reports."""
    context, how = catalogue.context(case.arm), catalogue.params.train_llama
    policy = context.settings.sample_policy
    sample = sample_for_training(catalogue.training, catalogue.levels, case.size, policy, case.seed)
    conversations = list(ARMS[case.arm].training_examples(context, sample))
    recipe = choose_recipe("ours", how.model_dump(exclude=NOT_OF_THE_RECIPE))
    folder = state / case.name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = state / f"{case.name} checkpoints"
    return train_adapter(conversations, base, recipe, checkpoints, folder, checkpoint_steps=20, seed=case.seed).report()


def answer(
    catalogue: Catalogue, arm: str, ways: Sequence[str], weights: tuple[Path, Path | None], seed: int
) -> dict[str, dict[str, Any]]:
    """Answer all questions in each way with one loaded model: a base and, for `llama`, its adapter."""
    engine: Any = None
    found = {}
    for way in ways:
        context = catalogue.context(arm, way.split(",")[0])
        answer_format = ARMS[arm].format_for(context.settings, context.tree)
        generation = Generation(
            MAX_NEW_TOKENS[catalogue.answer_format], 0.0, seed,
            answers=tuple(answer_format.answers) if way == "tree" else None,
            choose="likelihood" if way.endswith("likeliest") else "greedy",
        )  # fmt: skip
        if engine is None:
            engine = load_engine("vllm", weights[0], MACHINE, generation, weights[1])
        engine.generation = generation
        questions = list(ARMS[arm].questions(context, catalogue.asked))
        began = time.perf_counter()
        completions = [
            each.as_record()
            for start in range(0, len(questions), MACHINE.batch_rows)
            for each in engine.answer(questions[start : start + MACHINE.batch_rows])
        ]
        seconds = time.perf_counter() - began
        found[way] = dict(catalogue.scores(context, completions)) | {
            "rows_per_s": len(questions) / seconds,
            "prompt": sum(each["prompt_tokens"] for each in completions) / len(questions),
            "tokens": sum(each["completion_tokens"] for each in completions) / len(questions),
        }
    return found


def run(args: argparse.Namespace, case: Case) -> dict[str, Any]:
    """Train a model if necessary and ask it in every way. vLLM runs in a process of its own."""
    base, adapter = args.state / "base", args.state / case.name
    catalogue = Catalogue(case.answer_format, args.rows)
    if not base.is_dir():
        fetch_checkpoint(catalogue.params.block(case.arm).base, None, base)
    training: dict[str, Any] = {}
    if case.arm == "llama":
        # In a process of its own, because Unsloth changes the libraries that vLLM needs.
        if not trained(args, case).is_file():
            command = [sys.executable, __file__, "--train", *map(str, case), "--state", str(args.state)]
            subprocess.run(command, check=True)
        training = read_json(trained(args, case))
    missing = [way for way in args.ways if not kept(args, case, way).is_file()]
    # vLLM is loaded with another block size for ranking by likelihood.
    for ways in ([way for way in missing if "likeliest" not in way], [way for way in missing if "likeliest" in way]):
        if ways:
            weights = (base, adapter if case.arm == "llama" else None)
            with get_context("spawn").Pool(1) as pool:
                found = pool.apply(answer, (catalogue, case.arm, ways, weights, case.seed))
            for way, result in found.items():
                write_json(result, kept(args, case, way))
    return {"training": training, "ways": {way: read_json(kept(args, case, way)) for way in args.ways}}


def trained(args: argparse.Namespace, case: Case) -> Path:
    """The file with the report of a finished training."""
    return Path(args.state) / f"{case.name}.json"


def kept(args: argparse.Namespace, case: Case, way: str) -> Path:
    """The file with the result of one line."""
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
    parser.add_argument("--arms", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["short"])
    parser.add_argument("--sample-rows", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[3407])
    parser.add_argument("--rows", type=int, default=1000, help="test rows to answer")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["off", "tree", "retrieved"])
    parser.add_argument("--state", type=Path, default=Path("build/decoding"))
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        arm, name, size, seed = args.train
        case = Case(arm, name, int(size), int(seed))
        write_json(train(Catalogue(name, args.rows), args.state / "base", case, args.state), trained(args, case))
        return
    for name in args.formats:
        catalogue = Catalogue(name, args.rows)
        right = mark(catalogue.votes().query("rank == 0"), catalogue.asked, "nearest", catalogue.levels)["right"]
        print(f"{len(right)} rows, answer format {name}; the neighbours' vote: {right.mean():.3f}", flush=True)
        cases = [Case("rag", name, 0, args.seeds[0])] if "rag" in args.arms else []
        if "llama" in args.arms:
            cases += [Case("llama", name, size, seed) for size in args.sample_rows for seed in args.seeds]
        for case in cases:
            print_lines(case, run(args, case))


if __name__ == "__main__":
    main()
