"""What is damaged, and what then reads it: one `Kind` for each kind of input and artifact.

More are in `model_kinds`, `stage_kinds`, `run_kinds` and `setting_kinds`.

A target runs in a copy of a small trained project. It may raise a TillmapError, and nothing else.
"""

import bz2
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
from kind import BY_ENDING, IN, Files, Kind, own, params_here, parquet, refusing
from model_kinds import MODEL_KINDS
from run_kinds import RUN_KINDS
from safetensors.numpy import save
from setting_kinds import SETTING_KINDS
from stage_kinds import STAGE_KINDS

from stages import stratify
from stages.answers import training_usage, usage_of
from tillmap.arms import schema
from tillmap.arms.rules import AnswerRules
from tillmap.catalogue.codelist import read_code_list
from tillmap.catalogue.counts import count_rows, find_contradictions
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.proposal import propose, sample_of
from tillmap.catalogue.source import read_source
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.config.profiles import apply_profiles
from tillmap.core.completions import Question
from tillmap.core.files import read_table
from tillmap.core.run_state import AnswerLog, read_answers
from tillmap.core.stored import read_completions, read_job, read_neighbours, read_rows
from tillmap.core.taxonomy import CONTEST, KEY, LabelTree
from tillmap.evaluation.ledger import bill_arms, estimate_table
from tillmap.llm.checkpoints import check_adapter, check_checkpoint
from tillmap.llm.interface.generation import Generation
from tillmap.lookup.base import Cache, LookupFailedError
from tillmap.postprocessing.calibration import candidate_scores, make_signals
from tillmap.postprocessing.predictions import make_repairer, predict
from tillmap.providers.batches import _Run
from tillmap.providers.cancel import _open, cancel_run
from tillmap.providers.requests import ChatSettings
from tillmap.providers.state import RunState
from tillmap.providers.tuned_model import untuned_record
from tillmap.rerank import reranker
from tillmap.rerank.reranker import Reranker
from tillmap.rerank.trees import Trees
from tillmap.retrieval.base import read_tensors
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.vote import vote
from tillmap.review.decisions import corrections, open_log, read_decisions
from tillmap.review.sources import from_file, from_pipeline
from tillmap.serving.feed import open_feed
from tillmap.serving.labeller import open_arm
from tillmap.serving.submission import read_answers as read_submitted
from tillmap.serving.submission import write_submission

ROWS = [
    {"indoml_id": 1, "description": "cptn obbhmpt 800 g", "retailer": "bellstall", "price": 1.53},
    {"indoml_id": 2, "description": "CRÈME fraîche, 5%", "retailer": None, "price": "1,99 €"},
    {"indoml_id": "a-3", "description": "tea; green | \"bio\"", "retailer": "", "price": None},
    {"indoml_id": 4, "description": "दूध 1 l", "retailer": "x", "price": -2},
]  # fmt: skip
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
BATCH = pd.DataFrame(
    {
        "key": [1, 2, 3],
        "description": ["cptn obbhmpt 800 g", "CRÈME fraîche, 5%", "tea green"],
        "retailer": ["bellstall", "", "x"],
        "price": [1.5, np.nan, -2.0],
    }
).astype({"key": object})


@cache
def params():
    return read_params(Path(__file__).parents[2] / "params.yaml", schema())


def _csv() -> bytes:
    text = pd.DataFrame(ROWS).to_csv(index=False)
    return text.encode()


def _rows_table() -> bytes:
    return parquet(pd.DataFrame(ROWS).assign(indoml_id=range(4), price=[1.5, 1.99, None, -2.0]))


def _zip(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../rows", content)
    return sink.getvalue()


def _feed(name: str) -> Callable[[], None]:
    def run() -> None:
        file = Path(IN) / name
        for on_bad_row in ("quarantine", "stop"):
            with refusing():
                feed = open_feed(file, params().data, on_bad_row=on_bad_row)
                feed.list_bad(Path("out.csv"))
                checked = feed.check()
                assert sum(map(len, feed.batches(3))) == checked.rows
        with refusing():
            propose(sample_of(RowFile(file)))

    return run


def _input(name: str, content: Callable[[], bytes]) -> Callable[[], Files]:
    return lambda: {f"{IN}/{name}": content()}


def _contest() -> Files:
    demo = Path("data/demo")
    heads = {file.name: file.read_bytes().splitlines(keepends=True)[:12] for file in demo.iterdir()}
    return {f"{IN}/shop/{name}": b"".join(lines) for name, lines in heads.items()}


def _read_contest() -> None:
    for on_bad_row in ("quarantine", "stop"):
        with refusing():
            data = params().data.model_copy(update={"source": f"{IN}/shop", "on_bad_row": on_bad_row})
            source = read_source(data, params().taxonomy)
            count_rows(source.rows, source.levels)
            find_contradictions(source.rows, source.levels)


CODES = """code;parent;label;description;includes;excludes
01;;Food;All food;;
01.1;01;Bread and cereals;;Bread;Cakes
01.1.1;01.1;Bread;;"Bread; rolls, sliced or not";Sandwiches
01.1.2;01.1;Bread;;;
02;;Drinks;;;
"""
PATHS = "path,label\nFood > Bread > Rolls,rolls\nFood > Tea,tea\nFood,food\n"


def _read_codes() -> None:
    for name in ("codes.csv", "paths.csv"):
        with refusing():
            codes = read_code_list(RowFile(Path(IN) / name))
            codes.find("01.1"), codes.depth
            codes.declare(CONTEST, [])


def _read_params() -> None:
    read_params(Path("params.yaml"), schema())


def _profile() -> Files:
    values = "run:\n  rag: true   # on\nrag: {examples: 3, base: x/y}\nengine: {batch_rows: 8, kv_cache_gib: 0.25}\n"
    return {f"{IN}/mine.yaml": values.encode()}


def _apply_profile() -> None:
    sound = Path("params.yaml").read_bytes()
    try:
        apply_profiles(["mine"], Path("params.yaml"), Path(IN), schema())
    finally:
        Path("params.yaml").write_bytes(sound)


def _decisions() -> Files:
    path = dict(zip(CONTEST, ["food", "bread", "rolls", "x"], strict=True))
    row = {"split": "", "id": 1, "text": "milk", "answer": path, "confidence": 0.5}
    when = "2026-01-01T00:00:00Z"
    decision = {
        "number": 1,
        "when": when,
        "who": None,
        "source": "linear",
        "labels": path,
        "rows": [row, row | {"id": "b"}],
    }
    lines = [decision, {"number": 2, "when": when, "who": "a", "undo": 1}, decision | {"number": 3, "labels": None}]
    return {f"{IN}/log.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()}


def _read_decisions() -> None:
    log = Path(IN, "log.jsonl")
    with refusing():
        corrections(read_decisions(log, CONTEST), CONTEST)
    with open_log(log, CONTEST) as opened:
        corrections(opened, CONTEST)


def _queue_files() -> Files:
    from tillmap.evaluation.review import GUESS

    row = {
        "split": "test",
        "id": 0,
        "description": "tea",
        "retailer": "NA",
        "price": "1.00",
        "confidence": 0.4,
        "teaches": 1,
    }
    row |= {GUESS.format(level): "x" for level in CONTEST}
    table = pd.DataFrame([row, row | {"id": 1}])
    return {
        "data/review/linear_needs_review.csv": table.to_csv(index=False).encode(),
        "data/review/linear.parquet": parquet(pd.DataFrame({"split": ["test", "test"], "id": [0, 1]})),
    }


def _answers(name: str) -> Callable[[], Files]:
    def files() -> Files:
        rows = pd.read_parquet("data/predictions/linear.parquet")
        rows = rows[rows["split"] == "test"].head(8)
        table = rows[["id", *CONTEST, "confidence", "status"]].rename(columns={"id": "indoml_id"})
        content = {"csv": lambda: table.to_csv(index=False).encode(), "parquet": lambda: parquet(table)}
        lines = table.to_json(orient="records", lines=True).encode()
        return {f"{IN}/answers.{name}": content.get(name, lambda: lines)()}

    return files


def _submit(name: str) -> Callable[[], None]:
    def run() -> None:
        file, tree = Path(IN, f"answers.{name}"), LabelTree.from_table(read_table(paths.TREE))
        with refusing():
            answers = read_submitted(file, CONTEST)
            write_submission(answers, answers["id"], tree, "me", Path("out.zip"), id_name="indoml_id", unseen=True)
        lines = open_feed(Path("data/demo/test.features"), params().data)
        from_file(RowFile(file), lines, CONTEST)

    return run


def _label(arm: str, confidence: str = "own") -> Callable[[], None]:
    def run() -> None:
        labeller = open_arm(arm, params_here(), confidence)  # type: ignore[arg-type]
        assert len(labeller.label(BATCH, explain=2)) == len(BATCH)
        _ = labeller.seen

    return run


def _search() -> None:
    index = LexicalRetriever.load(paths.INDEX)
    for exact in (10**6, 0):  # of texts, up to which all are compared
        index = LexicalRetriever(
            index.texts, index.vectoriser, index.documents, {**index.settings, "flat_up_to": exact}
        )
        index.search(["cptn obbhmpt 800 g", "", "tea"], 5)


def _tensors() -> Files:
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.zeros((2, 3), np.int64), "c": np.ones(1, np.bool_)}
    return {f"{IN}/x.safetensors": save(arrays)}


@cache
def _lightgbm() -> str:
    import lightgbm

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 5)).astype(np.float32)
    data = lightgbm.Dataset(rows, (rows[:, 0] > rows[:, 1]).astype(int))
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "num_leaves": 6, "use_missing": False}
    return str(lightgbm.train(settings, data, 3).model_to_string())


def _read_trees() -> None:
    Trees.load(Path(IN, "trees.txt")).score(np.array([[0, 1, np.nan, np.inf, -1]] * 70, np.float32))


def _reranker() -> Files:
    about = {
        "format": reranker._FORMAT,
        "reranks": True,
        "candidates": 20,
        "unseen_paths": True,
        "read_brand": False,
        "trials": [],
    }
    about |= {"sharpness": 1.0, "corrected": False}
    return {f"{IN}/rerank/reranker.json": json.dumps(about).encode(), f"{IN}/rerank/trees.txt": _lightgbm().encode()}


def _read_tree() -> None:
    tree = LabelTree.from_table(read_table(Path(IN, "tree.parquet")))
    tree.ranked, tree.is_strict, tree.code_of(tree.paths[0]), tree.to_table()


@cache
def _repairer():
    rules, tree = AnswerRules.load(paths.RULES / "linear"), LabelTree.from_table(read_table(paths.TREE))
    return make_repairer(rules, tree, params_here().postprocess, params_here().embedding), tree


def _read_completions() -> None:
    repairer, tree = _repairer()
    rows = read_rows(paths.ROWS)
    for arm in ("linear", "nearest"):
        with refusing():
            answers = list(read_completions(paths.COMPLETIONS / f"{arm}.jsonl"))
            table = predict(answers, repairer, {}, arm)
            make_signals(answers, table, rows, {arm: candidate_scores(answers)}, tree)


def _some_completions() -> Files:
    return {name: b"".join(content.splitlines(keepends=True)[:10]) for name, content in own(
        "data/completions/linear.jsonl", "data/completions/nearest.jsonl")().items()}  # fmt: skip


def _read_tables() -> None:
    rows, neighbours = read_rows(paths.ROWS), read_neighbours(paths.NEIGHBOURS / "lexical.parquet")
    AnswerRules.load(paths.RULES / "linear")
    train = rows["subset"] == "train"
    vote(neighbours, rows[train], rows.loc[~train, KEY].head(20), CONTEST, 5, 1.0)


def _usage() -> None:
    usage = {arm: usage_of(arm) for arm in ("linear", "nearest", "rerank")}
    training = {arm: training_usage(arm, usage[arm]) for arm in usage}
    costs = bill_arms(usage, training, params_here().provider.prices, params_here().costs, 100)
    estimate_table(costs, usage)


def _read_job() -> None:
    assert isinstance(read_job(Path("models/openai/job.json"))["model"], str)


def _state() -> Files:
    state = {
        "service": {"base_url": "http://127.0.0.1/v1", "key_variable": "OPENAI_API_KEY", "run": "r"},
        "records": {"k": {"kind": "batch", "id": "b", "asked": 1.0, "ended": None}},
    }
    return {f"{IN}/run/state.json": json.dumps(state).encode()}


def _read_state() -> None:
    state = RunState(Path(IN, "run"))
    for record in state.records.values():
        record["ended"], record["id"]
    # The provider is asked in the kind `provider`; here, whether its address and its key are found.
    with (
        patch.dict("os.environ", {"OPENAI_API_KEY": "sk-x"}),
        patch("tillmap.providers.cancel._cancel_all", _count_open),
    ):
        cancel_run(Path(IN, "run"))


def _count_open(folder: Path, service: object, run: str) -> int:
    return len(_open(RunState(folder)))


def _log() -> Files:
    log, file = AnswerLog(Path(IN, "run.jsonl")), Path(IN, "run.jsonl")
    log.add({"a": {"id": 1}, "b": {"id": 2}}, 1.5)
    log.add({"c": {}}, 0)
    return {str(file): file.read_bytes()}


def _read_log() -> None:
    read_answers(Path(IN, "run.jsonl"), {"a", "b"})
    log = AnswerLog(Path(IN, "run.jsonl"))
    log.add({"a": {"id": 1}}, 1.0)
    log.seconds(["a"])


QUESTION = Question("test", 1, [{"role": "user", "content": "milk"}], None)
CHAT = ChatSettings("m", Generation(max_new_tokens=5, temperature=0.0, seed=1))


def _batch() -> Files:
    token = {"token": "a", "logprob": -0.5}
    choice = {"message": {"content": "a | b", "refusal": None}, "logprobs": {"content": [token]}}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    body = {"choices": [choice], "usage": usage}
    lines = [
        {"custom_id": "test-1", "response": {"status_code": 200, "body": body}, "error": None},
        {"custom_id": "test-2", "error": None, "response": {
            "status_code": 400, "body": {"error": {"code": "x", "message": "no", "param": "stop"}},
        }},
        {"custom_id": "test-3", "response": None, "error": {"code": "batch_expired", "message": "late"}},
    ]  # fmt: skip
    sent = [{"custom_id": f"test-{number}", "body": {}} for number in (1, 2, 3)]
    files = {"k.output.jsonl": lines, "k.jsonl": sent}
    return {f"{IN}/{name}": "".join(json.dumps(line) + "\n" for line in each).encode() for name, each in files.items()}


def _read_batch() -> None:
    run = _Run.__new__(_Run)
    run._questions = {f"test-{number}": Question("test", number, [], None) for number in (1, 2, 3)}
    run._chat, run._tries, run._answered, run._failures = CHAT, 3, {}, {}
    run._service = SimpleNamespace(redact=str)
    run._state = SimpleNamespace(
        folder=Path(IN), records={"k": {"refused": False, "ended": "completed", "reasons": {}}}
    )
    run._collect("k")


def _http() -> Files:
    return {f"{IN}/answer.json": b'{"results": [{"snippet": "a cheese", "n": 1}], "more": null}'}


def _read_http() -> None:
    from tillmap.lookup.http import HttpSource, SearchApi, _UnusableError

    content = Path(IN, "answer.json").read_bytes()
    source = HttpSource(SearchApi("http://127.0.0.1/", "q", "results.0.snippet"))
    for status in (200, 404, 500):
        with suppress(_UnusableError, LookupFailedError):
            assert len(source._described(status, content)) <= 200


def _cache() -> Files:
    line = {"source": "s", "text": "milk", "about": "a drink", "requests": 1}
    return {f"{IN}/answers.jsonl": "".join(json.dumps(line | {"text": text}) + "\n" for text in "abc").encode()}


def _read_cache() -> None:
    cache = Cache(Path(IN, "answers.jsonl"))
    cache.get("s", "a")
    cache.requests()
    cache.save()


def _checkpoint() -> Files:
    weights = save(
        {
            "a": np.zeros(3, np.float32),
            "q.lora_A.weight": np.zeros(2, np.float32),
            "q.lora_B.weight": np.zeros(2, np.float32),
        }
    )
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "model.safetensors"}}
    return {
        f"{IN}/model/config.json": json.dumps(
            {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "float32"}
        ).encode(),
        f"{IN}/model/tokenizer_config.json": json.dumps({"tokenizer_class": "X", "chat_template": "{{ m }}"}).encode(),
        f"{IN}/model/model.safetensors.index.json": json.dumps(index).encode(),
        f"{IN}/model/model.safetensors": weights,
        f"{IN}/adapter/adapter_config.json": json.dumps(
            {"peft_type": "LORA", "r": 8, "modules_to_save": None, "rank_pattern": {}}
        ).encode(),
        f"{IN}/adapter/adapter_model.safetensors": weights,
    }


def _read_checkpoint() -> None:
    with refusing():
        check_checkpoint(Path(IN, "model"))
    check_adapter(Path(IN, "adapter"))


KINDS: dict[str, Kind] = {
    "csv": Kind(_input("rows.csv", _csv), _feed("rows.csv"), "csv"),
    "jsonl": Kind(_input("rows.jsonl", lambda: LINES), _feed("rows.jsonl"), "jsonl"),
    "json": Kind(_input("rows.json", lambda: json.dumps(ROWS, indent=1).encode()), _feed("rows.json"), "json"),
    "parquet": Kind(_input("rows.parquet", _rows_table), _feed("rows.parquet"), "parquet"),
    "gz": Kind(_input("rows.jsonl.gz", lambda: LINES), _feed("rows.jsonl.gz"), "jsonl", gzip.compress),
    "zst": Kind(
        _input("rows.csv.zst", _csv),
        _feed("rows.csv.zst"),
        "csv",
        lambda plain: pa.compress(plain, codec="zstd", asbytes=True),
    ),
    "bz2": Kind(_input("rows.csv.bz2", _csv), _feed("rows.csv.bz2"), "csv", bz2.compress),
    "zip": Kind(_input("rows.csv.zip", _csv), _feed("rows.csv.zip"), "csv", _zip),
    "contest": Kind(_contest, _read_contest, "jsonl"),
    "taxonomy": Kind(
        lambda: {f"{IN}/codes.csv": CODES.encode(), f"{IN}/paths.csv": PATHS.encode()}, _read_codes, "csv"
    ),
    "params": Kind(own("params.yaml"), _read_params, "text"),
    "profile": Kind(_profile, _apply_profile, "text"),
    "decisions": Kind(_decisions, _read_decisions, "jsonl"),
    "queue": Kind(_queue_files, lambda: from_pipeline("linear", CONTEST), BY_ENDING),
    "answers_csv": Kind(_answers("csv"), _submit("csv"), "csv"),
    "answers_jsonl": Kind(_answers("jsonl"), _submit("jsonl"), "jsonl"),
    "answers_parquet": Kind(_answers("parquet"), _submit("parquet"), "parquet"),
    "safetensors": Kind(_tensors, lambda: read_tensors(Path(IN, "x.safetensors")), "safetensors"),
    "linear": Kind(own("models/linear/all"), _label("linear"), BY_ENDING),
    "confidence": Kind(own("models/confidence/linear", "models/seen.json"), _label("linear"), BY_ENDING),
    "nearest": Kind(own("data/index", "data/split"), _label("nearest"), BY_ENDING),
    "index": Kind(own("data/index"), _search, BY_ENDING),
    "trees": Kind(lambda: {f"{IN}/trees.txt": _lightgbm().encode()}, _read_trees, "text"),
    "reranker": Kind(_reranker, lambda: Reranker.load(Path(IN, "rerank")), BY_ENDING),
    "tree": Kind(lambda: {f"{IN}/tree.parquet": paths.TREE.read_bytes()}, _read_tree, "parquet"),
    "completions": Kind(_some_completions, _read_completions, "jsonl"),
    "tables": Kind(
        own("data/answer_rules/linear", "data/neighbours", "data/split/rows.parquet"), _read_tables, BY_ENDING
    ),
    "usage": Kind(own("data/usage"), _usage, "json"),
    "levels": Kind(
        own("data/raw/levels.json", "data/raw/rows.parquet"), lambda: stratify.main(params_here()), BY_ENDING
    ),
    "job": Kind(
        lambda: {"models/openai/job.json": json.dumps(untuned_record("tuned", "m")).encode()}, _read_job, "json"
    ),
    "state": Kind(_state, _read_state, "json"),
    "run_log": Kind(_log, _read_log, "jsonl"),
    "batch": Kind(_batch, _read_batch, "jsonl"),
    "http": Kind(_http, _read_http, "json"),
    "lookups": Kind(_cache, _read_cache, "jsonl"),
    "checkpoint": Kind(_checkpoint, _read_checkpoint, BY_ENDING),
    **MODEL_KINDS,
    **STAGE_KINDS,
    **RUN_KINDS,
    **SETTING_KINDS,
}
