"""What stages and a provider hand over: whatever else is in a file, it is told in a line that names the file."""

import json
from types import SimpleNamespace

import httpx
import numpy as np
import openai
import pandas as pd
import pytest
from safetensors.numpy import save_file

from tillmap.arms._llm import _read_allowed
from tillmap.cli.run_cache import broken_entries
from tillmap.core.completions import Completion, Question, finished
from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import read_jsonl, read_table, write_json, write_jsonl, write_table
from tillmap.core.run_state import AnswerLog, read_answers
from tillmap.core.stored import (
    amount,
    read_completions,
    read_conversations,
    read_held_out,
    read_metrics,
    read_paths,
    read_predictions,
    read_questions,
    read_rows,
    read_training,
)
from tillmap.core.taxonomy import CONTEST
from tillmap.llm.interface.few_shot import FewShotExamples
from tillmap.llm.interface.generation import Generation
from tillmap.providers.batches import Limits, answer_by_batch
from tillmap.providers.client import ProviderError, Service
from tillmap.providers.requests import ChatSettings
from tillmap.providers.server import ServerEngine
from tillmap.providers.tuning_jobs import Tuning, tune
from tillmap.retrieval.embedding import Embedder
from tillmap.tuning.progress import Progress, load_progress

HALF = "a\ud83d"  # half a surrogate: JSON may hold it, UTF-8 may not
MESSAGES = [{"role": "user", "content": "milk"}]
QUESTION = Question("test", 1, MESSAGES, ["A"], None)


def test_half_a_surrogate_is_written_and_read_again(tmp_path):
    write_jsonl([{"text": HALF, "plain": "é"}], tmp_path / "x.jsonl")
    assert list(read_jsonl(tmp_path / "x.jsonl")) == [{"text": HALF, "plain": "é"}]
    write_json({"text": HALF}, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == {"text": HALF}
    AnswerLog(tmp_path / "log.jsonl").add({"a": {"text": HALF}}, 1.0)
    assert read_answers(tmp_path / "log.jsonl", {"a"})["a"][0] == {"text": HALF}


@pytest.mark.parametrize("change", [{"split": HALF}, {"candidates": [[["a", HALF], 0.5]]}])
def test_half_a_surrogate_is_no_label(change, tmp_path):
    answer = Completion("test", 1, HALF, "ok", candidates=[[["a", "b"], 0.5]]).as_record()
    write_jsonl([answer, answer | change], tmp_path / "x.jsonl")
    found = read_completions(tmp_path / "x.jsonl")
    assert next(found)["text"] == HALF
    with pytest.raises(InputError, match=r"x.jsonl:2: not an answer"):
        next(found)


@pytest.mark.parametrize("lost", ["id", "rank", "brand", "score"])
def test_paths_of_training_rows_have_all_columns(tmp_path, lost):
    first = pd.DataFrame({"split": ["train"], "id": [1], "rank": [0], "score": [0.5]}).assign(
        **dict.fromkeys(CONTEST, "x")
    )
    write_table(first, tmp_path / "paths.parquet")
    assert len(read_paths(tmp_path / "paths.parquet", CONTEST)) == 1
    write_table(first.drop(columns=lost), tmp_path / "paths.parquet")
    with pytest.raises(InputError, match=f"paths.parquet: no column {lost}"):
        read_paths(tmp_path / "paths.parquet", CONTEST)


def test_a_column_that_is_hidden_by_the_notes_of_pandas_is_told(tmp_path):
    pd.DataFrame({"split": ["test"], "id": [1]}).set_index("split").to_parquet(tmp_path / "held.parquet")
    assert list(read_table(tmp_path / "held.parquet", ["id"])) == ["id"]
    with pytest.raises(InputError, match=r"held.parquet: not a Parquet table .*hide the column split"):
        read_table(tmp_path / "held.parquet", ["split"])


@pytest.mark.parametrize("lost", ["description", "subset", "product"])
def test_rows_of_the_split_have_all_columns(tmp_path, lost):
    """`evaluate` failed on rows without their product."""
    texts = dict.fromkeys(["split", "subset", "product", "description", "retailer"], "train")
    rows = pd.DataFrame({"id": [1], "price": [1.5], **texts})
    write_table(rows, tmp_path / "rows.parquet")
    assert len(read_rows(tmp_path / "rows.parquet")) == 1
    write_table(rows.drop(columns=lost), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=f"rows.parquet: no column {lost}"):
        read_rows(tmp_path / "rows.parquet")


HELD_OUT = {"alone": [0.5, 0.25], "right": [True, False], "product": [0, 1]}
NO_HELD_OUT = {
    "texts": {"alone": ["0.5", "x"]},
    "no number": {"alone": [0.5, np.nan]},
    "beyond 1": {"alone": [0.5, 1.5]},
    "whole numbers": {"alone": [0, 1]},
    "right by halves": {"right": [0.5, 1.0]},
}


@pytest.mark.parametrize("changes", NO_HELD_OUT.values(), ids=NO_HELD_OUT)
def test_what_confidences_are_promised_on(tmp_path, changes):
    path = tmp_path / "held_out.parquet"
    write_table(pd.DataFrame(HELD_OUT), path)
    assert list(read_held_out(path, "alone")["alone"]) == [0.5, 0.25]
    write_table(pd.DataFrame(HELD_OUT | changes), path)
    with pytest.raises(InputError, match=r"held_out.parquet: .*`dvc repro post"):
        read_held_out(path, "alone")


PREDICTED = {
    "split": "test", "id": 1, "confidence": 0.5, "repair": "none", "in_tree": True, "source": "x", "status": "ok",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"confidence": np.nan}, "confidence has empty values"),
        ({"confidence": 1.5}, "a confidence is not 0 to 1"),
        ({"repair": None}, "repair has empty values"),
    ],
)
def test_predictions(tmp_path, changes, said):
    path = tmp_path / "x.parquet"
    write_table(pd.DataFrame([PREDICTED]), path)
    assert len(read_predictions(path)) == 1
    write_table(pd.DataFrame([PREDICTED, PREDICTED | {"id": 2} | changes]), path)
    with pytest.raises(InputError, match=rf"x.parquet: {said}; run `dvc repro`"):
        read_predictions(path)


@pytest.mark.parametrize("losses", [[1], [[1, 2]], [[1, 2, "x"]], [[1, 2, None]], {"a": 1}])
def test_losses(tmp_path, losses):
    trained = {"train_seconds": 1, "device": "cpu"}
    write_json(trained | {"losses": [[1, 2.5, 1e-4]]}, tmp_path / "train.json")
    assert read_training(tmp_path / "train.json")["losses"] == [[1, 2.5, 1e-4]]
    write_json(trained | {"losses": losses}, tmp_path / "train.json")
    with pytest.raises(InputError, match=r"train.json: losses"):
        read_training(tmp_path / "train.json")


NO_QUESTIONS = {
    "an id of text": {"id": "1"},
    "no messages": {"messages": None},
    "messages that are text": {"messages": "milk"},
    "a message that is text": {"messages": ["milk"]},
    "a message without a role": {"messages": [{"content": "milk"}]},
    "a message of numbers": {"messages": [{"role": "user", "content": 1}]},
    "an answer that is none": {"answers": [None]},
    "answers in a text": {"choices": "abc"},
}


@pytest.mark.parametrize("changes", NO_QUESTIONS.values(), ids=NO_QUESTIONS)
def test_questions(tmp_path, changes):
    path = tmp_path / "questions.jsonl"
    write_jsonl([QUESTION.as_record()], path)
    assert list(read_questions(path)) == [QUESTION]
    write_jsonl([QUESTION.as_record(), QUESTION.as_record() | changes], path)
    with pytest.raises(InputError, match=r"questions\.jsonl:2: not a question; run `dvc repro prompts`"):
        list(read_questions(path))


def test_training_examples(tmp_path):
    path = tmp_path / "training.jsonl"
    write_jsonl([{"messages": MESSAGES}], path)
    assert list(read_conversations(path)) == [MESSAGES]
    for wrong in ({}, {"messages": "milk"}, {"messages": [{"role": "user"}]}):
        write_jsonl([wrong], path)
        with pytest.raises(InputError, match=r"training\.jsonl:1: not a training example"):
            list(read_conversations(path))


@pytest.mark.parametrize("changes", [{"answers": 1}, {"answers": [1]}, {"open_answers": "x"}, {"open_answers": {}}])
def test_answers_that_are_allowed_to_all(tmp_path, changes):
    path, sound = tmp_path / "answers.json", {"answers": ["a"], "open_answers": None}
    write_json(sound, path)
    assert _read_allowed(path) == sound
    for wrong in (sound | changes, [sound], 0.5):
        write_json(wrong, path)
        with pytest.raises(ModelError, match=r"answers\.json: of another version"):
            _read_allowed(path)


def test_a_neighbour_that_is_no_training_row_is_told():
    row = dict.fromkeys(CONTEST, "x") | {"id": 1, "description": "milk", "retailer": "", "price": 1.0}
    near = pd.DataFrame({"split": "test", "id": [5, 6], "rank": 0, "neighbour": [1, 7], "score": 0.5})
    examples = FewShotExamples(pd.DataFrame([row]), near, CONTEST)
    assert len(examples.examples("test", 5)) == 1
    with pytest.raises(InputError, match="neighbour 7 is not a labelled training row"):
        examples.examples("test", 6)


@pytest.mark.parametrize("written", [[], 1, {"infer": [1]}, {"infer": {"rag": "x"}}, {"infer": {}}])
def test_metrics_of_another_shape_say_nothing(tmp_path, written):
    write_json(written, tmp_path / "metrics.json")
    assert read_metrics(tmp_path / "metrics.json", "infer", "rag") == {}
    assert read_metrics(tmp_path / "missing.json", "infer") == {}


@pytest.mark.parametrize("value", ["12", None, [1], -1, float("nan"), float("inf"), 10**30, 1e308])
def test_an_amount_that_is_none_counts_as_nothing(value):
    assert amount({"rows": value}, "rows") == 0
    assert amount({"rows": 12, "seconds": 0.5}, "rows") == 12


def test_progress_of_another_shape_is_told(tmp_path):
    Progress(tokens=5).save(3, 1.5, tmp_path)
    assert load_progress(tmp_path).step == 3
    for wrong in ([], {"step": "x"}, {"evil": 1}):
        write_json(wrong, tmp_path / "progress.json")
        with pytest.raises(ModelError, match=r"progress\.json: of another version"):
            load_progress(tmp_path)


NO_VECTORS = {
    "texts that are a number": (1, np.ones((1, 4))),
    "a text that is none": ([None], np.ones((1, 4))),
    "more texts than vectors": (["a", "b"], np.ones((1, 4))),
    "a vector without an end": (["a"], np.full((1, 4), np.inf)),
    "vectors of one number": (["a"], np.ones(1)),
    "no vectors": (["a"], None),
}


@pytest.mark.parametrize(("texts", "vectors"), NO_VECTORS.values(), ids=NO_VECTORS)
def test_vectors_of_texts(tmp_path, texts, vectors):
    embedder = Embedder()
    save = {"other": np.ones(1)} if vectors is None else {"vectors": vectors}
    save_file({name: array.astype(np.float32) for name, array in save.items()}, tmp_path / "vectors.safetensors")
    write_json(texts, tmp_path / "vectors.json")
    with pytest.raises(InputError, match="not the vectors of an index"):
        embedder.load_vectors(tmp_path)


def test_vectors_of_two_lengths_are_told(tmp_path):
    embedder = Embedder()
    for text, length in (("a", 3), ("b", 4)):
        save_file({"vectors": np.ones((1, length), np.float32)}, tmp_path / "vectors.safetensors")
        write_json([text], tmp_path / "vectors.json")
        embedder.load_vectors(tmp_path)
    assert embedder.encode(["a"]).shape == (1, 3)
    with pytest.raises(InputError, match="run `dvc repro index` again"):
        embedder.encode(["a", "b"])


@pytest.mark.parametrize("entry", ["- 1", "outs: [x]", "outs: [{md5: 7}]", "outs: 3", "a: *b", "\0"])
def test_an_entry_of_the_run_cache_that_cannot_be_read_is_broken(tmp_path, entry):
    (tmp_path / "aa/bb").mkdir(parents=True)
    (tmp_path / "aa/bb/entry").write_text(entry)
    store = SimpleNamespace(oid_to_path=lambda oid: str(tmp_path / oid[:2]))
    repo = SimpleNamespace(
        stage_cache=SimpleNamespace(cache_dir=str(tmp_path)), cache=SimpleNamespace(local=store, legacy=store)
    )
    assert broken_entries(repo) == [tmp_path / "aa/bb/entry"]


# What a provider answers. A server that writes Python's numbers sends NaN, Infinity and 1e999.

CHAT = ChatSettings("m", Generation(max_new_tokens=5, temperature=0.0, seed=1))


def completed(usage=None, logprobs=None, text="a | b"):
    tokens = {"content": [{"logprob": each} for each in logprobs]} if logprobs else None
    choice = {"message": {"content": text}, "logprobs": tokens}
    return CHAT.completion(QUESTION, {"choices": [choice], "usage": usage})


@pytest.mark.parametrize("logprobs", [[float("nan")], [-0.5, float("-inf")]])
def test_an_answer_whose_probability_is_no_number_counts_without_it(logprobs):
    assert completed(logprobs=logprobs) == finished(QUESTION, "a | b")
    assert completed(logprobs=[-0.5, -0.25]).logprob == -0.75


@pytest.mark.parametrize("count", [float("inf"), float("nan"), -1, 10**30, "x", [1], {"a": 1}])
def test_tokens_that_are_no_count_are_an_error_of_the_row(count):
    answer = completed({"prompt_tokens": count})
    assert answer.status == "error"
    assert "not a chat completion" in answer.error


@pytest.mark.parametrize("logprobs", [[1e308, 1e308], ["x"], [None], [[]]])
def test_probabilities_that_cannot_be_added_are_an_error_of_the_row(logprobs):
    assert completed(logprobs=logprobs).status == "error"


@pytest.fixture
def answering(monkeypatch):
    """A service whose provider always answers the same, with status 200, and calls it JSON."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")

    def connect(content):
        def handle(_):
            return httpx.Response(200, content=content, headers={"content-type": "application/json"})

        service = Service("http://127.0.0.1/v1", poll_seconds=0, settle_seconds=0)
        client = httpx.Client(transport=httpx.MockTransport(handle))
        service.client = service.once = openai.OpenAI(
            api_key="sk-x", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0
        )
        return service

    return connect


NO_ANSWERS = {
    "a page": b"<html>502</html>",
    "no UTF-8": b'{"data": "\xff"}',
    "nested too deep": b"[" * 100_000,
    "a list": b"[1]",
    "a list of numbers": b'{"object": "list", "data": [1], "has_more": false}',
    "objects without anything": b'{"object": "list", "data": [{}, {}], "has_more": false}',
}


@pytest.mark.parametrize("content", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_a_provider_answers_beside_its_interface_is_told(answering, tmp_path, content):
    service = answering(content)
    told = "http://127.0.0.1/v1 answered what cannot be read"
    with pytest.raises(ProviderError, match=told):
        answer_by_batch([QUESTION], service, CHAT, limits=Limits(), retries=0, folder=tmp_path / "a", run="r")
    (tmp_path / "examples.jsonl").write_text("{}")
    with pytest.raises(ProviderError, match=told):
        tune(service, tmp_path / "examples.jsonl", Tuning("m", "s", 1, 1), tmp_path / "b", "r")


@pytest.mark.parametrize("content", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_an_answer_that_is_no_completion_costs_no_other_row(answering, content):
    answers = ServerEngine(answering(content), CHAT, concurrency=1).answer([QUESTION, QUESTION])
    assert [answer.status for answer in answers] == ["error", "error"]
    assert all("not a chat completion" in answer.error for answer in answers)
