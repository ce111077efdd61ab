"""A local OpenAI: Files, Fine-tuning, Batches and Chat over HTTP on 127.0.0.1, with faults to order.

Its state moves on when it is looked at and never with the clock. `billed` counts the answers that a customer of the
real service would pay for. Where the provider's own description of its interface lies beside the project, every
request and response is checked against it, and `violations` names what differs.
"""

import json
import random
import re
import socket
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jsonschema

SPEC = Path(__file__).parents[2] / "shared/data/openai-openapi-subset.json"
KEY = "sk-test-0123456789"
ENDED = ("completed", "failed", "expired", "cancelled")
NOW = 1_800_000_000


@dataclass
class Fault:
    """The next `times` requests that match get `status` (None: the connection drops), before or after their effect."""

    match: str
    status: int | None = 500
    after: bool = False
    times: int = 1
    retry_after: int | None = None
    message: str = "told to fail"
    code: str | None = None
    skip: int = 0


@dataclass
class Plan:
    """What becomes of a batch: its end, what it says of itself, and which of its rows get no answer."""

    end: str = "completed"
    errors: list = field(default_factory=list)
    unanswered: set = field(default_factory=set)  # custom ids, or a share of the lines from the end
    looks: int = 2  # until it is over
    late_output: int = 0  # looks after its end until it names its files
    damaged: int = 0  # downloads of its output that come cut short


class Refused(Exception):
    def __init__(self, status, message, code=None, param=None):
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def refuse_fields(body):
    """What the newer models do not accept: the guide to GPT-6 names the sampling fields, reports `stop`."""
    if not body["model"].startswith(("gpt-5", "gpt-6")):
        return
    reasons = body.get("reasoning_effort", "medium") != "none"
    sampling = ("temperature", "top_p", "logprobs", "top_logprobs") if reasons else ()
    for name in ("max_tokens", "stop", *sampling):
        if name in body:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            raise Refused(400, message, "unsupported_parameter", name)


class LocalOpenAI:
    """The service's state. `plans` are taken by batches in the order of their creation, then `plan` for all."""

    def __init__(self, answer=None):
        self.answer = answer or (lambda body: f"answer to {body['messages'][-1]['content']}")
        self.files, self.batches, self.jobs = {}, {}, {}
        self.billed, self.calls = Counter(), Counter()
        self.faults, self.plans, self.plan = [], deque(), Plan()
        self.job_plans = deque()
        self.violations, self.bodies = [], []
        self.enqueued_limit = None
        self.file_lag = self.list_lag = 0
        self.tuning_closed = False
        self.cache_writes = 0  # tokens of each prompt that are billed as written to the cache
        self.on_call = lambda method, path: None
        self.active = self.max_active = 0
        self._hidden, self._validators = Counter(), {}
        self._lock = threading.RLock()
        self._count = 0

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def forget(self):
        """Know of nothing, as at the start."""
        with self._lock:
            for known in (self.files, self.batches, self.jobs, self.billed, self.calls):
                known.clear()
            self._count = 0

    def handle(self, method, target, body):  # noqa: PLR0911, PLR0912  # a table of addresses
        """The status and value, or bytes, of one request."""
        url = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        parts = url.path.removeprefix("/v1/").split("/")
        if parts == ["chat", "completions"]:
            return self._chat(body)
        with self._lock:
            match method, parts:
                case "POST", ["files"]:
                    return self._upload(body)
                case "GET", ["files"]:
                    purpose = query.get("purpose")
                    return self._page([file["object"] for file in self.files.values()
                                       if purpose in (None, file["object"]["purpose"])], query)  # fmt: skip
                case "GET", ["files", name]:
                    return self._file(name)["object"]
                case "GET", ["files", name, "content"]:
                    return self._content(name)
                case "POST", ["batches"]:
                    return self._new_batch(body)
                case "GET", ["batches"]:
                    return self._page(self._shown(self.batches), query)
                case "GET", ["batches", name]:
                    return self._look_at_batch(self._known(self.batches, name))
                case "POST", ["batches", name, "cancel"]:
                    return self._cancel_batch(self._known(self.batches, name))
                case "POST", ["fine_tuning", "jobs"]:
                    return self._new_job(body)
                case "GET", ["fine_tuning", "jobs"]:
                    return self._page(self._shown(self.jobs), query)
                case "GET", ["fine_tuning", "jobs", name]:
                    return self._look_at_job(self._known(self.jobs, name))
                case "GET", ["fine_tuning", "jobs", name, "events"]:
                    return self._page(list(self._known(self.jobs, name)["events"]), query)
                case "POST", ["fine_tuning", "jobs", name, "cancel"]:
                    return self._cancel_job(self._known(self.jobs, name))
        raise Refused(404, f"unknown address {method} {url.path}")

    def _id(self, prefix):
        self._count += 1
        return f"{prefix}{self._count:04d}"

    def _known(self, things, name):
        if name not in things:
            raise Refused(404, f"No such object: {name}")
        return things[name]

    def _page(self, newest_last, query):
        things = list(reversed(newest_last))
        names = [thing["id"] for thing in things]
        start = names.index(query["after"]) + 1 if query.get("after") in names else 0
        shown = things[start : start + int(query.get("limit", 10_000))]
        ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": "", "last_id": ""}
        return {"object": "list", "data": shown, "has_more": start + len(shown) < len(things), **ends}

    def _shown(self, things):
        """What a listing shows: something new only after `list_lag` listings."""
        visible = []
        for name, thing in things.items():
            self._hidden[name] += 1
            if self._hidden[name] > self.list_lag:
                visible.append(thing["object"])
        return visible

    def add_file(self, name, purpose, content):
        file = {"id": self._id("file-"), "object": "file", "bytes": len(content), "created_at": NOW + self._count,
                "filename": name, "purpose": purpose, "status": "processed"}  # fmt: skip
        self.files[file["id"]] = {"object": file, "content": content, "missing": self.file_lag, "damaged": 0}
        return file

    def _upload(self, form):
        if form["purpose"] not in ("batch", "fine-tune"):
            raise Refused(400, "invalid purpose")
        return self.add_file(form["filename"], form["purpose"], form["file"])

    def _file(self, name):
        file = self._known(self.files, name)
        if file["missing"] > 0:
            file["missing"] -= 1
            raise Refused(404, f"No such File object: {name}")
        return file

    def _content(self, name):
        file = self._file(name)
        if file["damaged"] > 0:
            file["damaged"] -= 1
            return file["content"][: -len(file["content"]) // 3]
        return file["content"]

    def _new_batch(self, body):
        if body["input_file_id"] not in self.files or self.files[body["input_file_id"]]["missing"] > 0:
            raise Refused(400, f"Cannot find file {body['input_file_id']}, or the project does not have access to it.")
        lines = self.files[body["input_file_id"]]["content"].splitlines()
        batch = {"id": self._id("batch_"), "object": "batch", "endpoint": body["endpoint"], "status": "validating",
                 "input_file_id": body["input_file_id"], "completion_window": "24h", "created_at": NOW + self._count,
                 "metadata": body.get("metadata"),
                 "request_counts": {"total": len(lines), "completed": 0, "failed": 0}}  # fmt: skip
        plan = self.plans.popleft() if self.plans else self.plan
        self.batches[batch["id"]] = {"object": batch, "plan": plan, "looks": 0, "late": plan.late_output,
                                     "lines": [json.loads(line) for line in lines]}  # fmt: skip
        return batch

    def _tokens(self, record):
        return sum(len(message["content"]) // 4 + 4 for line in record["lines"] for message in line["body"]["messages"])

    def _look_at_batch(self, record):
        batch, plan = record["object"], record["plan"]
        if batch["status"] in ENDED:
            if record["late"] > 0:
                record["late"] -= 1
            elif "held" in record:
                batch |= record.pop("held")
            return batch
        record["looks"] += 1
        wrong = self._validate(record) if record["looks"] == 1 else []
        if wrong:
            batch |= {"status": "failed", "failed_at": NOW, "errors": {"object": "list", "data": wrong}}
        elif record["looks"] > plan.looks or batch["status"] == "cancelling":
            self._end_batch(record, "cancelled" if batch["status"] == "cancelling" else plan.end)
        else:
            batch["status"] = "finalizing" if record["looks"] == plan.looks else "in_progress"
        return batch

    def _validate(self, record):
        if record["plan"].end == "failed":
            return record["plan"].errors
        names = [line["custom_id"] for line in record["lines"]]
        if len(set(names)) < len(names) or len(names) > 50_000:
            return [{"code": "duplicate_custom_id", "message": "custom ids must differ", "line": 1, "param": None}]
        others = [other for other in self.batches.values()
                  if other is not record and other["object"]["status"] in ("in_progress", "finalizing")]  # fmt: skip
        waiting = sum(self._tokens(other) for other in others)
        if self.enqueued_limit is not None and waiting + self._tokens(record) > self.enqueued_limit:
            return [{"code": "token_limit_exceeded", "line": None, "param": None,
                     "message": "Enqueued token limit reached. Please try again later."}]  # fmt: skip
        return []

    def _end_batch(self, record, end):
        plan, batch = record["plan"], record["object"]
        output, errors = [], []
        for line in record["lines"]:
            name = line["custom_id"]
            result = {"id": self._id("batch_req_"), "custom_id": name, "response": None, "error": None}
            try:
                refuse_fields(line["body"])
            except Refused as refused:
                told = {"message": str(refused), "type": "invalid_request_error", "param": refused.param,
                        "code": refused.code}  # fmt: skip
                result["response"] = {"status_code": refused.status, "request_id": "r", "body": {"error": told}}
                errors.append(result)
                continue
            if name in plan.unanswered or (end == "cancelled" and not output):
                codes = {"expired": ("batch_expired", "not done in time"), "cancelled": ("batch_cancelled", "stopped")}
                if end in codes:
                    result["error"] = dict(zip(("code", "message"), codes[end], strict=True))
                else:
                    told = {"error": {"message": "overloaded", "type": "server_error", "param": None, "code": None}}
                    result["response"] = {"status_code": 500, "request_id": "r", "body": told}
                errors.append(result)
            else:
                self.billed[name] += 1
                result["response"] = {"status_code": 200, "request_id": "r", "body": self._completion(line["body"])}
                output.append(result)
        random.Random(0).shuffle(output)
        held = {}
        for field_name, results in (("output_file_id", output), ("error_file_id", errors)):
            if results:
                content = "".join(json.dumps(result) + "\n" for result in results).encode()
                held[field_name] = self.add_file(f"{batch['id']}_{field_name}.jsonl", "batch_output", content)["id"]
                self.files[held[field_name]]["damaged"] = plan.damaged
        batch |= {"status": end, f"{end}_at": NOW}
        batch["request_counts"] |= {"completed": len(output), "failed": len(errors)}
        if record["late"]:
            record["held"] = held
        else:
            batch |= held

    def _cancel_batch(self, record):
        if record["object"]["status"] in ENDED:
            raise Refused(400, f"Cannot cancel a batch with status '{record['object']['status']}'.")
        record["object"] |= {"status": "cancelling", "cancelling_at": NOW}
        return record["object"]

    def _new_job(self, body):
        if self.tuning_closed:
            raise Refused(403, "Fine-tuning is no longer available to this organization.", "training_not_available")
        if body["model"].startswith(("gpt-5", "gpt-6")):
            raise Refused(404, f"Model {body['model']} is not available for fine-tuning.", "model_not_available")
        if self.files.get(body["training_file"], {"missing": 1})["missing"] > 0:
            raise Refused(400, f"invalid training_file: file {body['training_file']} does not exist")
        job = {"id": self._id("ftjob-"), "object": "fine_tuning.job", "created_at": NOW + self._count, "error": None,
               "finished_at": None, "fine_tuned_model": None, "model": body["model"], "organization_id": "org-test",
               "hyperparameters": body["method"]["supervised"]["hyperparameters"], "result_files": [],
               "status": "validating_files", "trained_tokens": None, "training_file": body["training_file"],
               "validation_file": None, "seed": body["seed"], "method": body["method"],
               "metadata": body.get("metadata")}  # fmt: skip
        plan = self.job_plans.popleft() if self.job_plans else "succeeded"
        self.jobs[job["id"]] = {"object": job, "events": [], "plan": plan, "suffix": body.get("suffix"), "looks": 0}
        self._event(job["id"], "Created fine-tuning job")
        return job

    def _event(self, job, message, **data):
        event = {"id": self._id("ftevent-"), "object": "fine_tuning.job.event", "created_at": NOW + self._count,
                 "level": "info", "message": message, "type": "metrics" if data else "message"}  # fmt: skip
        self.jobs[job]["events"].append(event | ({"data": data} if data else {}))

    def _look_at_job(self, record):
        job = record["object"]
        if job["status"] in ("succeeded", "failed", "cancelled"):
            return job
        record["looks"] += 1
        if record["looks"] < 4:
            job["status"] = ("validating_files", "queued", "running")[record["looks"] - 1]
            self._event(job["id"], f"Step {record['looks']}/3", step=record["looks"], total_steps=3)
            return job
        examples = [json.loads(line) for line in self.files[job["training_file"]]["content"].splitlines()]
        if record["plan"] != "succeeded" or len(examples) < 10:
            job |= {"status": "failed", "error": {"code": "invalid_training_file", "message": "told to fail",
                                                  "param": "training_file"}}  # fmt: skip
            return job
        passes = job["hyperparameters"].get("n_epochs", 1)
        words = sum(len(message["content"].split()) + 4 for example in examples for message in example["messages"])
        job |= {"status": "succeeded", "finished_at": NOW, "trained_tokens": words * passes,
                "fine_tuned_model": f"ft:{job['model']}:test:{record['suffix']}:{job['id']}"}  # fmt: skip
        return job

    def _cancel_job(self, record):
        if record["object"]["status"] in ("succeeded", "failed", "cancelled"):
            raise Refused(400, "Job has already completed")
        record["object"]["status"] = "cancelled"
        return record["object"]

    def _chat(self, body):
        with self._lock:
            self.active += 1
            self.max_active = max(self.max_active, self.active)
        try:
            self.bodies.append(body)
            return self._completion(body)
        finally:
            with self._lock:
                self.active -= 1

    def _completion(self, body):
        refuse_fields(body)
        text = self.answer(body)
        words = text.split()
        logprobs = None
        if body.get("logprobs"):
            tokens = [{"token": word, "logprob": -0.25, "bytes": None, "top_logprobs": []} for word in words]
            logprobs = {"content": tokens, "refusal": None}
        asked = sum(len(message["content"].split()) + 4 for message in body["messages"])
        usage = {"prompt_tokens": asked, "completion_tokens": len(words), "total_tokens": asked + len(words),
                 "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": self.cache_writes}}  # fmt: skip
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": NOW, "model": body["model"],
                "usage": usage, "choices": [choice]}  # fmt: skip

    def fault_for(self, method, path):
        with self._lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, f"{method} {path}"):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def check(self, name, value, method, path):
        """Note where a value differs from the provider's description of it."""
        if name is None or not SCHEMA:
            return
        for error in self._validator(name).iter_errors(value):
            self.violations.append(f"{method} {path} {name}: {error.json_path} {error.message}"[:300])

    def _validator(self, name):
        if name not in self._validators:
            self._validators[name] = jsonschema.Draft4Validator({"$ref": f"#/components/schemas/{name}", **SCHEMA})
        return self._validators[name]


def _plain_schema(node):
    """OpenAPI's `nullable` as a type that JSON Schema knows."""
    if isinstance(node, list):
        return [_plain_schema(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = {name: _plain_schema(value) for name, value in node.items() if name not in ("discriminator", "format")}
    return {"anyOf": [node, {"type": "null"}]} if node.pop("nullable", False) is True else node


SCHEMA = _plain_schema(json.loads(SPEC.read_text())) if SPEC.exists() else {}
SCHEMAS = (  # of a request and of its response
    (r"POST /v1/chat/completions$", "CreateChatCompletionRequest", "CreateChatCompletionResponse"),
    (r"POST /v1/files$", None, "OpenAIFile"),
    (r"GET /v1/files$", None, "ListFilesResponse"),
    (r"GET /v1/files/[^/]+$", None, "OpenAIFile"),
    (r"POST /v1/batches$", "CreateBatchRequest", "Batch"),
    (r"GET /v1/batches$", None, "ListBatchesResponse"),
    (r"(GET|POST) /v1/batches/", None, "Batch"),
    (r"POST /v1/fine_tuning/jobs$", "CreateFineTuningJobRequest", "FineTuningJob"),
    (r"GET /v1/fine_tuning/jobs$", None, "ListPaginatedFineTuningJobsResponse"),
    (r"GET /v1/fine_tuning/jobs/[^/]+/events$", None, "ListFineTuningJobEventsResponse"),
    (r"(GET|POST) /v1/fine_tuning/jobs/", None, "FineTuningJob"),
)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that was killed, or a connection dropped on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one piece
    disable_nagle_algorithm = True
    service: LocalOpenAI

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._serve()

    do_POST = do_GET

    def _serve(self):
        service, path = self.service, urlsplit(self.path).path
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        with service._lock:
            service.calls[f"{self.command} {path}"] += 1
        if service.on_call(self.command, path) == "lost":
            return self._drop()
        request, response = next(
            ((asked, told) for match, asked, told in SCHEMAS if re.match(match, f"{self.command} {path}")), (None, None)
        )
        fault = service.fault_for(self.command, path)
        try:
            if self.headers.get("authorization") != f"Bearer {KEY}":
                raise Refused(401, f"Incorrect API key provided: {self.headers.get('authorization')}")
            if fault and not fault.after:
                return self._fail(fault)
            body = self._body(raw)
            service.check(request, body, self.command, path)
            value = service.handle(self.command, self.path, body)
            if not isinstance(value, bytes):
                service.check(response, value, self.command, path)
        except Refused as refused:
            error = {"message": str(refused), "type": "invalid_request_error", "param": refused.param,
                     "code": refused.code}  # fmt: skip
            return self._send(refused.status, {"error": error})
        return self._fail(fault) if fault else self._send(200, value)

    def _body(self, raw):
        kind = self.headers.get("content-type") or ""
        if not kind.startswith("multipart/"):
            return json.loads(raw) if raw else None
        form = message_from_bytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + raw)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.get_payload()}
        return {"purpose": parts["purpose"].get_payload(), "filename": parts["file"].get_filename(),
                "file": parts["file"].get_payload(decode=True)}  # fmt: skip

    def _fail(self, fault):
        if fault.status is None:
            return self._drop()
        headers = {} if fault.retry_after is None else {"retry-after": str(fault.retry_after)}
        error = {"message": fault.message, "type": "server_error", "param": None, "code": fault.code}
        self._send(fault.status, {"error": error}, headers)

    def _drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status, value, headers=None):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
