"""Files: whole or not at all, the same bytes twice, and errors that say what to do."""

import numpy as np
import pandas as pd
import pytest

from tillmap.core import files
from tillmap.core.errors import InputError

TABLE = pd.DataFrame({"split": ["train", "test"], "id": [7, 0], "price": [1.5, np.nan], "brand": ["crème | b", None]})


def test_table_round_trip_and_same_bytes(tmp_path):
    files.write_table(TABLE, tmp_path / "a.parquet")
    files.write_table(TABLE.copy(), tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back = files.read_table(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(back, TABLE, check_dtype=False)


def test_jsonl_round_trip(tmp_path):
    records = [{"text": 'line\nbreak "x"', "id": 1}, {"text": "ü", "id": 2}]
    files.write_jsonl(records, tmp_path / "a.jsonl")
    assert list(files.read_jsonl(tmp_path / "a.jsonl")) == records


def test_interrupted_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    files.write_jsonl([{"id": 1}], path)

    def failing():
        yield {"id": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_jsonl(failing(), path)
    assert list(files.read_jsonl(path)) == [{"id": 1}]


def test_interrupted_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "out"
    with files.new_folder(path) as folder:
        files.write_json(1, folder / "a.json")
    with pytest.raises(KeyboardInterrupt), files.new_folder(path) as folder:
        files.write_json(2, folder / "a.json")
        raise KeyboardInterrupt
    assert files.read_json(path / "a.json") == 1
    with files.new_folder(path) as folder:
        files.write_json(3, folder / "b.json")
    assert [file.name for file in path.iterdir()] == ["b.json"]


def test_a_symlinked_folder_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "cached").mkdir()
    files.write_json(1, tmp_path / "cached" / "a.json")
    (tmp_path / "out").symlink_to(tmp_path / "cached")
    with files.new_folder(tmp_path / "out") as folder:
        files.write_json(2, folder / "a.json")
    assert files.read_json(tmp_path / "out" / "a.json") == 2
    assert files.read_json(tmp_path / "cached" / "a.json") == 1


@pytest.mark.parametrize("read", [files.read_table, files.read_json, lambda path: list(files.read_jsonl(path))])
def test_missing_and_damaged_files_say_what_to_do(tmp_path, read):
    with pytest.raises(InputError, match=r"nowhere.*dvc pull"):
        read(tmp_path / "nowhere")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"\x00 no\n")
    with pytest.raises(InputError, match=r"damaged.*dvc pull"):
        read(damaged)


def test_jsonl_error_names_the_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n[2]\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: not a JSON object"):
        list(files.read_jsonl(path))
