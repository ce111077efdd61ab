"""Files made to harm: each is an error of tillmap's that names the file, no crash, no hang, no code that runs."""

import ast
import json
import pickle
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from project import ROOT
from safetensors.numpy import save_file

from shop import read_source
from stages import infer
from tillmap.arms import schema
from tillmap.cli.stages import run_arm_stage
from tillmap.config.params import read_params
from tillmap.core import files as storage
from tillmap.core.errors import TillmapError
from tillmap.core.run_state import AnswerLog, read_answers
from tillmap.core.taxonomy import LabelTree
from tillmap.linear.model import LinearModel
from tillmap.llm.chat import load_tokenizer
from tillmap.llm.checkpoints import check_adapter, check_checkpoint, fetch_checkpoint
from tillmap.retrieval.base import read_tensors
from tillmap.retrieval.cross_encoder import CrossScorer
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


PICKLE = pickle.dumps(Bomb())
DEEP = b"[" * 200_000
SAFE = {"a": np.zeros(2, np.float32)}


def parquet(table=None, metadata=None):
    table = pa.table({"id": [1, 2]}) if table is None else table
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue().to_pybytes()


def safetensors(header, body=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


TABLE = parquet()
TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NO_JSON = {
    "nothing": b"",
    "a pickle": PICKLE,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "nested too deep": DEEP,
    "cut short": b'{"a": [1, 2',
    "a word": b"null and void",
    "two values": b"{} {}",
    "a number of a million digits": b"1" * 1_000_000,
}
EVIL_COLUMN = {"name": "id", "field_name": "id", "pandas_type": "x", "numpy_type": "__import__('os')", "metadata": None}
EVIL_TYPE = {"index_columns": [], "column_indexes": [], "columns": [EVIL_COLUMN]}
NO_TABLES = {
    "nothing": b"",
    "a pickle": PICKLE,
    "cut short": TABLE[: len(TABLE) // 2],
    "the middle gone": TABLE[:20] + TABLE[-20:],
    "a footer longer than the file": TABLE[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
    "zeros for a footer": b"PAR1" + b"\0" * 400 + struct.pack("<I", 300) + b"PAR1",
    "notes of pandas that are no JSON": parquet(metadata={"pandas": "{not json"}),
    "notes of pandas that are a list": parquet(metadata={"pandas": "[1]"}),
    "an index of pandas that is not there": parquet(
        metadata={"pandas": json.dumps({"index_columns": ["no such"], "columns": [], "column_indexes": []})}
    ),
    "a type that pandas should build": parquet(metadata={"pandas": json.dumps(EVIL_TYPE)}),
}
NO_TENSORS = {
    "nothing": b"",
    "a pickle": PICKLE,
    "a header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "a header that is no JSON": safetensors(b"{not json"),
    "a header nested too deep": safetensors(DEEP),
    "offsets outside the file": safetensors({"a": TENSOR | {"data_offsets": [0, 2**40]}}),
    "offsets the wrong way": safetensors({"a": TENSOR | {"data_offsets": [8, 0]}}),
    "a shape that overflows": safetensors({"a": TENSOR | {"shape": [2**62, 2**62]}}),
    "two tensors in one place": safetensors({"a": TENSOR, "b": TENSOR}),
    "an unknown type": safetensors({"a": TENSOR | {"dtype": "OBJECT"}}),
    "bytes to spare": safetensors({"a": TENSOR}, b"\0" * 64),
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder of the test's own to work in, in which nothing may have been unpickled."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("unpickled").exists()


def refused(read, *arguments, match=None):
    with pytest.raises(TillmapError, match=match) as caught:
        read(*arguments)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_json(tmp_path, content):
    path = tmp_path / "made.json"
    path.write_bytes(content)
    refused(storage.read_json, path, match=r"made\.json")
    refused(lambda: list(storage.read_jsonl(path)) or refused_empty(), match=r"made\.json")


def refused_empty():
    raise TillmapError("made.json: JSON Lines without a line are no harm")


@pytest.mark.parametrize("content", NO_TABLES.values(), ids=NO_TABLES)
def test_parquet(tmp_path, content):
    path = tmp_path / "made.parquet"
    path.write_bytes(content)
    try:  # where Arrow can do without what was poisoned, plain values come out
        table = storage.read_table(path)
    except TillmapError as error:
        assert "made.parquet" in str(error)
    else:
        assert table["id"].tolist() == [1, 2]


@pytest.mark.parametrize("content", NO_TENSORS.values(), ids=NO_TENSORS)
def test_safetensors(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    refused(read_tensors, path, match=r"model\.safetensors")
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    refused(check_checkpoint, tmp_path, match=r"model\.safetensors")


def test_more_rows_than_memory_in_a_few_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_ROWS", 1_000_000)
    same = pa.table({"id": pa.array(np.zeros(1_000_001, np.int64))})
    pq.write_table(same, tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    refused(storage.read_table, tmp_path / "bomb.parquet", match="1,000,001 rows, at most 1,000,000")


def test_files_and_lines_longer_than_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "MAX_JSON_BYTES", 100)
    monkeypatch.setattr(storage, "MAX_LINE_BYTES", 100)
    (tmp_path / "long").write_text(json.dumps({"a": "x" * 200}))
    refused(storage.read_json, tmp_path / "long", match="at most 100 are read")
    refused(lambda: list(storage.read_jsonl(tmp_path / "long")), match="long:1: longer than 100 bytes")


def test_a_folder_in_place_of_a_file(tmp_path):
    for read in (storage.read_json, storage.read_table, lambda path: list(storage.read_jsonl(path)), read_tensors):
        refused(read, tmp_path)


def checkpoint(folder, **files):
    folder.mkdir(parents=True)
    written = {"config.json": {}, "tokenizer_config.json": {}} | {
        name.replace("__", "."): value for name, value in files.items()
    }
    for name, value in written.items():
        (folder / name).write_text(json.dumps(value))
    save_file(SAFE, folder / "model.safetensors")
    return folder


INDEX = "model.safetensors.index.json"
BAD_CHECKPOINTS = {
    "an adapter beside it": {"adapter_config.json": {"base_model_name_or_path": "/elsewhere"}},
    "code in the config": {"config.json": {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}},
    "code of somebody's hub": {"config.json": {"auto_map": {"AutoConfig": "owner/name--evil.Config"}}},
    "code in the tokenizer": {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}},
    "a config that is a list": {"config.json": [1]},
    "a shard outside the folder": {INDEX: {"weight_map": {"a": "../outside.safetensors"}}},
    "a shard at an absolute place": {INDEX: {"weight_map": {"a": "/etc/passwd"}}},
    "a shard that is a pickle": {INDEX: {"weight_map": {"a": "pytorch_model.bin"}}},
    "a shard that is hidden": {INDEX: {"weight_map": {"a": ".model.safetensors"}}},
    "a shard that is a number": {INDEX: {"weight_map": {"a": 7}}},
    "an index without a map": {INDEX: {}},
    "an index that is a list": {INDEX: []},
    "a shard that is not there": {INDEX: {"weight_map": {"a": "model-2.safetensors"}}},
}


@pytest.mark.parametrize("files", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_checkpoints(tmp_path, files):
    folder = checkpoint(tmp_path / "model")
    check_checkpoint(folder)
    save_file(SAFE, tmp_path / "outside.safetensors")
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    refused(check_checkpoint, folder, match="model")


def test_code_and_pickles_of_a_folder_are_not_copied(tiny, tmp_path):
    source = shutil.copytree(tiny, tmp_path / "source")
    (source / "modeling_evil.py").write_text("raise SystemExit")
    (source / "pytorch_model.bin").write_bytes(PICKLE)
    fetch_checkpoint(str(source), None, tmp_path / "taken")
    taken = {file.name for file in (tmp_path / "taken").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= taken
    assert taken <= {file.name for file in tiny.iterdir()}


LORA = {"peft_type": "LORA", "r": 8}
SLOW = "((.*)*)*x"
BAD_ADAPTERS = {
    "no LoRA": {"peft_type": "PROMPT_TUNING", "r": 8},
    "no rank": {"peft_type": "LORA"},
    "a rank that is a switch": LORA | {"r": True},
    "a rank that fills the memory": LORA | {"r": 10**12},
    "a rank below nothing": LORA | {"r": -1},
    "a rank of a module that is text": LORA | {"rank_pattern": {"q": "8"}},
    "ranks of modules in a list": LORA | {"rank_pattern": [8]},
    "code by auto_map": LORA | {"auto_map": {"AutoModel": "evil.Model"}},
    "code by auto_mapping": LORA | {"auto_mapping": {"parent_library": "evil.library", "base_model_class": "Model"}},
    "auto_mapping that is text": LORA | {"auto_mapping": "evil"},
    "code by megatron": LORA | {"megatron_config": {"a": 1}, "megatron_core": "evil.core"},
    "modules in a text": LORA | {"modules_to_save": "lm_head"},
    "modules that are not there": LORA | {"modules_to_save": ["lm_head"]},
    "a list": [LORA],
    "names that take years": LORA | {"target_modules": SLOW},
    "a name that takes years": LORA | {"modules_to_save": [SLOW]},
    "a rank for what takes years": LORA | {"rank_pattern": {SLOW: 8}},
    "names that are numbers": LORA | {"exclude_modules": [1]},
    "names by the million": LORA | {"layers_pattern": ["a"] * 1_000_000},
    "layers by the million": LORA | {"layer_replication": [[0, 1]] * 1_000_000},
    "a start that takes years": LORA | {"init_lora_weights": "pissa_niter_1000000000"},
}


@pytest.mark.parametrize("config", BAD_ADAPTERS.values(), ids=BAD_ADAPTERS)
def test_adapters(tmp_path, config):
    save_file(
        {f"q.lora_{side}.weight": np.zeros(2, np.float32) for side in "AB"}, tmp_path / "adapter_model.safetensors"
    )
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    assert check_adapter(tmp_path) == 8
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    refused(check_adapter, tmp_path, match="adapter")


@pytest.mark.parametrize("kind", [Embedder, CrossScorer])
def test_a_model_that_brings_an_adapter(tmp_path, kind):
    """It could name any model as its base."""
    (tmp_path / "modules.json").touch()
    (tmp_path / "part").mkdir()
    (tmp_path / "part/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    refused(kind, tmp_path, match="an adapter is in the folder of a model")


def test_an_adapter_that_is_a_pickle(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps(LORA))
    (tmp_path / "adapter_model.bin").write_bytes(PICKLE)
    refused(check_adapter, tmp_path, match=r"lacks adapter_model\.safetensors")


def test_a_tokenizer_that_makes_its_library_panic(tmp_path):
    """A panic of Rust is no Exception."""
    merges = {"merges": [["a", "b"]], "continuing_subword_prefix": "##"}
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, **merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    refused(load_tokenizer, tmp_path, match="the tokenizer cannot be loaded")


BAD_VECTORS = {
    "no vectors": {"vectors": None},
    "fewer vectors than texts": {"vectors": np.zeros((2, 4), np.float32)},
    "vectors without an end": {"vectors": np.full((20, 4), np.nan, np.float32)},
    "vectors of another type": {"vectors": np.zeros((20, 4), np.float64)},
    "vectors of no length": {"vectors": np.zeros((20, 0), np.float32)},
    "too few centroids": {"centroids": np.zeros(15, np.float32)},
    "centroids of vectors that have none": {
        "vectors": np.ones((20, 6), np.float32),
        "centroids": np.zeros(96, np.float32),
    },
    "rows in no order": {"rows": np.arange(20)[::-1].copy()},
}


@pytest.mark.parametrize("changes", BAD_VECTORS.values(), ids=BAD_VECTORS)
def test_vectors_of_an_index(tmp_path, changes):
    sound = {"rows": np.arange(20), "starts": np.arange(21), "sizes": np.array([True])}
    arrays = {**sound, "vectors": np.ones((20, 4), np.float32), **changes}
    save_file({name: array for name, array in arrays.items() if array is not None}, tmp_path / "dense.safetensors")
    refused(DenseRetriever.load, tmp_path, SimpleNamespace(dimension=4))


def test_models_of_ours_from_other_files(tmp_path):
    for name in ("recipe.json", "terms.parquet", "paths.parquet", "weights.safetensors"):
        (tmp_path / name).write_bytes(PICKLE)
    refused(LinearModel.load, tmp_path)
    (tmp_path / "recipe.json").write_text(json.dumps({"format": 1, "recipe": {"evil": 1}, "trials": []}))
    refused(LinearModel.load, tmp_path)
    refused(LabelTree.from_table, pd.DataFrame({"id": [1]}))
    (tmp_path / "dense.safetensors").write_bytes(PICKLE)
    refused(DenseRetriever.load, tmp_path, None)


LINE = {"indoml_id": 1, "description": "milk", "retailer": "shop", "price": 1.0}
BAD_LINES = {
    "a pickle": PICKLE,
    "nested too deep": DEEP,
    "longer than a line may be": json.dumps(LINE | {"description": "x" * 2**21}).encode(),
    "half a surrogate": b'{"indoml_id": 1, "description": "\\ud800", "retailer": "shop", "price": 1}',
    "an id beyond 64 bits": json.dumps(LINE | {"indoml_id": 2**70}).encode(),
    "a price that is endless": b'{"indoml_id": 1, "description": "milk", "retailer": "shop", "price": Infinity}',
    "a price beyond all": b'{"indoml_id": 1, "description": "milk", "retailer": "shop", "price": 1e999}',
    "a description that is an object": json.dumps(LINE | {"description": {"$ref": "file:///etc/passwd"}}).encode(),
    "a description nested too deep to be shown": b'{"indoml_id": 1, "description": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "a description of spaces": json.dumps(LINE | {"description": " \t\u00a0"}).encode(),
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_catalogues(tmp_path, line):
    label = {"indoml_id": 1, "supergroup": "a", "group": "b", "module": "c", "brand": "d"}
    (tmp_path / "train.labels").write_text(json.dumps(label))
    (tmp_path / "train.features").write_text(json.dumps(LINE))
    (tmp_path / "test.features").write_bytes(line + b"\n")
    refused(read_source, tmp_path, match=r"test\.features")


BAD_PARAMS = {
    "an object of Python's": "!!python/object/apply:os.system ['touch unpickled']",
    "a billion laughs": "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b]",
    "nested too deep": "[" * 700,
    "a list": "- 1",
    "nothing": "",
}


@pytest.mark.parametrize("text", BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_params(tmp_path, text):
    (tmp_path / "params.yaml").write_text(text)
    refused(read_params, tmp_path / "params.yaml", schema())


@pytest.mark.parametrize("arm", ["../../etc/passwd", "/etc/passwd", "nearest/../../x", "nearest\0", ""])
def test_an_arm_is_one_of_the_arms_and_no_path(arm, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stages/infer.py", arm])
    with pytest.raises(SystemExit) as ended:
        run_arm_stage(infer.main, infer.PARAMS, infer.write_off)
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


BAD_LOGS = {
    "a pickle": PICKLE,
    "nested too deep": DEEP + b"\n",
    "a number": b"7\n",
    "a list": b"[1]\n",
    "without records": b'{"seconds": 1}\n',
    "seconds that are text": b'{"seconds": "x", "records": {"a": {}}}\n',
    "records that are a list": b'{"seconds": 1, "records": [1]}\n',
}


@pytest.mark.parametrize("content", BAD_LOGS.values(), ids=BAD_LOGS)
def test_state_of_a_run_that_was_poisoned_is_begun_anew(tmp_path, content):
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    assert read_answers(path, {"a"}) == {}
    log = AnswerLog(path)
    assert "a" not in log
    log.add({"a": {"id": 1}}, 1.0)
    assert AnswerLog(path).records(["a"]) == [{"id": 1}]


def test_no_code_of_ours_unpickles_or_trusts():
    """Neither a pickle, nor anything that reads one, nor code that comes with a model."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.partition(".")[0] for alias in node.names}, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in forbidden, file
            elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                assert isinstance(node.value, ast.Constant) and node.value.value is False, file
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("torch", "load"), ("np", "load"), ("pd", "read_pickle")}, (
                    file
                )
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), file
