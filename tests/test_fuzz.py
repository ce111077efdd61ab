"""A few damaged files of each kind, those that once failed, and files made to fill the memory. See `make fuzz`."""

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from campaign import CORPUS, attack, corpus, limited, mutants, prepare
from kind import Kind, refusing
from kinds import KINDS
from trained import make_trained

from shop import data
from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import read_table
from tillmap.linear.heads import SparseHeads
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.serving.feed import open_feed

FEW = 5  # of each kind, in the everyday tests


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "project"
    folder.mkdir()
    make_trained(folder)
    return folder


def test_a_few_damaged_files_of_each_kind(project):
    for name in KINDS:
        result = attack(name, project, mutants(name, seed=0, count=FEW))
        assert result.mutants == FEW
        assert not result.failures, result.details
        assert result.peak_mib < 1024


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_more_damaged_files(project, name):
    result = attack(name, project, mutants(name, seed=1, count=100))
    assert not result.failures, result.details


@pytest.mark.parametrize("name", sorted(folder.name for folder in CORPUS.iterdir()))
def test_what_once_failed(project, name):
    result = attack(name, project, corpus(name))
    assert result.mutants and not result.failures, result.details


def test_a_kind_whose_sound_file_is_refused_measures_nothing(tmp_path, monkeypatch):
    def read():
        with refusing():
            read_table(Path("in.parquet"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILLMAP_STATE", str(tmp_path))
    with pytest.raises(ValueError, match=r"a sound file is refused: in.parquet: not a Parquet table"):
        prepare(Kind(lambda: {"in.parquet": b"x"}, read), tmp_path)


# What crashed compiled code: places outside of an array.

BAD_ARRAYS = {
    "a place outside": {"indices": lambda old: np.full_like(old, 2**31 - 1)},
    "a place below 0": {"indices": lambda old: np.full_like(old, -5)},
    "starts that fall": {"indptr": lambda old: old[::-1].copy()},
    "starts beyond the end": {"indptr": lambda old: np.append(old[:-1], old[-1] + 100)},
    "a number that is none": {"data": lambda old: np.full_like(old, np.nan)},
    "too few weights": {"idf": lambda old: old[:-1]},
    "rows of another type": {"rows": lambda old: old.astype(np.float32)},
    "no rows": {"rows": lambda old: old[:0], "starts": lambda old: old[:0]},
    "a text without a row": {"starts": lambda old: np.concatenate([old[:1], old])},
}


@pytest.mark.parametrize("changes", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_an_index_with_places_outside_is_refused(project, tmp_path, changes):
    index = tmp_path / "index"
    index.mkdir()
    (index / "lexical.json").write_bytes((project / "data/index/lexical.json").read_bytes())
    arrays = load_file(project / "data/index/lexical.safetensors")
    save_file(arrays | {name: change(arrays[name]) for name, change in changes.items()}, index / "lexical.safetensors")
    with pytest.raises((InputError, ModelError)):
        LexicalRetriever.load(index)


BAD_WEIGHTS = {
    "a column outside": {"columns": lambda old: np.full_like(old, 65535)},
    "starts that fall": {"starts": lambda old: old[::-1].copy()},
    "a bias that is none": {"biases": lambda old: np.full_like(old, np.inf)},
    "fewer columns than weights": {"columns": lambda old: old[:-1]},
    "texts": {"starts": lambda old: old.astype(np.float32)},
}


@pytest.mark.parametrize("changes", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_with_places_outside_are_refused(project, tmp_path, changes):
    arrays = load_file(project / "models/linear/all/weights.safetensors")
    save_file(
        arrays | {name: change(arrays[name]) for name, change in changes.items()}, tmp_path / "weights.safetensors"
    )
    with pytest.raises(ModelError, match=r"not a linear model"):
        SparseHeads.load(tmp_path / "weights.safetensors")


# Files made to fill the memory


def checked(path):
    return limited(open_feed(path, data()).check)


def packed(path, content, times):
    """A file that unpacks to many times the same bytes."""
    path.write_bytes(b"".join([content] * times))
    return path


MEBI = b"x" * 2**20
ONE = b'{"indoml_id": 1, "description": "milk"}\n'


def endless_gz(folder):
    return packed(folder / "rows.jsonl.gz", gzip.compress(MEBI * 16), 64)


def endless_zst(folder):
    return packed(folder / "rows.csv.zst", pa.compress(MEBI * 16, codec="zstd", asbytes=True), 64)


def endless_array(folder):
    return packed(folder / "rows.json.gz", gzip.compress(b"[" + MEBI * 16), 64)


def deep_array(folder):
    """Its brackets were counted one by one, for a minute."""
    (folder / "rows.json.gz").write_bytes(gzip.compress(b"[" * 2**25))
    return folder / "rows.json.gz"


def a_line(folder):
    with (folder / "rows.jsonl").open("wb") as file:
        file.write(ONE)
        file.truncate(2**30)
    return folder / "rows.jsonl"


def a_quoted_field(folder):
    with (folder / "rows.csv").open("wb") as file:
        file.write(b'indoml_id,description\n1,"')
        file.truncate(2**30)
    return folder / "rows.csv"


def a_value_that_every_row_has(folder):
    """As a dictionary of one text it is small; as rows it is 8 GB."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(8000, np.int32)), pa.array(["x" * 1_000_000]))
    pq.write_table(pa.table({"indoml_id": range(8000), "description": texts}), folder / "rows.parquet")
    return folder / "rows.parquet"


def a_page_of_equal_values(folder):
    table = pa.table({"indoml_id": range(300), "description": ["x" * 2**20] * 300})
    pq.write_table(table, folder / "rows.parquet", use_dictionary=False, compression="zstd")
    return folder / "rows.parquet"


def many_columns(folder):
    columns = {"indoml_id": [1], "description": ["milk"]} | {f"c{number}": [1] for number in range(100_000)}
    pq.write_table(pa.table(columns), folder / "rows.parquet", compression="none")
    return folder / "rows.parquet"


def many_columns_of_csv(folder):
    names = ",".join(f"c{number}" for number in range(100_000))
    (folder / "rows.csv").write_text(f"indoml_id,description,{names}\n")
    return folder / "rows.csv"


def deep_json(folder):
    (folder / "rows.jsonl").write_bytes(b'{"indoml_id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")
    return folder / "rows.jsonl"


def many_members(folder):
    return packed(folder / "rows.jsonl.gz", gzip.compress(b""), 200_000)


MONSTERS = [
    endless_gz, endless_zst, endless_array, deep_array, a_line, a_quoted_field, a_value_that_every_row_has,
    a_page_of_equal_values, many_columns, many_columns_of_csv, deep_json, many_members,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("make", MONSTERS)
def test_monsters(tmp_path, make, record_property):
    path = make(tmp_path)
    said, seconds, mebibytes = checked(path)
    record_property("said", said)
    print(f"{make.__name__}: {path.stat().st_size:,} bytes, {seconds:.1f} s, {mebibytes} MiB: {said[-120:]}")
    assert said == "" or "rows." in said
    assert "Error:" not in said
    assert mebibytes < 1024


def test_a_deep_value_and_a_header_that_lies(tmp_path):
    assert "rows.jsonl:1: not JSON" in checked(deep_json(tmp_path))[0]
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    said, _, mebibytes = limited(lambda: SparseHeads.load(path))
    assert "not a linear model" in said
    assert mebibytes < 100
