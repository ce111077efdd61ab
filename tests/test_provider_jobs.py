"""Tuning and batches against a local OpenAI: whatever fails, nothing is paid for twice and every row is answered."""

import json
import logging
import os
from dataclasses import replace
from itertools import count as counting
from pathlib import Path
from types import SimpleNamespace

import pytest

from openai_client import ASKING, RUN, TUNING, Clients, ask, connect, questions, write_examples
from openai_server import KEY, Fault, LocalOpenAI, Plan
from tillmap.core.completions import Question
from tillmap.core.errors import InputError, ParamsError, ResourceError
from tillmap.core.files import write_json
from tillmap.llm.interface.generation import Generation
from tillmap.providers import cancel, costs, idempotent_create
from tillmap.providers.chat_files import check_examples
from tillmap.providers.client import ProviderError, Service
from tillmap.providers.costs import TokenCounter
from tillmap.providers.requests import ChatSettings
from tillmap.providers.server import ServerEngine
from tillmap.providers.state import own_run
from tillmap.providers.tuning_jobs import tune


@pytest.fixture
def server():
    """Ends by looking at what was said to it and by it in the light of the provider's own description."""
    with LocalOpenAI() as server:
        yield server
    assert server.violations == []


@pytest.fixture
def service(server):
    return connect(server.base_url)


@pytest.fixture(scope="module")
def clients():
    clients = Clients()
    yield clients
    clients.close()


def check_answers(answers, count, server):
    """Each row is answered, in order, and was paid for once."""
    assert [(answer["id"], answer["text"]) for answer in answers] == [
        (number, f"answer to item {number} ->") for number in range(count)
    ]
    assert server.billed == {f"test-{number}": 1 for number in range(count)}


def records(answers):
    return [answer.as_record() for answer in answers]


# Batches: splitting, collecting, trying again


def test_a_run_is_split_and_collected_by_custom_id(server, service, tmp_path):
    answers = ask(service, 10, tmp_path)
    check_answers(records(answers), 10, server)
    assert [len(batch["lines"]) for batch in server.batches.values()] == [4, 4, 2]
    first = answers[0]
    assert (first.status, first.prompt_tokens, first.cached_tokens, first.completion_tokens) == ("ok", 12, 4, 5)
    assert first.logprob == pytest.approx(-0.25 * 5)
    body = server.batches["batch_0002"]["lines"][0]["body"]
    assert body["stop"] == ["|"]
    assert (body["max_completion_tokens"], body["temperature"], "seed" in body) == (16, 0.0, False)


@pytest.mark.parametrize("limit", [{"file_bytes": 700}, {"enqueued_tokens": 30}])
def test_a_batch_keeps_within_bytes_and_tokens(server, service, tmp_path, limit):
    check_answers(records(ask(service, 7, tmp_path, requests=100, **limit)), 7, server)
    assert len(server.batches) > 2
    for batch in server.batches.values():
        content = server.files[batch["object"]["input_file_id"]]["content"]
        assert len(content) <= limit.get("file_bytes", 10**6)


def test_no_more_tokens_wait_at_once_than_the_limit_says(server, service, tmp_path):
    server.enqueued_limit = 60  # by the server's own count, which is lower than ours
    check_answers(records(ask(service, 12, tmp_path, enqueued_tokens=80)), 12, server)
    assert all(batch["object"]["status"] == "completed" for batch in server.batches.values())


def test_a_full_queue_shows_as_a_failed_batch_and_less_is_asked_for_then(server, service, tmp_path):
    server.enqueued_limit = 25  # no batch of four rows fits
    check_answers(records(ask(service, 8, tmp_path)), 8, server)
    ends = [batch["object"]["status"] for batch in server.batches.values()]
    assert {"failed", "completed"} == set(ends)


def test_failed_rows_are_asked_again_alone(server, service, tmp_path):
    server.plans.append(Plan(unanswered={"test-1", "test-2"}))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert [[line["custom_id"] for line in batch["lines"]] for batch in server.batches.values()] == [
        ["test-0", "test-1", "test-2", "test-3"],
        ["test-1", "test-2"],
    ]


def test_expired_rows_are_asked_again_and_what_was_done_is_kept(server, service, tmp_path):
    server.plans.append(Plan(end="expired", unanswered={"test-0", "test-3"}))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)


def test_a_row_that_always_fails_is_a_recorded_error(server, service, tmp_path):
    server.plan = Plan(unanswered={"test-2"})
    answers = ask(service, 4, tmp_path, retries=2)
    assert [answer.status for answer in answers] == ["ok", "ok", "error", "ok"]
    assert "500: overloaded" in answers[2].error
    assert len(server.batches) == 3
    assert max(server.billed.values()) == 1


def test_a_finished_run_asks_again_only_what_failed_in_it(server, service, tmp_path):
    server.plan = Plan(unanswered={"test-2"})
    ask(service, 4, tmp_path, retries=0)
    server.plan = Plan()
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert len(server.batches) == 2
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert len(server.batches) == 2


def test_a_batch_without_one_answer_has_no_output_file(server, service, tmp_path):
    server.plans.append(Plan(unanswered={f"test-{number}" for number in range(4)}))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    first = server.batches["batch_0002"]["object"]
    assert first["status"] == "completed"
    assert "output_file_id" not in first


def test_an_output_named_late_is_waited_for(server, service, tmp_path):
    server.plans.append(Plan(late_output=2))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert len(server.batches) == 1


def test_a_damaged_download_is_fetched_again(server, service, tmp_path):
    server.plans.append(Plan(damaged=2))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert len(server.batches) == 1


def test_a_line_at_fault_is_an_error_and_the_others_go_on(server, service, tmp_path):
    error = {"code": "invalid_request", "message": "no such option", "line": 2, "param": None}
    server.plans.append(Plan(end="failed", errors=[error]))
    answers = ask(service, 4, tmp_path)
    assert [answer.status for answer in answers] == ["ok", "error", "ok", "ok"]
    assert answers[1].error == "invalid_request: no such option"
    assert len(server.batches) == 2


def test_where_nothing_is_answered_the_run_says_why_and_can_be_run_again(server, service, tmp_path):
    wrong = {"code": "model_not_found", "message": "no such model", "line": None, "param": None}
    server.plan = Plan(end="failed", errors=[wrong])
    with pytest.raises(ProviderError, match=r"no question was answered .*no such model"):
        ask(service, 4, tmp_path, retries=1)
    server.plan = Plan()
    check_answers(records(ask(service, 4, tmp_path)), 4, server)


def test_an_answer_that_is_a_refusal_is_paid_for_and_not_asked_again(server, service, tmp_path):
    server.answer = lambda body: "" if "item 1" in body["messages"][-1]["content"] else "yes"
    answers = ask(service, 2, tmp_path)
    assert [answer.status for answer in answers] == ["ok", "empty"]
    assert len(server.batches) == 1


# Trouble on the way


TROUBLE = {
    "429 with Retry-After": {"status": 429, "retry_after": 0},
    "500 before": {"status": 500},
    "500 after": {"status": 500, "after": True},
    "dropped before": {"status": None},
    "dropped after": {"status": None, "after": True},
}
CALLS = [
    r"POST /v1/files$", r"GET /v1/files$", r"GET /v1/files/[^/]+$", r"GET .*/content$",
    r"POST /v1/batches$", r"GET /v1/batches$", r"GET /v1/batches/",
]  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("call", CALLS)
def test_trouble_with_a_call_costs_nothing(server, tmp_path, call, trouble):
    server.faults.append(Fault(call, times=2, **TROUBLE[trouble]))
    server.list_lag = 2
    check_answers(records(ask(connect(server.base_url, retries=0), 6, tmp_path)), 6, server)
    assert len(server.batches) == 2
    assert server.faults[0].times == 0


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("call", [r"POST /v1/files$", r"POST /v1/fine_tuning/jobs$", r"GET /v1/fine_tuning/jobs"])
def test_trouble_while_tuning_makes_no_second_job(server, tmp_path, call, trouble):
    server.faults.append(Fault(call, times=2, **TROUBLE[trouble]))
    server.list_lag = 2
    service = connect(server.base_url, retries=0)
    tuned = tune(service, write_examples(tmp_path / "examples.jsonl"), TUNING, tmp_path / "run", RUN)
    assert tuned["job"] == next(iter(server.jobs))
    assert len(server.jobs) == 1


def test_a_file_just_uploaded_may_not_be_found(server, service, tmp_path):
    server.file_lag = 3
    check_answers(records(ask(service, 6, tmp_path)), 6, server)
    assert len(server.batches) == 2


def test_a_refusal_because_of_the_new_file_is_tried_again(server, service, tmp_path):
    message = "Cannot find file file-1, or the project does not have access to it."
    server.faults.append(Fault(r"POST /v1/batches$", status=400, times=2, message=message))
    check_answers(records(ask(service, 4, tmp_path)), 4, server)
    assert len(server.batches) == 1


def test_a_file_that_never_appears_is_an_error(server, service, tmp_path):
    server.file_lag = 10**6
    with pytest.raises(ProviderError, match="answered 404"):
        ask(service, 4, tmp_path)


def test_no_credit_stops_at_once(server, service, tmp_path):
    spent = {"status": 429, "message": "You exceeded your current quota.", "code": "insufficient_quota"}
    server.faults.append(Fault(r"POST /v1/batches$", times=1, **spent))
    with pytest.raises(ProviderError, match=r"exceeded your current quota.*credit"):
        ask(service, 4, tmp_path)
    check_answers(records(ask(service, 4, tmp_path)), 4, server)


# Killed and run again


def kill_at(server, clients, number, lost):
    """Kill the client at its `number`-th call, which takes effect all the same; or lose its `number`-th create."""
    calls = counting(1)

    def on_call(method, path):
        if (method == "POST" or not lost) and next(calls) == number:
            clients.kill()
            return "lost" if lost else None
        return None

    server.on_call = on_call


def run_killed(server, clients, folder, number, lost, *, kind="batch", **work):
    kill_at(server, clients, number, lost)
    clients.pid = None
    done = clients.run(kind=kind, base_url=server.base_url, folder=str(folder), out=str(folder / "out.json"), **work)
    server.on_call = lambda method, path: None
    return done


@pytest.mark.parametrize("lost", [False, True], ids=["any call", "creates that get lost"])
def test_a_batch_run_killed_at_any_call_goes_on(clients, tmp_path, lost):
    for number in counting(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        with LocalOpenAI() as server:
            server.plans.append(Plan(looks=1, unanswered={"test-1"}))
            server.plan = Plan(looks=1)
            server.list_lag = 1
            killed = run_killed(server, clients, folder, number, lost, count=4)
            answers = killed or run_killed(server, clients, folder, 0, lost, count=4)
            check_answers(answers, 4, server)
            assert len(server.batches) == 2
            assert server.violations == []
        if killed:
            break
    assert number > (4 if lost else 15)


@pytest.mark.parametrize("lost", [False, True], ids=["any call", "creates that get lost"])
def test_a_tuning_run_killed_at_any_call_makes_one_job(clients, tmp_path, lost):
    write_examples(tmp_path / "examples.jsonl")
    for number in counting(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        with LocalOpenAI() as server:
            server.list_lag = 1
            killed = run_killed(server, clients, folder, number, lost, kind="tune")
            tuned = killed or run_killed(server, clients, folder, 0, lost, kind="tune")
            assert [tuned["job"]] == list(server.jobs)
        if killed:
            break
    assert number > (2 if lost else 8)


def test_a_run_killed_again_and_again_ends(server, clients, tmp_path):
    server.plan = Plan(looks=8)
    answers, kills = None, 0
    while answers is None:
        lost = kills % 2 == 0
        number = 1 + kills % 2 if lost else 3 + 3 * kills % 11
        answers = run_killed(server, clients, tmp_path, number if kills < 30 else 0, lost, count=20)
        kills += answers is None
    check_answers(answers, 20, server)
    assert kills >= 5


@pytest.mark.parametrize("kept", ["everything", "nothing"])
def test_what_a_lost_machine_asked_for_is_taken_over(server, clients, tmp_path, kept):
    """The state may be gone with the machine: the provider's own record of the run is enough."""
    for number in (9, 16):
        run_killed(server, clients, tmp_path, number, False, count=9)
        assert server.batches
        if kept == "nothing":
            for file in tmp_path.iterdir():
                file.unlink()
    check_answers(run_killed(server, clients, tmp_path, 0, False, count=9), 9, server)
    assert len(server.batches) == 3


def test_a_folder_with_holes_is_named(server, service, tmp_path):
    server.faults.append(Fault(r"POST /v1/batches$", status=400))
    with pytest.raises(ProviderError, match="answered 400"):
        ask(service, 4, tmp_path)
    next(tmp_path.glob(f"{RUN}-*.jsonl")).unlink()
    with pytest.raises(ResourceError, match=r"lacks .*\.jsonl; delete the whole folder"):
        ask(service, 4, tmp_path)


def test_two_processes_do_not_follow_one_run(service, tmp_path):
    with own_run(tmp_path), pytest.raises(ResourceError, match="another process follows this run"):
        ask(service, 4, tmp_path)


# Tuning


def test_tuning_sends_what_is_documented_and_shows_progress(server, service, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    examples = write_examples(tmp_path / "examples.jsonl")
    tuned = tune(service, examples, TUNING, tmp_path / "run", RUN)
    job = server.jobs[tuned["job"]]
    assert tuned["model"].startswith("ft:gpt-4o-mini-2024-07-18:test:tillmap:")
    assert tuned["trained_tokens"] == job["object"]["trained_tokens"] > 0
    assert job["object"]["method"] == {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}
    assert (job["object"]["seed"], job["suffix"]) == (3407, "tillmap")
    assert server.files[job["object"]["training_file"]]["content"] == examples.read_bytes()
    assert "Created fine-tuning job" in caplog.text
    assert tune(service, examples, TUNING, tmp_path / "run", RUN) == tuned
    assert len(server.jobs) == 1


def test_a_failed_job_says_why_and_another_run_asks_for_another(server, service, tmp_path):
    server.job_plans.append("failed")
    examples = write_examples(tmp_path / "examples.jsonl")
    with pytest.raises(ProviderError, match="ended as failed: told to fail"):
        tune(service, examples, TUNING, tmp_path / "run", RUN)
    tune(service, examples, TUNING, tmp_path / "run", RUN)
    assert [job["object"]["status"] for job in server.jobs.values()] == ["failed", "succeeded"]


def test_where_tuning_is_closed_the_ways_out_are_named(server, service, tmp_path):
    server.tuning_closed = True
    with pytest.raises(ProviderError, match=r"no longer available.*tillmap profile openai.*retrieved.*tuned_model"):
        tune(service, write_examples(tmp_path / "examples.jsonl"), TUNING, tmp_path / "run", RUN)


def test_a_model_that_cannot_be_tuned_and_a_provider_that_does_not_tune_name_the_alternative(server, service, tmp_path):
    examples, newer = write_examples(tmp_path / "examples.jsonl"), replace(TUNING, model="gpt-6-luna")
    with pytest.raises(ProviderError, match=r"not available for fine-tuning.*gpt-6-luna can't be tuned.*openai"):
        tune(service, examples, newer, tmp_path / "newer", RUN)
    server.faults.append(Fault(r"GET /v1/fine_tuning/jobs$", status=404, message="Not Found"))
    with pytest.raises(ProviderError, match=r"404: .*Not Found.* can't be tuned .*tillmap profile openai"):
        tune(service, examples, TUNING, tmp_path / "none", RUN)
    assert not server.jobs
    server.faults.append(Fault(r"GET /v1/fine_tuning/jobs$", status=401, message="wrong key"))
    with pytest.raises(ProviderError, match="check the key"):
        tune(service, examples, TUNING, tmp_path / "key", RUN)


def example(*roles, content="text"):
    return json.dumps({"messages": [{"role": role, "content": content} for role in roles]})


GOOD = example("system", "user", "assistant")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a JSON object"),
        ('{"messages": [], "more": 1}', 'not an object with "messages" alone'),
        (example("user", "assistant", content=" "), "the content of the user message is empty"),
        (example("user", "tool"), r"a role \(system, user, assistant\)"),
        (example("system", "user"), "ending with assistant"),
        (example("user", "user", "assistant"), "user and assistant in turn"),
        (example("user", "assistant", content="word " * 70_000), "shorten it to 65536"),
    ],
)
def test_examples_are_checked_before_anything_is_sent(tmp_path, line, said):
    path = tmp_path / "examples.jsonl"
    path.write_text("\n".join([GOOD] * 10 + [line]) + "\n")
    with pytest.raises(InputError, match=rf"examples.jsonl:11: .*{said}"):
        check_examples(path, TokenCounter("gpt-4o-mini"))


def test_ten_examples_are_the_fewest(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_encoding_of", lambda model: None)  # whatever this machine has
    path = tmp_path / "examples.jsonl"
    path.write_text(f"{GOOD}\n" * 9)
    with pytest.raises(InputError, match="9 examples; a provider requires at least 10"):
        check_examples(path, TokenCounter("gpt-4o-mini"))
    path.write_text(f"{GOOD}\n" * 10)
    assert check_examples(path, TokenCounter("gpt-4o-mini")) == (10, 10 * 3 * (len("text") + 4))


# Cancelling


def test_a_batch_run_is_cancelled_and_can_go_on_later(server, service, tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    folder = cancel.run_folder(RUN)
    polls = counting(1)

    def on_call(method, path):
        if method == "GET" and path.startswith("/v1/batches/") and next(polls) == 3:
            server.on_call = lambda method, path: None
            cancel.cancel_runs([])

    server.plan = Plan(looks=6)
    server.on_call = on_call
    with pytest.raises(ProviderError, match="cancelled"):
        ask(service, 8, folder)
    assert {batch["object"]["status"] for batch in server.batches.values()} <= {"cancelling", "cancelled"}
    check_answers(records(ask(service, 8, folder)), 8, server)
    assert cancel.cancel_runs([]) == 0


def test_a_job_is_cancelled(server, service, tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    polls = counting(1)

    def on_call(method, path):
        if method == "GET" and path.endswith("/events") and next(polls) == 2:
            server.on_call = lambda method, path: None
            assert cancel.cancel_runs([RUN]) == 1

    server.on_call = on_call
    with pytest.raises(ProviderError, match="cancelled"):
        tune(service, write_examples(tmp_path / "examples.jsonl"), TUNING, cancel.run_folder(RUN), RUN)
    assert [job["object"]["status"] for job in server.jobs.values()] == ["cancelled"]


def test_a_batch_cancelled_by_others_stops_the_run(server, service, tmp_path):
    server.plans.append(Plan(looks=10**6))
    polls = counting(1)

    def on_call(method, path):
        if method == "GET" and path.startswith("/v1/batches/") and next(polls) == 3:
            server.batches["batch_0002"]["object"]["status"] = "cancelling"

    server.on_call = on_call
    with pytest.raises(ProviderError, match=r"batch_0002 was cancelled; .*run again"):
        ask(service, 4, tmp_path)
    check_answers(records(ask(service, 4, tmp_path)), 4, server)


def test_an_unknown_run_cannot_be_cancelled(tmp_path, monkeypatch):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    with pytest.raises(ParamsError, match="no run nowhere"):
        cancel.cancel_runs(["nowhere"])


@pytest.mark.parametrize("lost", ["base_url", "key_variable", "run"])
def test_a_damaged_state_of_a_run_is_told_where_it_is_to_be_cancelled(tmp_path, monkeypatch, lost):
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    service = {"base_url": "http://127.0.0.1:9/v1", "key_variable": "OPENAI_API_KEY", "run": "r"}
    (tmp_path / "provider" / "r").mkdir(parents=True)
    del service[lost]
    write_json({"service": service, "records": {}}, tmp_path / "provider" / "r" / "state.json")
    with pytest.raises(InputError, match=r"state.json: not the state of a run"):
        cancel.cancel_runs(["r"])


# The key


def test_without_a_key_the_error_says_what_to_do(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ParamsError, match=r"no key in the environment variable MY_KEY; .*switch off the arm"):
        Service("http://127.0.0.1:9/v1", "MY_KEY")


def test_the_key_is_nowhere(server, service, tmp_path, caplog):
    """Neither in what is logged nor in what is kept, even where a provider repeats it."""
    caplog.set_level(logging.INFO)
    server.faults.append(Fault(r"POST /v1/batches$", status=400, message=f"bad request by {KEY}"))
    with pytest.raises(ProviderError) as caught:
        ask(service, 4, tmp_path)
    assert KEY not in str(caught.value)
    said = {"code": "x", "message": f"the key {KEY}", "line": 1, "param": None}
    server.plans.append(Plan(end="failed", errors=[said]))
    answers = ask(service, 4, tmp_path)
    assert answers[0].error == "x: the key [key]"
    os.environ["OPENAI_API_KEY"] = "sk-wrong-9876543210"
    with pytest.raises(ProviderError, match=r"answered 401: .*\[key\]; check the key in OPENAI_API_KEY"):
        ask(Service(server.base_url), 4, tmp_path)
    kept = [file.read_text() for file in Path(tmp_path).rglob("*") if file.is_file()]
    assert kept
    assert not any(KEY in text or "sk-wrong" in text for text in [*kept, caplog.text])


ONE = Question("test", 1, [{"role": "user", "content": "x"}])


def test_a_request_can_gain_and_lose_fields():
    more = {"max_tokens": 32, "max_completion_tokens": None, "reasoning_effort": "none", "stop": None}
    chat = ChatSettings("m", Generation(16, 0.0, 0), stop=("|",), logprobs=False, more=more)
    assert set(chat.body(ONE)) == {"model", "messages", "temperature", "max_tokens", "reasoning_effort"}
    assert chat.answer_tokens == 32, "what the bill's bound counts"
    assert replace(chat, more={"max_tokens": None}).answer_tokens == 16
    assert replace(chat, more={"max_completion_tokens": 8, "max_tokens": 9}).answer_tokens == 9
    with pytest.raises(ParamsError, match="add max_tokens"):
        _ = replace(chat, more={"max_completion_tokens": None}).answer_tokens


def test_where_the_server_may_not_stop_an_answer_it_is_cut_here():
    told = {"choices": [{"message": {"content": "\n butter | gold\nBecause it is spread."}}], "usage": None}
    cut = ChatSettings("m", ASKING.generation, stop=("\n",), more={"stop": None})
    assert cut.completion(ONE, told).text == "butter | gold"
    assert replace(cut, more={}).completion(ONE, told).text.endswith("spread."), "the server's own affair"


@pytest.mark.parametrize("field", ["max_tokens", "stop", "temperature"])
def test_a_field_that_the_model_does_not_take_is_named_with_the_way_out(server, service, tmp_path, field):
    fields = {"stop": None, "logprobs": None, "temperature": None} | {field: 1 if field != "stop" else ["|"]}
    asking = replace(ASKING, model="gpt-6-luna", more=fields)
    with pytest.raises(ProviderError, match=rf"'{field}' is not supported.*`request: {{{field}: null}}`"):
        ask(service, 4, tmp_path, asking=asking, retries=0)
    with pytest.raises(ProviderError, match=rf"'{field}' is not supported.*`request: {{{field}: null}}`"):
        ServerEngine(service, asking, concurrency=1).answer(questions(1))
    assert server.billed.total() == 0


def test_a_choice_is_put_as_the_server_takes_it():
    question = Question("test", 1, [{"role": "user", "content": "x"}], answers=["a | b", "c | d"])
    ours = ChatSettings("m", ASKING.generation, constraint="structured_outputs")
    assert ours.body(question)["structured_outputs"] == {"choice": ["a | b", "c | d"]}
    schema = ChatSettings("m", ASKING.generation, constraint="json_schema")
    wanted = schema.body(question)["response_format"]["json_schema"]["schema"]["properties"]["answer"]["enum"]
    assert wanted == ["a | b", "c | d"]
    told = {"choices": [{"message": {"content": '{"answer": "c | d"}'}}]}
    assert schema.completion(question, told).text == "c | d"
    many = Question("test", 1, question.messages, answers=[f"label {number}" for number in range(1001)])
    with pytest.raises(ParamsError, match="1001 answers are too many"):
        schema.body(many)


@pytest.mark.parametrize("jump", [10**9, -(10**9)])
def test_a_clock_that_jumps_neither_shortens_nor_lengthens_the_look_for_what_was_created(monkeypatch, jump):
    """Too short, and it would be created and paid again; too long, and the run would wait for years."""
    seconds = counting()
    monkeypatch.setattr(idempotent_create.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(idempotent_create.time, "time", lambda: jump * next(seconds))
    monkeypatch.setattr(idempotent_create.time, "sleep", lambda _: None)
    looks = []
    service = SimpleNamespace(settle_seconds=20.0, poll_seconds=1.0)
    assert idempotent_create._look(service, lambda: looks.append(1), tried=True) is None
    done = len(looks)
    assert 20 <= done <= 25
    assert idempotent_create._look(service, lambda: looks.append(1), tried=False) is None
    assert len(looks) == done + 1
