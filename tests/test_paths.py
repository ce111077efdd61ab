"""The paths table: distinct paths with a row that shows each, from neighbours and from an arm's ranking."""

import pandas as pd
import pytest
from trained import make_trained

from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError
from tillmap.core.files import read_table
from tillmap.core.taxonomy import CONTEST, LabelPath, Levels
from tillmap.llm.interface.few_shot import FewShotExamples
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import neighbours_table
from tillmap.retrieval.paths import NO_ROW, PathRows, candidate_paths, paths_of_neighbours, paths_of_ranking
from tillmap.serving.labeller import Labeller, files_of
from tillmap.serving.neighbours import NeighbourFinder

TEA = LabelPath("drinks", "hot drinks", "tea", "leafy")
EGG = LabelPath("larder", "sweets", "chocolate", "hopper")
BAR = LabelPath("larder", "sweets", "chocolate", "alderley")
NEW = LabelPath("larder", "sweets", "chocolate", "leafy")
ROWS = [
    (11, "hopper creme egg 40 g", EGG),
    (12, "hopper creme egg 5 pk", EGG),
    (13, "hopper creme egg 12 pk", EGG),
    (14, "hopper caramel nibbles", EGG),
    (18, "HOPPER creme egg 12 pk", EGG),
    (15, "alderley creme bar", BAR),
    (16, "leafy green tea", TEA),
    (17, "leafy mint tea", TEA),
]


@pytest.fixture(scope="module")
def rows():
    table = pd.DataFrame({"split": "train", "id": [row for row, _, _ in ROWS], "description": [t for _, t, _ in ROWS]})
    table = table.assign(retailer="shop", price=1.0)
    return pd.concat([table, CONTEST.columns(path for _, _, path in ROWS)], axis=1)


@pytest.fixture(scope="module", params=["lexical", "dense"])
def index(request, rows):
    if request.param == "lexical":
        return LexicalRetriever.build(rows["id"], rows["description"])
    return DenseRetriever.build(rows["id"], rows["description"], Embedder(device="cpu"))


def ask(*texts):
    table = pd.DataFrame({"split": "test", "id": range(100, 100 + len(texts)), "description": texts})
    return table.assign(retailer="shop", price=1.0)


def test_five_copies_of_one_product_are_one_path(rows, index):
    asked = ask("hpr creme egg")
    near = neighbours_table(index, rows, asked, 8)
    assert near["neighbour"].head(4).isin([11, 12, 13, 14, 18]).sum() >= 3
    found = paths_of_neighbours(near, rows, CONTEST, k=2)
    assert CONTEST.paths(found) == [EGG, BAR]
    assert found["rank"].tolist() == [0, 1]
    assert found["neighbour"].tolist() == [near["neighbour"].iloc[0], 15]
    shown = FewShotExamples(rows, found, CONTEST).examples("test", 100)
    assert [example.path for example in shown] == [EGG, BAR]


def test_a_ranking_gets_the_most_similar_row_of_each_path(rows, index):
    asked = ask("hpr carml nibbles", "lfy mint tea")
    ranked = {("test", 100): [(BAR, 0.6), (EGG, 0.3), (NEW, 0.1)], ("test", 101): [(TEA, 0.9), (EGG, 0.1)]}
    found = paths_of_ranking(ranked, CONTEST, 3, PathRows(rows, CONTEST, index), asked)
    assert CONTEST.paths(found) == [BAR, EGG, NEW, TEA, EGG]
    assert found["neighbour"].tolist()[:4] == [15, 14, -1, 17]
    assert found["rank"].tolist() == [0, 1, 2, 0, 1]
    shown = FewShotExamples(rows, found, CONTEST).examples("test", 100)
    assert [example.item.description for example in shown] == ["alderley creme bar", "hopper caramel nibbles"]
    assert paths_of_ranking(ranked, CONTEST, 1)["neighbour"].tolist() == [-1, -1]


def test_the_row_chosen_is_the_one_that_a_search_of_the_path_finds_first(rows, index):
    asked = ask("hopper egg pk", "creme egg 40g", "alderley caramel", "mint hopper")
    ranked = {("test", key): [(EGG, 1.0)] for key in asked["id"]}
    found = paths_of_ranking(ranked, CONTEST, 1, PathRows(rows, CONTEST, index), asked)
    first, _ = index.search(asked["description"].tolist(), 1, among=[11, 12, 13, 14, 18])
    assert found["neighbour"].tolist() == first[:, 0].tolist()


def test_without_anything_in_common_the_most_frequent_text_shows_the_path(rows):
    index = LexicalRetriever.build(rows["id"], rows["description"])
    found = paths_of_ranking({("test", 100): [(EGG, 1.0)]}, CONTEST, 1, PathRows(rows, CONTEST, index), ask("xyz"))
    assert found["neighbour"].tolist() == [13]  # two rows print it


def test_paths_that_end_early_keep_their_rows():
    levels = Levels(("division", "group"))
    table = pd.DataFrame({"split": "train", "id": [1, 2], "description": ["loaf", "rye loaf"]})
    table = pd.concat([table, levels.columns([("food", ""), ("food", "bread")])], axis=1)
    index = LexicalRetriever.build(table["id"], table["description"])
    ranked = {("test", 100): [(LabelPath("food", ""), 0.7), (LabelPath("food", "bread"), 0.3)]}
    found = paths_of_ranking(ranked, levels, 5, PathRows(table, levels, index), ask("rye loaf"))
    assert found["neighbour"].tolist() == [1, 2]
    assert found["group"].isna().tolist() == [True, False]
    near = pd.DataFrame({"split": "test", "id": 100, "rank": [0, 1], "neighbour": [2, 1], "score": 1.0})
    assert levels.paths(paths_of_neighbours(near, table, levels)) == [("food", "bread"), ("food", "")]


def test_neighbours_must_be_rows(rows):
    near = pd.DataFrame({"split": "test", "id": 100, "rank": [0, 1], "neighbour": [11, 99], "score": 1.0})
    with pytest.raises(InputError, match=r"1 of 2 are not training rows, .* id=99"):
        paths_of_neighbours(near, rows, CONTEST)


def test_candidates_are_what_an_arm_ranks_and_then_what_the_neighbours_have(rows, index):
    asked = ask("leafy creme egg", "grn tea")
    near = neighbours_table(index, rows, asked, 8)
    ranked = {("test", 100): [(NEW, 0.7), (BAR, 0.2)]}
    how = {"training": rows, "levels": CONTEST, "rows": PathRows(rows, CONTEST, index)}
    found = candidate_paths(ranked, near, asked, **how)
    first, second = (found[found["id"] == number] for number in (100, 101))
    assert CONTEST.paths(first)[:2] == [NEW, BAR] and set(CONTEST.paths(first)[2:]) == {EGG, TEA}
    assert first["rank"].tolist() == [0, 1, 2, 3]
    assert first["neighbour"].tolist()[:2] == [NO_ROW, 15]
    assert CONTEST.paths(second)[0] == TEA, "without a ranking, the neighbours' paths"
    alone = candidate_paths({}, near, asked, **how)
    assert CONTEST.paths(alone) == CONTEST.paths(paths_of_neighbours(near, rows, CONTEST))


def test_predict_lists_the_candidates_that_the_stage_lists(tmp_path, monkeypatch):
    make_trained(tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    params = read_params(paths.PARAMS, schema())
    rows = read_table(paths.ROWS)
    test = rows[rows["subset"] == "test"].head(40).reset_index(drop=True)
    labeller = Labeller("rag", params, None, NeighbourFinder(params))
    live = labeller._find(test, "paths")
    written = read_table(paths.CANDIDATES / "paths.parquet").merge(test[["split", "id"]], on=["split", "id"])
    assert len(live) > 400
    pd.testing.assert_frame_equal(live, written, check_exact=False, atol=1e-5)
    assert set(files_of("rag", params)) >= {paths.LINEAR, paths.MODELS / "rerank", paths.INDEX}
    assert paths.LINEAR not in files_of("nearest", params)
