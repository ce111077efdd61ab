"""The kinds of settings: environment variables, addresses, and numbers that no library takes."""

import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import certifi
import httpx
import httpx2
import pandas as pd
from kind import IN, Files, Kind, own, params_here, parquet, refusing

from stages import infer, prompts, stratify
from stages.answers import training_usage, usage_of
from tillmap.arms import schema
from tillmap.cli.checks import project
from tillmap.cli.stages import ONLY, _check_allowed
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.machine import free_threads, has_home, has_name, settle
from tillmap.core.run_state import alone, state_folder
from tillmap.evaluation.ledger import bill_arms, estimate_table
from tillmap.llm.interface.inference import _kept_threads
from tillmap.lookup.http import HttpSource, SearchApi
from tillmap.providers.client import Service
from tillmap.providers.inference import service_of
from tillmap.tuning.hub import require_token
from tillmap.tuning.progress import Progress, duration, load_progress

# Environment variables and addresses

VARIABLES = {
    "OPENAI_API_KEY": "sk-x", "SEARCH_KEY": "Bearer x", "HF_TOKEN": "hf_x", "TILLMAP_STATE": "kept", ONLY: "infer",
    "OMP_NUM_THREADS": "1", "HOME": "home", "XDG_STATE_HOME": "state", "LOGNAME": "me", "NO_PROXY": "localhost,::1",
    "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://a:b@127.0.0.1:9", "SSL_CERT_FILE": certifi.where(),
}  # fmt: skip
ADDRESSES = {"provider": "http://127.0.0.1:80/v1", "search": "https://a.example/find", "query": "q", "field": "a.0"}


def _environment() -> Files:
    return {
        f"{IN}/environment.json": json.dumps(VARIABLES).encode(),
        f"{IN}/addresses.json": json.dumps(ADDRESSES).encode(),
    }


def _texts(name: str) -> dict[str, str]:
    """The values of a JSON object as texts that a variable can have; of other JSON none."""
    try:
        found: Any = json.loads(Path(IN, name).read_bytes())
    except (ValueError, RecursionError):
        return {}
    values = found.items() if isinstance(found, dict) else ()
    return {key: os.fsdecode(str(value).encode(errors="replace").replace(b"\0", b"")) for key, value in values}


def _use_environment() -> None:
    told, to = _texts("environment.json"), ADDRESSES | _texts("addresses.json")
    with patch.dict(os.environ, {name: told[name] for name in VARIABLES if name in told}):
        os.environ.pop("http_proxy", None)
        settle(), has_home(), has_name(), free_threads(), list(project.keys(params_here()))
        with refusing():
            require_token("a/b")
        with refusing():
            _check_allowed("infer/linear")
        for _ in ("TILLMAP_STATE", "the default"):
            with refusing():
                _keep()
            os.environ.pop("TILLMAP_STATE", None)
        with _answering(httpx), _answering(httpx2):
            with refusing():
                service = Service(to["provider"], poll_seconds=0, settle_seconds=0, retries=0)
                service.read(service.client.models.list)
            with refusing():
                api = SearchApi(to["search"], to["query"], to["field"], "SEARCH_KEY")
                list(HttpSource(api, retry_seconds=0).find(["tea", "कि"]))


def _keep() -> None:
    folder = state_folder()
    if Path(os.path.normpath(folder)).is_relative_to(Path.cwd()):
        with alone(folder / "x"):
            pass


def _answering(library: Any) -> Any:
    """Let a library of HTTP, ours or that of openai, answer all that it would send."""

    def answer(_: object, request: Any) -> Any:
        return library.Response(200, json={"a": ["x"], "object": "list", "data": []}, request=request)

    return patch.object(library.HTTPTransport, "handle_request", answer)


# Numbers

PROGRESS = f"{IN}/checkpoint-3/progress.json"


def _numbers() -> Files:
    paths.ABOUT.write_bytes(parquet(pd.DataFrame({"text": ["milk"], "about": ["a drink"]})))
    done = Progress(step=3, seconds=1.5, tokens=90, padding=10, peak_memory_mib=300, threads=2, expected_seconds=9.5)
    return own("params.yaml")() | {PROGRESS: json.dumps(vars(done)).encode(), f"{IN}/threads": b"2"}


def _use_numbers() -> None:
    with refusing():
        done = load_progress(Path(PROGRESS).parent)
        duration(done.expected_seconds), duration(done.seconds), f"{done.padding_share:.0%} {done.step:d}"
    assert _kept_threads(Path(IN, "threads")) < 10_000
    params = read_params(Path("params.yaml"), schema())
    stratify.main(params)
    infer.main(params, "nearest")
    prompts.main(params, "rag")
    with patch.dict(os.environ, {"OPENAI_API_KEY": "sk-x"}):
        service_of(params.provider)
    usage = {"nearest": usage_of("nearest")}
    training = {arm: training_usage(arm, each) for arm, each in usage.items()}
    estimate_table(bill_arms(usage, training, params.provider.prices, params.costs, 100), usage)


SETTING_KINDS: dict[str, Kind] = {
    "environment": Kind(_environment, _use_environment, "json"),
    "numbers": Kind(_numbers, _use_numbers, "numbers"),
}
