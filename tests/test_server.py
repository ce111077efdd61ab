"""The server engine against the local OpenAI: bounded, patient, in order, and clear about refusals."""

import threading
import time

import pytest

from openai_client import connect, questions
from openai_server import Fault, LocalOpenAI
from tillmap.core.completions import Question
from tillmap.llm.interface.generation import Generation
from tillmap.providers.client import ProviderError
from tillmap.providers.requests import ChatSettings
from tillmap.providers.server import ServerEngine

ASKING = ChatSettings("small", Generation(16, 0.0, 0), stop=("|",))


@pytest.fixture
def server():
    with LocalOpenAI() as server:
        yield server
    assert server.violations == []


def test_answers_come_in_order_with_counts(server):
    answers = ServerEngine(connect(server.base_url), ASKING).answer(questions(20))
    assert [(answer.id, answer.text) for answer in answers] == [
        (number, f"answer to item {number} ->") for number in range(20)
    ]
    assert (answers[0].prompt_tokens, answers[0].cached_tokens, answers[0].completion_tokens) == (12, 4, 5)
    assert answers[0].logprob == pytest.approx(-1.25)


def test_no_more_questions_are_under_way_than_allowed(server):
    full = threading.Barrier(4)

    def wait_for_the_others(body):
        full.wait(timeout=60)  # breaks, and so fails, where fewer than four ask at once
        return "yes"

    server.answer = wait_for_the_others
    answers = ServerEngine(connect(server.base_url), ASKING, concurrency=4).answer(questions(12))
    assert {answer.text for answer in answers} == {"yes"}
    assert server.max_active == 4


@pytest.mark.parametrize("status", [429, 500, None], ids=["429", "500", "dropped"])
def test_trouble_that_passes_is_waited_out(server, status):
    server.faults.append(Fault("chat", status=status, times=3, retry_after=0))
    answers = ServerEngine(connect(server.base_url), ASKING, concurrency=2).answer(questions(4))
    assert [answer.status for answer in answers] == ["ok"] * 4
    assert server.calls["POST /v1/chat/completions"] == 7


def test_trouble_that_stays_is_an_error_of_its_row(server):
    server.faults.append(Fault("chat", status=500, times=1))
    answers = ServerEngine(connect(server.base_url, retries=0), ASKING, concurrency=1).answer(questions(3))
    assert [answer.status for answer in answers] == ["error", "ok", "ok"]
    assert "answered 500" in answers[0].error


def test_a_question_the_server_refuses_is_an_error_of_its_row(server):
    server.faults.append(Fault("chat", status=400, times=1, message="too long"))
    answers = ServerEngine(connect(server.base_url), ASKING, concurrency=1).answer(questions(2))
    assert [answer.status for answer in answers] == ["error", "ok"]
    assert "too long" in answers[0].error


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_stops_the_run(server, status):
    server.faults.append(Fault("chat", status=status, times=10**6))
    with pytest.raises(ProviderError, match=f"answered {status}"):
        ServerEngine(connect(server.base_url), ASKING).answer(questions(3))


def test_what_is_no_completion_is_an_error(server):
    server._completion = lambda body: {"choices": []}
    answers = ServerEngine(connect(server.base_url), ASKING).answer(questions(1))
    assert answers[0].error.startswith("not a chat completion: IndexError")
    server.violations.clear()


def test_the_server_is_told_the_only_answers(server):
    asking = ChatSettings("small", ASKING.generation, constraint="structured_outputs")
    message = [{"role": "user", "content": "x"}]
    ServerEngine(connect(server.base_url), asking).answer([Question("test", 1, message, answers=["a", "b"])])
    assert server.bodies[-1]["structured_outputs"] == {"choice": ["a", "b"]}


def test_sampling_has_a_seed_of_the_row(server):
    drawn = ChatSettings("small", Generation(16, 0.7, 5))
    ServerEngine(connect(server.base_url), drawn, concurrency=1).answer(questions(3))
    assert [body["seed"] for body in server.bodies] == [drawn.generation.seed_for(q) for q in questions(3)]


def test_requests_keep_their_distance(server):
    engine = ServerEngine(connect(server.base_url), ASKING, requests_a_minute=300)
    for pause in (0.5, 0):  # a pause saves up no requests for later
        began = time.monotonic()
        assert [answer.status for answer in engine.answer(questions(4))] == ["ok"] * 4
        assert time.monotonic() - began >= 3 * 0.2 - 0.01
        time.sleep(pause)


def test_a_first_request_and_one_after_a_pause_go_at_once(server):
    engine = ServerEngine(connect(server.base_url), ASKING, requests_a_minute=30)
    for pause in (2, 0):
        began = time.monotonic()
        engine.answer(questions(1))
        assert time.monotonic() - began < 1.5
        time.sleep(pause)
