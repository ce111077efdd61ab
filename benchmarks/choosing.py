"""What a language model makes of its evidence: item accuracy, tokens and rows per second, by the params of its arm.

    python benchmarks/choosing.py rag --rows 200 "retriever=lexical constrain=off" "retriever=paths" "examples=0"

Run it in a project after `dvc repro candidates`. Each line is a run of the arm with its block of params.yaml and these
changes, which are YAML values (none: the block as it is). All are asked about the same rows, drawn from --subset.
Differences are to the first line, with intervals and tests as in the report. Answers are kept, and not asked for again.
With --notes the prompts may define labels by the notes of a taxonomy file, which nothing else in the project knows:

    python benchmarks/choosing.py rag --rows 120 --notes benchmarks/notes.csv "definitions=0" "definitions=3"

`openai` is asked as params.yaml says, within its budget, after `python -m stages.train openai`.

Does a small model that is tuned to choose improve on the free arm's choice where that arm is not sure?

    python benchmarks/choosing.py llama --unsure 0.5 --subset test --rows 450 --examples 1000 --seeds 3 \\
        "layout=letters retriever=paths candidates=5 choose=likelihood ranking=hidden" ...

With --examples each line is tuned first, once for each seed: `dvc repro base_model@llama` must have been run. With
--unsure the rows are those that linear or rerank is less sure of (one of --doubted), after `dvc repro postprocess`.
Each free arm is compared on the rows that it is less sure of itself, with the answers of the model and with the most
probable ones by both: the product of the model's probability and the free arm's. An interrupted training goes on.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from contexts import TREE, open_context
from ruamel.yaml import YAML

from stages.answers import completions_of, predictions_of
from tillmap.arms import ARMS, proposer, schema
from tillmap.arms.context import TRAINING
from tillmap.arms.rules import AnswerRules
from tillmap.catalogue.codelist import read_code_list
from tillmap.catalogue.formats import RowFile
from tillmap.config.params import read_params
from tillmap.core.completions import TOKENS
from tillmap.core.files import read_table, write_jsonl, write_table
from tillmap.core.taxonomy import KEY, LabelTree
from tillmap.evaluation.bootstrap import mean_interval
from tillmap.evaluation.comparison import compare_arms
from tillmap.evaluation.metrics import clusters_of, mark
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.postprocessing.predictions import make_repairer, predict
from tillmap.retrieval.vote import vote, votes_by_key
from tillmap.splitting.samples import sample_for_training

SHOWN = ("prompt_tokens", "cached_tokens", "completion_tokens")
TOLD = ("examples", "tokens", "tokens_per_second", "padding_share", "train_seconds", "processor_seconds", "last_loss")
SEED = 3407  # of the first training
DOUBTED = ("linear", "rerank")


def changed(block: Any, text: str) -> Any:
    """The arm's block with the changes of a line, such as "retriever=paths examples=0"."""
    values = dict(word.split("=", 1) for word in text.split())
    read = {name: YAML(typ="safe").load(value) for name, value in values.items()}
    read = {name: "off" if value is False and name == "constrain" else value for name, value in read.items()}
    return type(block)(**(block.model_dump() | read))


def with_notes(notes: Path, folder: Path) -> Path:
    """The file of the project's label tree with the notes of a taxonomy file as definitions, in a folder."""
    tree = LabelTree.from_table(read_table(TREE))
    declared = read_code_list(RowFile(notes)).declare(tree.levels, tree.paths)
    write_table(replace(tree, definitions=tuple(map(declared.definition_of, tree))).to_table(), folder / TREE.name)
    return folder / TREE.name


def answer(
    params: Any, arm: str, settings: Any, rows: pd.DataFrame, model: Path | None = None, *, tree: Path = TREE
) -> tuple[pd.DataFrame, list[dict[str, Any]], dict[str, float]]:
    """The predictions of one line, the answers themselves, and what they took a row."""
    context = open_context(arm, settings, tree=tree)
    context.engine, context.provider, context.model = params.engine, params.provider, model or context.model
    records = [each.as_record() for each in ARMS[arm].answer(context, rows)]
    voting, levels = params.neighbours_vote, context.levels
    near = read_table(Path("data/neighbours") / f"{voting.retriever}.parquet")
    votes = votes_by_key(vote(near, context.training, rows[KEY], levels, voting.k, voting.power), levels)
    repairer = make_repairer(AnswerRules.of_arm(ARMS[arm], context), context.tree, params.postprocess, params.embedding)
    took = {name: sum(record[name] for record in records) / len(records) for name in TOKENS}
    took["rows_per_s"] = len(records) / context.notes["seconds"]
    return predict(records, repairer, votes, arm), records, took


def tune(training: Any, arm: str, settings: Any, seed: int, folder: Path) -> dict[str, Any]:
    """Tune the arm's model into a folder, in a process of its own: Unsloth changes the libraries that answer, too."""
    context = replace(open_context(arm, settings, seed), prompts=folder.with_suffix(".prompts"))
    sample = sample_for_training(
        ARMS[arm].teaching(context), context.levels, settings.sample_rows, settings.sample_policy, seed
    )
    examples = ARMS[arm].training_examples(context, sample)
    write_jsonl(({"messages": each} for each in examples), folder.with_suffix(".prompts") / TRAINING)
    began = time.process_time()
    took = ARMS[arm].train(context, training, folder)
    return took | {"processor_seconds": round(time.process_time() - began, 1)}


def tuned_marks(
    params: Any, arm: str, settings: Any, rows: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a model tuned with this seed gets right by itself, and together with the shares of the best free arm."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        for each in (folder, folder.with_suffix(".prompts")):
            each.mkdir()
        with get_context("spawn").Pool(1) as pool:
            told = pool.apply(tune, (getattr(params, f"train_{arm}"), arm, settings, seed, folder))
        print(f"  seed {seed}: " + ", ".join(f"{name} {told[name]}" for name in TOLD), flush=True)
        predictions, records, took = answer(params, arm, settings, rows, folder)
    print("  asked: " + ", ".join(f"{name} {value:.1f}" for name, value in took.items()), flush=True)
    levels = open_context(arm, settings).levels
    both = with_shares(params, arm, settings, predictions, records)
    return mark(predictions, rows, arm, levels), mark(both, rows, arm, levels)


def with_shares(
    params: Any, arm: str, settings: Any, predictions: pd.DataFrame, records: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """The predictions, with the path of the highest product of the model's probability and the best free arm's."""
    best = proposer(params.run.on)
    assert best is not None
    shares, tree = candidate_scores(completions_of(best)), open_context(arm, settings).tree
    decode, levels = ARMS[arm].format_for(settings, tree).decode_open, tree.levels
    best_paths = {}
    for record in records:
        key = record["split"], record["id"]
        known = dict(shares[key])
        paths = [(decode(text), share) for text, share in record["candidates"] or ()]
        if products := [(known.get(path, 0.0) * share, path) for path, share in paths if path]:
            best_paths[key] = max(products)[1]
    keys = predictions[KEY].itertuples(index=False, name=None)
    chosen = [best_paths.get(key, path) for key, path in zip(keys, levels.paths(predictions), strict=True)]
    return predictions.assign(**levels.columns(chosen).set_index(predictions.index))


def compare(name: str, found: Sequence[pd.DataFrame], free: pd.DataFrame) -> None:
    """Print the mean accuracy of the seeds and the free arm's, on rows that it marked, and the difference."""
    own = [each.merge(free[KEY], on=KEY) for each in found]
    base = free.merge(own[0][KEY], on=KEY)
    right = np.array([each["right"] for each in own], dtype=np.int64)
    gains = (right - base["right"].to_numpy(np.int64)).sum(axis=0)
    low, high = mean_interval(gains, clusters_of(base), bounds=(-len(own), len(own)))
    each = " ".join(f"{share:.3f}" for share in right.mean(axis=1))
    print(
        f"    {name:8} {right.mean():.3f} (seeds {each}), free {base['right'].mean():.3f}, difference "
        f"{gains.mean() / len(own):+.3f} ({low / len(own):+.3f} to {high / len(own):+.3f}), {len(base)} rows",
        flush=True,
    )


def run_tuned(params: Any, args: argparse.Namespace, rows: pd.DataFrame) -> None:
    """Tune and ask each line with each seed."""
    levels = open_context(args.arm, params.block(args.arm)).levels
    free = {arm: mark(predictions_of(arm), rows, arm, levels) for arm in args.doubted}
    for text in args.lines:
        settings = changed(params.block(args.arm), f"{text} sample_rows={args.examples}")
        print(text, flush=True)
        marks = [tuned_marks(params, args.arm, settings, rows, SEED + seed) for seed in range(args.seeds)]
        for arm, own in free.items():
            unsure = own[own["confidence"] < args.unsure] if args.unsure else own
            print(f"  where {arm} is unsure, against {arm}")
            for name, found in zip(("alone", "product"), zip(*marks, strict=True), strict=True):
                compare(name, found, unsure)


def run_untuned(params: Any, args: argparse.Namespace, rows: pd.DataFrame, tree: Path) -> None:
    """Ask each line."""
    levels = open_context(args.arm, params.block(args.arm)).levels
    marks: dict[str, pd.DataFrame] = {}
    if args.unsure:
        for arm in args.doubted:
            print(f"{arm} alone, {len(rows)} rows: {mark(predictions_of(arm), rows, arm, levels)['right'].mean():.3f}")
    for text in args.lines:
        predictions, _, took = answer(params, args.arm, changed(params.block(args.arm), text), rows, tree=tree)
        marks[text] = mark(predictions, rows, args.arm, levels)
        own = compare_arms({text: marks[text], **marks}, args.lines[0], seed=1) if len(marks) > 1 else None
        line = f"{marks[text]['right'].mean():.3f}"
        if own is not None:
            found = own[own["arm"] == text].iloc[0]
            line += f"  {found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f}) {found['verdict']}"
        exact = marks[text]["repair"].eq("none").mean()
        tokens = " ".join(f"{took[name]:.0f}" for name in SHOWN)
        print(f"{text:60} {line}  exact {exact:.2f}  tokens {tokens}  {took['rows_per_s']:.1f} rows/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=[name for name, arm in ARMS.items() if not arm.free])
    parser.add_argument("lines", nargs="+", metavar="CHANGES")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--subset", default="calibration", choices=["calibration", "dev", "test"])
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--unsure", type=float, help="only rows that a doubted arm is less sure of")
    parser.add_argument(
        "--doubted", nargs="+", default=DOUBTED, choices=[name for name, arm in ARMS.items() if arm.free]
    )
    parser.add_argument("--notes", type=Path, help="a taxonomy file, whose notes the prompts may show")
    parser.add_argument("--examples", type=int, help="tune each line on so many first")
    parser.add_argument("--seeds", type=int, default=1, help="of the training")
    args = parser.parse_args()
    params = read_params(Path("params.yaml"), schema())
    table = read_table(Path("data/split/rows.parquet"))
    rows = table[table["subset"] == args.subset]
    if args.unsure:
        doubted = pd.concat([predictions_of(arm)[[*KEY, "confidence"]] for arm in args.doubted])
        rows = rows.merge(doubted.loc[doubted["confidence"] < args.unsure, KEY].drop_duplicates(), on=KEY)
    rows = rows.sample(min(args.rows, len(rows)), random_state=args.seed).sort_index()
    if args.examples:
        run_tuned(params, args, rows)
        return
    with TemporaryDirectory() as folder:
        run_untuned(params, args, rows, with_notes(args.notes, Path(folder)) if args.notes else TREE)


if __name__ == "__main__":
    main()
