"""Indexes, filters, fusion and the neighbours table, on real embeddings of a small shelf."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from tillmap.core.errors import InputError, ModelError, ParamsError
from tillmap.core.text import normalise
from tillmap.retrieval.base import OVERFETCH, Retriever, Texts
from tillmap.retrieval.dense import K_FACTOR, DenseRetriever
from tillmap.retrieval.embedding import PACKAGED, Embedder, find_model
from tillmap.retrieval.filters import Filters, search_filtered
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table
from tillmap.retrieval.postings import Postings

KINDS = ["creme egg", "milk chocolate", "orange juice", "olive oil", "shampoo", "green tea", "dog biscuit", "bin bag"]
BRANDS = ["cadbury", "alderley", "golden meadow", "kirana", "purely", "sunny"]
SHELF = [f"{brand} {kind} {size} g" for size in (100, 250) for brand in BRANDS for kind in KINDS]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(device="cpu")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Shuffled, non-contiguous ids; every fifth text is printed by two rows, once in another case."""
    rng = np.random.default_rng(0)
    texts = SHELF + [text.upper().replace(" ", "  ") for text in SHELF[::5]]
    ids = rng.permutation(np.arange(len(texts)) * 7 + 1000)
    return pd.DataFrame(
        {
            "split": "train",
            "id": ids,
            "description": texts,
            "retailer": rng.choice(["herbgrove", "producify", "vitalify"], len(texts)),
            "price": np.where(rng.random(len(texts)) < 0.1, np.nan, np.round(np.exp(rng.normal(1, 1, len(texts))), 2)),
        }
    )


@pytest.fixture(scope="module", params=["dense", "dense quantised", "lexical", "lexical pruned"])
def retriever(request: pytest.FixtureRequest, rows: pd.DataFrame, embedder: Embedder) -> Retriever:
    flat_up_to = 10 if len(request.param.split()) == 2 else 10_000
    if request.param.startswith("dense"):
        return DenseRetriever.build(rows["id"], rows["description"], embedder, flat_up_to=flat_up_to)
    return LexicalRetriever.build(rows["id"], rows["description"], flat_up_to=flat_up_to)


def test_a_text_finds_its_own_rows_first_under_their_ids(retriever: Retriever, rows: pd.DataFrame) -> None:
    ids_of = rows.groupby(rows["description"].map(normalise))["id"].apply(sorted)
    ids, scores = retriever.search(list(ids_of.index), k=3)
    for row, text in enumerate(ids_of.index):
        own = ids_of[text]
        assert ids[row, : len(own)].tolist() == own
        assert scores[row, : len(own)] == pytest.approx(1, abs=1e-4)
        assert (scores[row, len(own) :] < 1 - 1e-4).all()


def test_scores_fall_and_equal_ones_are_ordered_the_same_whatever_the_batch(retriever: Retriever) -> None:
    queries = ["cad creme egg", "gldn mdw olv oil", "sunny tea", "dog bag 250"]
    ids, scores = retriever.search(queries, 10)
    assert (np.diff(scores, axis=1) <= 0).all()
    for row, query in enumerate(queries):
        alone, alone_scores = retriever.search([query], 10)
        assert alone[0].tolist() == ids[row].tolist()
        assert alone_scores[0] == pytest.approx(scores[row], abs=2e-6)


def test_restricted_search_finds_what_an_index_of_those_rows_finds(
    retriever: Retriever, rows: pd.DataFrame, embedder: Embedder
) -> None:
    among = rows["id"][rows["retailer"] == "vitalify"].to_numpy()
    queries = ["cadbury creme egg", "purely bin bag 100 g"]
    ids, _ = retriever.search(queries, 5, among)
    assert np.isin(ids, among).all()
    everything, _ = retriever.search(queries, len(rows))
    if retriever.search(queries, len(rows))[0].min() >= 0:  # the lexical one stops where nothing is shared
        expected = [[i for i in row if i in set(among)][:5] for row in everything.tolist()]
        assert ids.tolist() == expected


def test_asking_for_more_than_there_is_gives_minus_one(retriever: Retriever, rows: pd.DataFrame) -> None:
    few = rows["id"].to_numpy()[:3]
    ids, scores = retriever.search(["cadbury creme egg 100 g"], 6, few)
    assert set(ids[0][ids[0] >= 0]) <= set(few)
    assert (ids[0, 3:] == -1).all() and (scores[0, 3:] == 0).all()
    assert (retriever.search(["egg"], 2, among=[])[0] == -1).all()
    assert retriever.search([], 2)[0].shape == (0, 2)


def test_a_saved_index_answers_as_before(
    retriever: Retriever, rows: pd.DataFrame, embedder: Embedder, tmp_path: Path
) -> None:
    retriever.save(tmp_path)
    again: Retriever = (
        DenseRetriever.load(tmp_path, embedder)
        if isinstance(retriever, DenseRetriever)
        else LexicalRetriever.load(tmp_path)
    )
    queries = ["cad creme egg", "slvr olv oil", "zzz", *SHELF[:5]]
    among = rows["id"].to_numpy()[::2]
    for subset in (None, among):
        for before, after in zip(retriever.search(queries, 7, subset), again.search(queries, 7, subset), strict=True):
            np.testing.assert_array_equal(before, after)
    assert not list(tmp_path.glob("*.pkl"))


def test_the_same_rows_give_the_same_files_in_any_order(rows: pd.DataFrame, embedder: Embedder, tmp_path: Path) -> None:
    for name, table in (("a", rows), ("b", rows.sample(frac=1, random_state=3))):
        LexicalRetriever.build(table["id"], table["description"]).save(tmp_path / name)
        DenseRetriever.build(table["id"], table["description"], embedder).save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_each_distinct_text_is_embedded_once(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Embedder(device="cpu")
    encode, seen = fresh.model.encode, []

    def counting(texts: list[str], **options: Any) -> Any:
        seen.extend(texts)
        return encode(texts, **options)

    monkeypatch.setattr(fresh.model, "encode", counting)
    index = DenseRetriever.build(rows["id"], rows["description"], fresh)
    queries = rows.head(20).assign(split="test")
    for filters in (Filters(), Filters(same_retailer=True), Filters(price_ratio=1.5, min_kept=5)):
        neighbours_table(index, rows, queries, 5, filters=filters)
    index.search(["a new text", "A  NEW text"], 3)
    assert sorted(seen) == sorted({*SHELF, "a new text"})


def test_large_indexes_find_what_exact_ones_find(embedder: Embedder, tmp_path: Path) -> None:
    texts = [f"{brand} {kind} {size} g" for size in range(50, 600, 50) for brand in BRANDS for kind in KINDS]
    ids = np.random.default_rng(1).permutation(len(texts)) * 3
    queries = [text[:5] + text[6:] for text in texts[::11]]
    build = DenseRetriever.build
    exact, quantised = (build(ids, texts, embedder, flat_up_to=limit) for limit in (10_000, 100))
    quantised.save(tmp_path)
    for dense in (quantised, DenseRetriever.load(tmp_path, embedder)):
        assert dense.index.k_factor == K_FACTOR
        assert len(texts) >= (1 + OVERFETCH) * K_FACTOR  # or the codes would not be searched
        found, scores = dense.search(queries, 1)
        best, best_scores = exact.search(queries, 1)
        assert (found == best).mean() > 0.97
        np.testing.assert_allclose(scores, best_scores, atol=0.02)
    whole, pruned = (LexicalRetriever.build(ids, texts, flat_up_to=limit) for limit in (10_000, 100))
    assert (pruned.search(queries, 5)[0] == whole.search(queries, 5)[0]).mean() > 0.9


def test_vectors_are_float32_of_length_one(embedder: Embedder) -> None:
    vectors = embedder.encode(["cad 5 pk creme egg", "", "CAD 5-pk creme egg"])
    assert vectors.dtype == np.float32 and vectors.shape == (3, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert embedder.encode([]).shape == (0, embedder.dimension)


def test_a_model_must_be_there_and_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        find_model("models/nowhere/at/all")
    for revision in (None, "main"):
        with pytest.raises(ModelError, match="40 hex digits"):
            find_model("sentence-transformers/all-mpnet-base-v2", revision)
    with pytest.raises(ModelError, match="there is no modules"):
        Embedder(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not a sentence-transformers model with safetensors"):
        Embedder(tmp_path).encode(["tea"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="could not be downloaded"):
        find_model("sentence-transformers/all-mpnet-base-v2", "0" * 40)


def test_a_model_with_damaged_weights_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model(PACKAGED), folder)
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.truncate(1000)
    with pytest.raises(ModelError, match="not a sentence-transformers model with safetensors"):
        Embedder(folder).encode(["tea"])


def test_saved_vectors_spare_the_model(embedder: Embedder, tmp_path: Path) -> None:
    embedder.save_vectors(["tea", "oil", "TEA"], tmp_path)
    fresh = Embedder()
    fresh.load_vectors(tmp_path)
    np.testing.assert_array_equal(fresh.encode(["Oil", "tea"]), embedder.encode(["oil", "tea"]))
    assert fresh.dimension == embedder.dimension
    assert "model" not in vars(fresh)  # never loaded


def test_what_cannot_be_indexed_or_loaded_says_so(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 0 ids"):
        Texts.group([], [])
    with pytest.raises(InputError, match="id 4 occurs twice"):
        Texts.group([4, 2, 4], ["a", "b", "c"])
    with pytest.raises(InputError, match="letter or a digit"):
        LexicalRetriever.build([1], ["--"])
    with pytest.raises(InputError, match="has no sizes: it is of another version"):
        Texts.of_tensors({"rows": np.arange(2), "starts": np.arange(3)})
    with pytest.raises(InputError, match="index file not found"):
        LexicalRetriever.load(tmp_path)
    DenseRetriever.build([1, 2], ["tea", "oil"], embedder).save(tmp_path)
    (tmp_path / "dense.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="not a valid index file"):
        DenseRetriever.load(tmp_path, embedder)


@given(
    texts=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12),
    k=st.integers(1, 6),
    data=st.data(),
)
def test_texts_expand_to_their_allowed_rows_in_order(texts: list[str], k: int, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, 99), min_size=len(texts), max_size=len(texts), unique=True))
    among = data.draw(st.lists(st.sampled_from(ids), unique=True))
    groups, distinct = Texts.group(ids, texts)
    allowed = groups.allowed(among)
    positions = groups.having(allowed)
    wanted = data.draw(st.permutations(positions.tolist()))
    expected = [
        i for t in wanted for i in sorted(i for i, s in zip(ids, texts, strict=True) if s == distinct[t]) if i in among
    ]
    scores = np.arange(len(wanted), 0, -1, dtype=np.float32)
    found, _ = groups.expand(np.array([[*wanted, -1]], dtype=np.int64), np.append(scores, 0)[None], k, allowed)
    assert found[0].tolist() == (expected + [-1] * k)[:k]
    assert groups.keys.tolist() == sorted(groups.keys.tolist())


def brute_force(
    retriever: Retriever, queries: pd.DataFrame, rows: pd.DataFrame, k: int, filters: Filters
) -> list[list[int]]:
    """What the filters say, row by row, over each query's whole ranking."""
    ranking, _ = retriever.search(list(queries["description"]), len(rows))
    known = rows.set_index("id")
    out = []
    for query, found in zip(queries.itertuples(), ranking.tolist(), strict=True):

        def fits(i: int, query: Any = query) -> bool:
            row = known.loc[i]
            if filters.same_retailer and row["retailer"] != query.retailer:
                return False
            theirs, mine = row["price"], query.price
            if filters.price_ratio is None or np.isnan(theirs) or np.isnan(mine) or not theirs * mine:
                return True
            return bool(theirs * mine > 0 and 1 / filters.price_ratio <= theirs / mine <= filters.price_ratio)

        ranked = [i for i in found if i >= 0]
        kept = [i for i in ranked if fits(i)][:k]
        if len(kept) < min(filters.min_kept, k):
            kept = (kept + [i for i in ranked if i not in kept])[:k]
        out.append(kept + [-1] * (k - len(kept)))
    return out


@settings(max_examples=25, deadline=None)
@given(
    filters=st.builds(Filters, st.booleans(), st.none() | st.sampled_from([1.001, 1.2, 2.0, 50.0]), st.integers(0, 6)),
    k=st.integers(1, 8),
    outlying=st.sampled_from([2, 200]),
    refunds=st.integers(1, 5),
)
def test_filters_keep_what_passes_and_fill_the_rest(
    rows: pd.DataFrame, filters: Filters, k: int, outlying: int, refunds: int
) -> None:
    """A refund finds refunds. Prices of 0 and unknown ones pass."""
    rows = rows.assign(price=rows["price"].where(rows["id"] % refunds > 0, -rows["price"]))
    rows.loc[rows["id"] % 11 == 0, "price"] = 0.0
    index = LexicalRetriever.build(rows["id"], rows["description"])
    queries = pd.DataFrame(
        {
            "description": [
                "cad creme egg 100",
                "sunny oil",
                "purely bin bag",
                "dog bisc",
                "grn tea 250 g",
                "oj",
                "egg",
            ],
            "retailer": ["herbgrove", "producify", "vitalify", "nowhere", "herbgrove", "herbgrove", "vitalify"],
            "price": [1.99, np.nan, 900.0, 4.0, 0.02, -2.5, 0.0],
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tillmap.retrieval.filters.OUTLYING", outlying)
        patch.setattr("tillmap.retrieval.filters.MAX_PAIRS", 40)
        ids, scores = search_filtered(index, queries, rows, k, filters)
    assert ids.tolist() == brute_force(index, queries, rows, k, filters)
    assert (scores[ids < 0] == 0).all()


def test_filters_with_embeddings(rows: pd.DataFrame, embedder: Embedder) -> None:
    index = DenseRetriever.build(rows["id"], rows["description"], embedder)
    queries = rows.sample(15, random_state=1)
    for filters in (Filters(True), Filters(False, 1.5), Filters(True, 1.5), Filters(True, 1.05, 4)):
        ids, _ = search_filtered(index, queries, rows, 6, filters)
        assert ids.tolist() == brute_force(index, queries, rows, 6, filters)


def test_without_sizes_lines_that_differ_in_them_are_one_text(embedder: Embedder, tmp_path: Path) -> None:
    lines = ["COLA ZERO 6X33CL", "cola zero 1.5 L", "tea 20 pcs", "500 g"]
    embedder.save_vectors(["cola zero"], tmp_path)
    for index in (
        LexicalRetriever.build(range(4), lines, sizes=False),
        DenseRetriever.build(range(4), lines, embedder, sizes=False),
    ):
        index.save(tmp_path)
    for index in (LexicalRetriever.load(tmp_path), DenseRetriever.load(tmp_path, embedder)):
        assert len(index.texts.keys) == 3
        ids, scores = index.search(["Cola Zero 2 X 0.99€"], 2)
        assert ids.tolist() == [[0, 1]] and scores == pytest.approx(1, abs=1e-4)
        assert index.search(["500 g"], 1)[0].tolist() == [[3]], "nothing else is in it"
    assert len(LexicalRetriever.build(range(4), lines).texts.keys) == 4


@pytest.mark.parametrize("lines", [["tea"], ["茶"], ["दाल", "दल"], ["ไข่", "ไข"], ["شاي", "شاى", "🍎", "--"]])
def test_few_texts_in_any_script_are_told_apart(lines: list[str], embedder: Embedder) -> None:
    ids = range(len(lines))
    readable = [i for i, line in enumerate(lines) if normalise(line)]
    lexical = LexicalRetriever.build(ids, lines, flat_up_to=1)
    assert lexical.search([lines[i] for i in readable], 1)[0][:, 0].tolist() == readable
    dense = DenseRetriever.build(ids, lines, embedder, flat_up_to=1)
    assert dense.search(lines, 1)[0].min() >= 0


def test_filters_out_of_range_are_refused() -> None:
    with pytest.raises(ParamsError, match="price_ratio"):
        Filters(price_ratio=1.0)
    with pytest.raises(ParamsError, match="min_kept"):
        Filters(min_kept=-1)


def test_the_table_is_tidy_in_the_order_of_the_queries(rows: pd.DataFrame) -> None:
    index = LexicalRetriever.build(rows["id"], rows["description"])
    queries = rows.sample(20, random_state=2).assign(split="test")
    table = neighbours_table(index, rows, queries, 4)
    assert table.columns.tolist() == ["split", "id", "rank", "neighbour", "score"]
    assert table["score"].dtype == np.float32 and table["neighbour"].dtype == np.int64
    assert table.drop_duplicates("id")["id"].tolist() == queries["id"].tolist()
    assert table["rank"].tolist() == [0, 1, 2, 3] * 20
    assert (table.groupby("id", sort=False)["score"].diff().dropna() <= 0).all()


@pytest.mark.parametrize("filters", [Filters(), Filters(same_retailer=True), Filters(True, 1.3, 3)])
def test_an_indexed_row_is_not_its_own_neighbour(rows: pd.DataFrame, filters: Filters) -> None:
    index = LexicalRetriever.build(rows["id"], rows["description"])
    queries = pd.concat([rows.head(30), rows.head(30).assign(split="test")])
    table = neighbours_table(index, rows, queries, 4, filters=filters)
    own = table["id"] == table["neighbour"]
    assert not own[table["split"] == "train"].any()
    assert own[table["split"] == "test"].sum() == 30  # the same numbers in another split are other rows
    for i, row in rows.head(10).iterrows():
        rest = rows.drop(index=i)
        without = LexicalRetriever.build(rest["id"], rest["description"])
        expected = neighbours_table(without, rest, rows.loc[[i]], 4, filters=filters)
        mine = table[(table["split"] == "train") & (table["id"] == row["id"])]
        passing = [
            sorted(t["neighbour"].isin(rest["id"][rest["retailer"] == row["retailer"]])) for t in (mine, expected)
        ]
        assert len(mine) == len(expected) and passing[0] == passing[1]
    kept_in = neighbours_table(index, rows, rows.head(5), 4, filters=filters, leave_out_self=False)
    assert (kept_in["id"] == kept_in["neighbour"]).sum() == 5


def table_of(*neighbours: Sequence[int]) -> pd.DataFrame:
    return pd.DataFrame(
        [("test", i, rank, n, 1.0) for i, found in enumerate(neighbours) for rank, n in enumerate(found)],
        columns=["split", "id", "rank", "neighbour", "score"],
    )


def test_fusion_adds_reciprocal_ranks() -> None:
    fused = fuse([table_of([10, 20, 30], [7]), table_of([20, 40], [7])], [1.0, 0.5], k=3, constant=1.0)
    first = fused[fused["id"] == 0]
    assert first["neighbour"].tolist() == [20, 10, 30]
    assert first["score"].tolist() == pytest.approx([1 / 3 + 0.5 / 2, 1 / 2, 1 / 4])
    assert fused[fused["id"] == 1][["rank", "neighbour"]].to_numpy().tolist() == [[0, 7]]


def test_fusion_breaks_ties_by_id_and_one_table_fused_keeps_its_order() -> None:
    assert fuse([table_of([9, 4]), table_of([4, 9])], [1, 1], k=2)["neighbour"].tolist() == [4, 9]
    alone = table_of([5, 3, 8], [1, 2, 0])
    pd.testing.assert_frame_equal(
        fuse([alone], [1.0], k=3).drop(columns="score"), alone.drop(columns="score"), check_dtype=False
    )


def test_word_starts_and_forgiving_length_help_cut_words(rows: pd.DataFrame) -> None:
    """A till's `ald` is the start of `alderley`, and not the end of `emerald`."""
    index = LexicalRetriever.build([1, 2, 3], ["alderley very long name of green tea", "emerald", "bold"])
    assert index.search(["ald"], 1)[0].tolist() == [[1]]
    plain = LexicalRetriever.build(
        [1, 2, 3], ["alderley very long name of green tea", "emerald", "bold"], initial=1, length=1
    )
    assert plain.search(["ald"], 1)[0].tolist() != [[1]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([1, 40, 10**6]))
def test_postings_find_the_best_rows_of_a_sparse_matrix(seed: int, k: int, budget: int) -> None:
    rng = np.random.default_rng(seed)
    size, columns = int(rng.integers(20, 300)), 15
    # Few distinct values, so that many rows have equal products.
    rows, queries = (
        csr_matrix(rng.integers(0, 3, (n, columns)) * (rng.random((n, columns)) < 0.3), dtype=np.float32)
        for n in (size, 5)
    )
    positions, scores = Postings(rows, rows.T.tocsr(), budget, candidates=12).top(queries, k)
    products = np.asarray((queries @ rows.T).todense())
    for query in range(5):
        found = positions[query][positions[query] >= 0]
        assert len(set(found)) == len(found)
        assert scores[query][: len(found)].tolist() == products[query, found].tolist()
        if budget == 10**6:  # the search is exact: the largest products, of equal ones the first rows
            best = [row for row in np.argsort(-products[query], kind="stable") if products[query, row] > 0][:k]
            assert sorted(found) == sorted(best)
        else:  # the rarest column of the query is always read
            assert len(found) or not queries[query].nnz or not rows.T.tocsr()[queries[query].indices].getnnz(1).min()
