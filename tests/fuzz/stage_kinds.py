"""The kinds of files that a stage or a command hands to the next, and what a browser and a provider send."""

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import openai
import orjson
import pandas as pd
from kind import BY_ENDING, IN, Files, Kind, own, params_here, parquet, refusing
from safetensors.numpy import save

from stages import audit, candidates, evaluate, ingest, prompts
from stages.context import context_of, neighbours
from tillmap.arms import ARMS
from tillmap.cascade.report import score_routed
from tillmap.cascade.roles import KEPT, ROUTED
from tillmap.cli.estimate import estimate
from tillmap.cli.review import review
from tillmap.cli.run_cache import broken_entries
from tillmap.cli.summary import summary
from tillmap.config import paths
from tillmap.core.completions import Completion, Question, finished
from tillmap.core.files import OUT_OF_FOLD, read_jsonl, read_table, write_jsonl
from tillmap.core.stored import read_conversations, read_predictions, read_rows
from tillmap.core.taxonomy import CONTEST, KEY, LabelPath, LabelTree
from tillmap.core.text import normalise
from tillmap.evaluation.metrics import mark
from tillmap.evaluation.review import guesses
from tillmap.llm.interface.few_shot import Candidates
from tillmap.llm.interface.generation import Generation
from tillmap.llm.interface.inference import plan_generation
from tillmap.lookup.base import look_up
from tillmap.lookup.table import TableSource
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.chat_files import check_examples
from tillmap.providers.client import Service
from tillmap.providers.costs import TokenCounter
from tillmap.providers.requests import ChatSettings
from tillmap.providers.server import ServerEngine
from tillmap.providers.tuning_jobs import Tuning, tune
from tillmap.retrieval import TRAINING_PATHS
from tillmap.retrieval.embedding import Embedder, find_model
from tillmap.review.decisions import open_log
from tillmap.review.page import Page
from tillmap.review.queue import Queue, ReviewRow
from tillmap.review.saving import save_corrections
from tillmap.review.server import HOST, make_app
from tillmap.review.sources import from_audit
from tillmap.tuning.progress import load_progress


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _lines(*values: object) -> bytes:
    return b"".join(_json(value) + b"\n" for value in values)


def _heads(files: Files, some: int = 8) -> Files:
    """The files, those of JSON Lines with their first lines alone."""
    heads = {name: b"".join(content.splitlines(keepends=True)[:some]) for name, content in files.items()}
    return {name: heads[name] if name.endswith(".jsonl") else content for name, content in files.items()}


# What a stage wrote


def _audited() -> Files:
    if not paths.AUDIT.is_dir():
        audit.main(params_here())
    return own(str(paths.AUDIT))()


def _read_audit() -> None:
    rows, tree = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE))
    with refusing():
        shown = evaluate.suspicious_labels(SimpleNamespace(rows=rows, levels=tree.levels))  # type: ignore[arg-type]
        json.dumps(shown, ensure_ascii=False).encode()
    _show_all(from_audit(tree.levels), tree)


def _show_all(queue: Queue, tree: LabelTree) -> None:
    Path("log.jsonl").unlink(missing_ok=True)
    with open_log(Path("log.jsonl"), tree.levels) as log:
        page = Page(queue, log, tree)
        for place in range(len(page)):
            orjson.dumps(page.show(place))
        page.decide(0, None, twins=True)
        orjson.dumps(page.undo(1))


def _asked() -> Files:
    for arm in ("rag", "llama"):
        if not (paths.PROMPTS / arm).is_dir():
            _no_descriptions()
            prompts.main(params_here(), arm)
    return _heads(own(str(paths.PROMPTS / "rag"))(), 4) | _heads(own(str(paths.PROMPTS / "llama"))(), 12)


def _no_descriptions() -> None:
    paths.ABOUT.write_bytes(parquet(pd.DataFrame({"text": ["milk"], "about": ["a drink"]})))


def _read_asked() -> None:
    for name in ("rag", "llama"):
        with refusing():
            context = context_of(params_here(), name)
            with patch.object(type(ARMS[name]), "ask", _answered):
                assert len(list(ARMS[name].answer(context, context.asked))) == len(context.asked)
    with refusing():
        list(read_conversations(paths.PROMPTS / "llama" / "training.jsonl"))
    check_examples(paths.PROMPTS / "llama" / "training.jsonl", TokenCounter("gpt-4o-mini"))


def _answered(_: object, context: Any, questions: list[Question], allowed: Any) -> list[Completion]:
    generation = plan_generation(context.settings, context.seed, allowed)
    for question in questions:
        generation.allowed(question), generation.open_to(question)
    return [finished(question, "A") for question in questions]


def _found() -> Files:
    _no_descriptions()
    return {str(paths.ABOUT): paths.ABOUT.read_bytes(), **own("data/candidates", "data/neighbours/lexical.parquet")()}


def _read_found() -> None:
    params = params_here()
    for name in ("rag", "llama"):
        with refusing():
            prompts.main(params, name)
            for record in read_jsonl(paths.PROMPTS / name / "questions.jsonl"):
                json.dumps(record, allow_nan=False)


def _out_of_fold() -> Files:
    """What `candidates` reads of the arm that proposes paths: its answers, and those to the training rows."""
    file = paths.MODELS / "rerank" / OUT_OF_FOLD
    if not file.is_file():
        keys = read_rows(paths.ROWS).query("subset == 'train'")[[*KEY, *CONTEST]].head(20)
        ranked = pd.concat([keys.assign(rank=rank, score=np.float32(1 - rank)) for rank in (0, 1)])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(parquet(ranked))
    return own(str(file), str(paths.COMPLETIONS / "rerank.jsonl"))()


def _propose() -> None:
    candidates.main(params_here())
    rows, levels = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE)).levels
    Candidates(rows[rows["subset"] == "train"], neighbours(TRAINING_PATHS), levels, usual=True)


# What `tillmap review` reads of the pipeline


def _reviewed() -> Files:
    tree = LabelTree.from_table(read_table(paths.TREE))
    table = read_predictions(paths.PREDICTIONS / "linear.parquet").query("split == 'test'").head(6)
    lines = read_rows(paths.ROWS).set_index(KEY).loc[list(zip(table["split"], table["id"], strict=True))].reset_index()
    shown = lines[[*KEY, "description", "retailer", "price"]].assign(confidence=table["confidence"].to_numpy())
    answers = table[list(tree.levels)].set_axis(guesses(tree.levels), axis=1).reset_index(drop=True)
    queue = pd.concat([shown.assign(teaches=1.5), answers], axis=1)
    log = _decided()
    return {
        str(paths.REVIEW / "linear_needs_review.csv"): queue.to_csv(index=False).encode(),
        str(paths.REVIEW / "linear.parquet"): parquet(table[KEY]),
        str(paths.DECISIONS): log,
        **_heads(own(str(paths.COMPLETIONS / "linear.jsonl"))()),
        **own(str(paths.ROWS), str(paths.TREE))(),
    }


def _decided() -> bytes:
    with open_log(Path("log.jsonl"), CONTEST) as log:
        row = ReviewRow(1, "oat milk", None, 0.5, 1.0)
        log.decide((row,), LabelPath("food", "bread", "rolls", "x"), "linear")
    content = Path("log.jsonl").read_bytes()
    Path("log.jsonl").unlink()
    return content


def _review() -> None:
    corrections = Path(params_here().data.corrections)
    sound = corrections.read_bytes()
    try:
        with patch("tillmap.review.server.serve", _serve), redirect_stdout(io.StringIO()):
            command = partial(review, decisions=paths.DECISIONS, port=0, browser=False)
            for options in ({}, {"save": True}, {"export": Path("out.jsonl")}):
                with refusing():
                    command(arm="linear", **({"labelled": None, "audit": False} | NOT_GIVEN | options))
    finally:
        corrections.write_bytes(sound)


NOT_GIVEN: dict[str, Any] = {"rows": None, "id_": None, "text": None, "who": None, "save": False, "export": None}


def _serve(page: Page, *_: object) -> None:
    for place in range(len(page)):
        orjson.dumps(page.show(place))


def _routed() -> Files:
    routes = read_predictions(paths.PREDICTIONS / "linear.parquet")[[*KEY, "confidence"]]
    roles = np.where(routes["confidence"] < routes["confidence"].median(), ROUTED, KEPT)
    return {"data/cascade/routes.parquet": parquet(routes.assign(subset="test", role=roles))}


def _read_routed() -> None:
    rows, table = read_rows(paths.ROWS), read_predictions(paths.PREDICTIONS / "linear.parquet")
    marks = mark(table, rows[rows["subset"] != "train"], "linear", CONTEST)
    score_routed({"cascade": marks, "linear": marks}, evaluate.read_routes(), "linear", resamples=10, seed=0)


def _metrics() -> Files:
    told = {"rows": 20, "seconds": 2.5, "peak_memory_mib": 300, "prompt_tokens": 90, "completion_tokens": 30}
    sizes = {"questions": 5, "seconds": 0.2, "sample": {"rows": 8}, "all": {"rows": 9}}
    trained = {"tokens": 800, "recipe": {"epochs": 2}, "seconds": 5}
    values = {
        "ingest": {"ingest": {"train_rows": 9, "test_rows": 40, "seconds": 0.5}},
        "infer/rag": {"infer": {"rag": told}},
        "infer/llama": {"infer": {"llama": told}},
        "prompts/rag": {"prompts": {"rag": sizes}},
        "prompts/llama": {"prompts": {"llama": sizes}},
        "train_llama": {"train_llama": trained},
    }
    tables = {"plots/table.txt": b"arm  accuracy\n", "plots/estimate.txt": b"arm  hours\n"}
    return tables | {f"metrics/{name}.json": _json(value) for name, value in values.items()}


def _read_metrics() -> None:
    with redirect_stdout(io.StringIO()):
        with refusing():
            summary()
        estimate("h100")


def _vectors() -> Files:
    return {
        f"{IN}/vectors/vectors.json": _json(["milk", "tea"]),
        f"{IN}/vectors/vectors.safetensors": save({"vectors": np.eye(2, 384, dtype=np.float32)}),
    }


def _read_vectors() -> None:
    embedder = Embedder(find_model(params_here().embedding.model))
    embedder.load_vectors(Path(IN, "vectors"))
    # With other texts, or with none, the model itself would be loaded.
    if known := [text for text in embedder._vectors if normalise(text) == text]:
        assert embedder.encode(known).shape == (len(known), embedder.dimension)


def _run_cache() -> Files:
    folder, whole = "d" * 30 + ".dir", [{"relpath": "a", "md5": "ab" + "c" * 30}]
    outs = [{"path": "x", "md5": "ab" + folder, "hash": "md5"}, {"path": "y", "md5": "ab" + "c" * 30}]
    entry = "outs:\n" + "".join(f"- {_json(out).decode()}\n" for out in outs)
    return {
        f"{IN}/runs/aa/bb/entry": entry.encode(),
        f"{IN}/cache/ab/{folder}": _json(whole),
        f"{IN}/cache/ab/{'c' * 30}": b"x",
    }


def _read_run_cache() -> None:
    store = SimpleNamespace(oid_to_path=lambda oid: f"{IN}/cache/{oid[:2]}/{oid[2:]}")
    cache = SimpleNamespace(local=store, legacy=store)
    broken_entries(SimpleNamespace(stage_cache=SimpleNamespace(cache_dir=f"{IN}/runs"), cache=cache))  # type: ignore[arg-type]


def _progress() -> Files:
    return {f"{IN}/checkpoint-3/progress.json": _json({"step": 3, "seconds": 1.5, "tokens": 90})}


# What a person writes


def _corrections() -> Files:
    path = dict(zip(CONTEST, ("food", "bread", "rolls", "x"), strict=True))
    when = {"when": "2026-03-01T10:15:00+00:00", "who": "a"}
    line = {"split": "train", "id": 1, "text": None, **path, **when}
    lines = [line, line | {"id": None, "text": "oat milk", "price": "1.99", "retailer": "x"}]
    table = pd.DataFrame([line | {"id": "2"}, line | {"text": "tea", "id": ""}])
    return {
        f"{IN}/corrections/review.jsonl": _lines(*lines),
        f"{IN}/corrections/table.csv": table.to_csv(index=False).encode(),
    }


def _read_corrections() -> None:
    place = Path(IN, "corrections")
    for on_bad_row in ("quarantine", "stop"):
        with refusing():
            changes = {"source": "data/demo", "corrections": str(place), "on_bad_row": on_bad_row}
            ingest.main(params_here().model_copy(update={"data": params_here().data.model_copy(update=changes)}))
    with open_log(Path("log.jsonl"), CONTEST) as log:
        row = ReviewRow(1, "oat milk", None, 0.5, 1.0)
        log.decide((row,), LabelPath("food", "bread", "rolls", "x"), "linear")
        save_corrections(log, CONTEST, place)
        log.undo(1)
        save_corrections(log, CONTEST, place)
    Path("log.jsonl").unlink()


def _descriptions() -> Files:
    table = pd.DataFrame({"line": ["MILK 1L", "tea", "दूध"], "what": ["a drink", "leaves", "milk"]})
    return {
        f"{IN}/about.csv": table.to_csv(index=False).encode(),
        f"{IN}/about.jsonl": table.to_json(orient="records", lines=True).encode(),
        f"{IN}/about.parquet": parquet(table),
    }


def _read_descriptions() -> None:
    for ending in ("csv", "jsonl", "parquet"):
        with refusing():
            look_up(["milk 1l", "tea"], TableSource(Path(IN, f"about.{ending}"), "line", "what"), None)


# What a browser sends


def _sent() -> Files:
    return {
        f"{IN}/decide.json": _json({"place": 0, "labels": ["food", "bread", "rolls", "x"], "twins": True}),
        f"{IN}/undo.json": _json({"number": 1}),
        f"{IN}/show.txt": b"place=1",
        f"{IN}/find.txt": b"q=bread%20x",
    }


def _answer_page() -> None:
    paths_ = tuple(LabelPath("food", "bread", name, "x") for name in ("buns", "rolls"))
    tree = LabelTree(CONTEST, paths_, (1, 2))
    rows = [ReviewRow(number, f"line {number}", paths_[0], 0.5, 1.0) for number in range(3)]
    Path("log.jsonl").unlink(missing_ok=True)
    with open_log(Path("log.jsonl"), CONTEST) as log:
        app = make_app(Page(Queue.of(rows), log, tree), "token")
        sent = {name: Path(IN, name).read_bytes() for name in ("show.txt", "find.txt", "decide.json", "undo.json")}
        for name, content in sent.items():
            call, _, ending = name.partition(".")
            posted = ending == "json"
            body, query = (content, b"") if posted else (b"", content)
            status = asyncio.run(_request(app, "POST" if posted else "GET", call, body, query))
            assert status in (200, 400, 409, 413), status


async def _request(app: Any, method: str, call: str, body: bytes, query: bytes) -> int:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": f"/token/{call}",
        "raw_path": b"", "root_path": "", "query_string": query, "headers": [(b"host", HOST.encode())],
        "scheme": "http", "client": (HOST, 1), "server": (HOST, 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


# What a provider sends

CHAT = ChatSettings("m", Generation(max_new_tokens=5, temperature=0.0, seed=1))
ASKED = [Question("test", number, [{"role": "user", "content": "milk"}]) for number in (1, 2)]
MAX_REQUESTS = 80  # a provider that never comes to an end


class _EnoughError(Exception):
    pass


def _provided() -> Files:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}
    token = {"token": "a", "logprob": -0.5}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a | b"}}
    chat = {"id": "c", "object": "chat.completion", "choices": [choice | {"logprobs": {"content": [token]}}]}
    marks = {"tillmap_run": "r", "tillmap_key": "r-0-x"}
    counts = {"completed": 2, "failed": 0, "total": 2}
    batch = {
        "id": "b", "object": "batch", "status": "completed", "created_at": 1, "metadata": marks, "input_file_id": "f",
        "output_file_id": "o", "error_file_id": None, "request_counts": counts, "errors": None, "endpoint": "/v1/x",
        "completion_window": "24h",
    }  # fmt: skip
    job = {
        "id": "j", "object": "fine_tuning.job", "status": "succeeded", "model": "m", "fine_tuned_model": "ft:m",
        "created_at": 1, "metadata": {"tillmap_run": "r", "tillmap_key": "r-0"}, "trained_tokens": 5, "error": None,
    }  # fmt: skip
    file = {"id": "f", "object": "file", "bytes": 5, "created_at": 1, "filename": "x.jsonl", "purpose": "batch"}
    event = {"id": "e", "created_at": 1, "level": "info", "message": "step", "type": "metrics"}
    response = {"status_code": 200, "body": chat | {"usage": usage}}
    lines = [{"custom_id": f"test-{number}", "error": None, "response": response} for number in (1, 2)]
    page = {"object": "list", "has_more": False}
    values = {
        "chat": chat | {"usage": usage},
        "batches": page | {"data": []},
        "jobs": page | {"data": [job]},
        "files": page | {"data": [file | {"status": "processed"}]},
        "events": page | {"data": [event | {"data": {"step": 1, "total_steps": 3}}]},
        "batch": batch,
        "job": job,
        "file": file | {"status": "processed"},
    }
    return {
        **{f"{IN}/{name}.json": _json(value) for name, value in values.items()},
        f"{IN}/content.jsonl": _lines(*lines),
    }


def _provider() -> httpx.MockTransport:
    seen = 0

    def handle(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        seen += 1
        if seen > MAX_REQUESTS:
            raise _EnoughError
        parts = request.url.path.strip("/").split("/")[1:]
        what = {"completions": "chat", "content": "content", "events": "events"}.get(parts[-1])
        if what is None:
            of = "jobs" if "jobs" in parts else parts[0]
            listed = parts[-1] == of and request.method == "GET"
            what = of if listed else {"jobs": "job", "files": "file", "batches": "batch"}[of]
        ending = "jsonl" if what == "content" else "json"
        content = Path(IN, f"{what}.{ending}").read_bytes()
        return httpx.Response(200, content=content, headers={"content-type": "application/json"})

    return httpx.MockTransport(handle)


def _ask_provider() -> None:
    with patch.dict("os.environ", {"OPENAI_API_KEY": "sk-x"}):
        service = Service("http://127.0.0.1/v1", poll_seconds=0, settle_seconds=0)
    client = httpx.Client(transport=_provider())
    service.client = service.once = openai.OpenAI(
        api_key="sk-x", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0
    )
    for folder in ("batch", "tune"):
        shutil.rmtree(Path("provider", folder), ignore_errors=True)
    Path("provider").mkdir(exist_ok=True)
    Path("provider/examples.jsonl").write_bytes(b"{}\n")
    tuning = Tuning("m", "t", 1, 1)
    steps: tuple[Callable[[], list[Completion]], ...] = (
        lambda: ServerEngine(service, CHAT, concurrency=1).answer(ASKED),
        lambda: answer_by_batch(
            ASKED, service, CHAT, limits=Limits(), retries=1, folder=Path("provider/batch"), run="r"
        ),
        lambda: [tune(service, Path("provider/examples.jsonl"), tuning, Path("provider/tune"), "r")][1:],  # type: ignore[list-item]
    )
    for step in steps:
        with refusing(), suppress(_EnoughError):
            write_jsonl((answer.as_record() for answer in step()), Path("provider/answers.jsonl"))


STAGE_KINDS: dict[str, Kind] = {
    "audit": Kind(_audited, _read_audit, BY_ENDING),
    "questions": Kind(_asked, _read_asked, BY_ENDING),
    "candidates": Kind(_found, _read_found, BY_ENDING),
    "out_of_fold": Kind(_out_of_fold, _propose, BY_ENDING),
    "review": Kind(_reviewed, _review, BY_ENDING),
    "routes": Kind(_routed, _read_routed, BY_ENDING),
    "metrics": Kind(_metrics, _read_metrics, BY_ENDING),
    "vectors": Kind(_vectors, _read_vectors, BY_ENDING),
    "run_cache": Kind(_run_cache, _read_run_cache, {"entry": "text", ".dir": "json"}),
    "progress": Kind(_progress, lambda: load_progress(Path(IN, "checkpoint-3")), BY_ENDING),
    "corrections": Kind(_corrections, _read_corrections, BY_ENDING),
    "descriptions": Kind(_descriptions, _read_descriptions, BY_ENDING),
    "page": Kind(_sent, _answer_page, BY_ENDING),
    "provider": Kind(_provided, _ask_provider, BY_ENDING),
}
