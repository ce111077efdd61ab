"""Subsets, samples and the split report hold what they promise, whatever the rows."""

from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from project import ROOT

from stages import stratify
from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.errors import InputError, ParamsError
from tillmap.core.files import read_as, read_table, write_json, write_table
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.core.text import normalise
from tillmap.splitting.alike import alike_labels
from tillmap.splitting.drift import Drift, Seen, words_of
from tillmap.splitting.listings import join_products, listings
from tillmap.splitting.report import split_report
from tillmap.splitting.samples import sample_for_training, sample_report
from tillmap.splitting.subsets import (
    HELD_OUT,
    SUBSETS,
    assign_subsets,
    calibration_share,
    draw_pilot,
    draw_test,
    product_key,
    rows_to_answer,
)

SHARES = {"dev": 0.1, "calibration": 0.1, "holdout": 0.1}
POLICIES = ["stratified", "per_path", "by_retailer"]


def table(products, paths=None, retailers=None, split="train"):
    """Rows with the given products (text), path numbers and retailer numbers."""
    paths = [0] * len(products) if paths is None else paths
    return pd.DataFrame({
        "split": split,
        "id": range(len(products)),
        "description": products,
        "retailer": "shop" if retailers is None else [f"shop {number}" for number in retailers],
        "product": products,
        **{level: [f"{level} {number // 2 if level == 'supergroup' else number}" for number in paths]
           for level in CONTEST},
    })  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        "CAD creme egg 5-pk",  # another size, no size, another order, punctuation, digits
        "cad creme egg",
        "egg, creme cad 40g",
        "c@d creme egg!".replace("@", "a"),
        "cad creme egg 2 x 1.5 kg",
        "cadbury crm egg",  # a word spelled out, another without vowels
    ],
)
def test_near_duplicates_share_a_product_key(other):
    assert product_key(other) == product_key("cad creme egg 197 g")


@pytest.mark.parametrize("other", ["cad flake 197 g", "cad creme egg mint 197 g", "nestle creme egg"])
def test_unlike_products_differ_in_their_key(other):
    assert product_key(other) != product_key("cad creme egg 197 g")


def test_a_product_key_is_the_same_in_every_process():
    assert product_key("Eggs, Cadbury creme 5 x 40 g") == "cd cr eg"


@pytest.mark.parametrize(
    ("description", "key"),
    [
        ("可口可乐500ml", "可口可乐"),
        ("康师傅 红烧牛肉面 5包", "包 康师傅 红烧牛肉面"),
        ("น้ำตาลทราย 1กก", "กก น้ําตาลทราย"),  # NFKC takes the vowel apart
        ("दाल चावल 500 g", "चावल दाल"),
        ("خبز عربي", "خبز عربی"),  # ya as a Persian keyboard has it
        ("МОЛОКО топленое 1л", "л мо то"),
        ("Crème brûlée 2 x 100g", "br cr"),
    ],
)
def test_words_of_scripts_without_capitals_are_kept_whole(description, key):
    assert product_key(description) == key


def test_a_description_without_words_is_its_own_key():
    assert product_key("500 ML") == "500 ml"
    assert product_key("!!!") == "!!!"


@given(st.text(min_size=1))
def test_any_description_has_a_key_that_punctuation_and_case_do_not_change(text):
    assert product_key(text)
    if normalise(text):
        assert product_key(normalise(text)) == product_key(text)


ROWS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)
SHARE = st.floats(0, 0.33)


@settings(max_examples=60)
@example(list("abcde"), (0.3, 0.3, 0.3), "row", 0)  # each share rounds up to two of five rows
@example(list("aaaabbbbcccc"), (0.04, 0.04, 0.04), "product", 0)  # no product is as small as a share
@given(ROWS, st.tuples(SHARE, SHARE, SHARE), st.sampled_from(["product", "row"]), st.integers(0, 9))
def test_subsets_partition_the_rows(products, shares, by, seed):
    train, test = table(products), table(products, split="test")
    rows = pd.concat([test, train], ignore_index=True)
    shares = dict(zip(HELD_OUT, shares, strict=True))
    subset = assign_subsets(rows, by, **shares, seed=seed)
    assert subset.index.equals(rows.index) and (subset[rows["split"] == "test"] == "test").all()
    labelled = subset[rows["split"] == "train"]
    assert set(labelled) <= set(SUBSETS) and (labelled == "train").any()
    if by == "product":
        assert labelled.groupby(rows["product"]).nunique().eq(1).all()
    units = rows["product"].nunique() if by == "product" else len(train)
    wanted = [name for name, share in shares.items() if share]
    assert [name for name in HELD_OUT if (labelled == name).any()] == wanted[: units - 1]
    assert subset.equals(assign_subsets(rows, by, **shares, seed=seed))


def test_subsets_by_row_have_the_shares_asked_for():
    rows, shares = table(["a"] * 1000), {"dev": 0.04, "calibration": 0.1, "holdout": 0.2}
    subset = assign_subsets(rows, "row", **shares, seed=1)
    assert subset.value_counts().to_dict() == {"train": 660, "holdout": 200, "calibration": 100, "dev": 40}
    assert not subset.equals(assign_subsets(rows, "row", **shares, seed=2))


def test_subsets_by_product_have_about_the_shares_asked_for_beside_a_giant_product():
    rng = np.random.default_rng(0)
    rows = table(["giant"] * 400 + [f"p{number}" for number in rng.integers(0, 150, 600)])
    subset = assign_subsets(rows, "product", **SHARES, seed=3)
    assert (subset[:400] == "train").all()
    for name in HELD_OUT:
        assert 90 <= (subset == name).sum() <= 100


def test_rows_that_are_added_leave_a_row_where_it_was():
    rows = table([f"p{number}" for number in range(1000)])
    before, after = (assign_subsets(some, "product", **SHARES, seed=5) for some in (rows[:950], rows))
    assert (before == after[:950]).mean() > 0.95


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.9, 0.9, 0), (-0.1, 0.1, 0.1), (float("nan"), 0.1, 0.1)])
def test_shares_that_leave_nothing_to_train_on(shares):
    with pytest.raises(ParamsError, match=r"split: dev is .* calibration .* holdout .* sum below 1; lower them"):
        assign_subsets(table(["a", "b"]), "row", **dict(zip(HELD_OUT, shares, strict=True)), seed=0)


def test_no_labelled_row():
    with pytest.raises(InputError, match="no row is labelled"):
        assign_subsets(table(["a"], split="test"), "row", **SHARES, seed=0)


def test_rows_to_answer_are_the_test_rows_and_some_of_each_held_out_subset():
    rows = pd.concat([table(["a"] * 100), table(["a"] * 7, split="test")], ignore_index=True)
    rows["subset"] = assign_subsets(rows, "row", **SHARES, seed=0)
    some = rows_to_answer(rows, 4, seed=1)
    assert some["subset"].value_counts().to_dict() == {"test": 7, "dev": 4, "calibration": 4, "holdout": 4}
    assert some.index.is_monotonic_increasing and some.equals(rows_to_answer(rows, 4, seed=1))
    assert set(some.index) < set(rows_to_answer(rows, 5, seed=1).index)
    assert set(rows_to_answer(rows, None, seed=1)["subset"]) == {"test", *HELD_OUT}
    assert len(rows_to_answer(rows, None, seed=1)) == 37
    assert set(rows_to_answer(rows, 0, seed=1)["subset"]) == {"test"}
    used = ["test", "calibration"]
    assert rows_to_answer(rows[rows["subset"].isin(used)], 4, 1).equals(some[some["subset"].isin(used)])


def mixed_rows(size=60, others=30):
    rows = pd.concat([table(["a"] * others), table(["a"] * size, split="test")], ignore_index=True)
    return rows.assign(subset=["calibration"] * others + ["test"] * size)


@settings(max_examples=20)
@given(st.integers(1, 59), st.integers(1, 59), st.integers(0, 2**32 - 1), st.randoms())
def test_a_pilot_follows_from_ids_and_seed_alone_and_a_larger_one_holds_the_smaller(small, large, seed, random):
    small, large = sorted((small, large))
    rows = mixed_rows()
    drawn = draw_pilot(rows, small, seed)
    assert list(drawn) == ["split", "id"] and len(drawn) == small and set(drawn["split"]) == {"test"}
    assert set(drawn["id"]) <= set(draw_pilot(rows, large, seed)["id"])
    labels = list(range(len(rows)))
    random.shuffle(labels)
    other = rows.iloc[labels].assign(description="b", product="b", brand=None)
    assert set(draw_pilot(other, small, seed)["id"]) == set(drawn["id"])
    assert draw_pilot(rows[rows["subset"] == "test"], small, seed).equals(drawn), "whatever rows are there besides"
    # What the arms are asked is the same, however many held-out rows an arm wants.
    for held_out in (0, 5, None):
        asked = rows_to_answer(rows, held_out, seed, small)
        assert asked.loc[asked["subset"] == "test", "id"].tolist() == drawn["id"].tolist()
        assert (asked["subset"] == "calibration").sum() == (30 if held_out is None else held_out)


def test_another_seed_draws_other_rows():
    rows = mixed_rows()
    assert set(draw_pilot(rows, 20, 1)["id"]) != set(draw_pilot(rows, 20, 2)["id"])


def test_no_pilot_is_drawn_where_all_rows_are_asked():
    rows = mixed_rows()
    for pilot_rows in (None, 60, 61):
        assert draw_pilot(rows, pilot_rows, 1) is None
    assert len(draw_pilot(rows, 59, 1)) == 59


ITEMS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=80)


@settings(max_examples=60)
@given(ITEMS, st.integers(1, 90), st.sampled_from(POLICIES), st.integers(0, 5), st.randoms())
def test_a_sample_has_the_size_keeps_every_path_and_the_order(items, size, policy, seed, random):
    rows = table(["x"] * len(items), [path for path, _ in items], [shop for _, shop in items])
    labels = list(range(100, 100 + len(rows)))
    random.shuffle(labels)
    rows.index = labels  # the order is the rows' own, not that of their index
    sample = sample_for_training(rows, CONTEST, size, policy, seed)
    assert len(sample) == min(size, len(rows)) and not sample.index.has_duplicates
    assert sample.index.tolist() == [name for name in rows.index if name in set(sample.index)]
    counts, kept = rows["brand"].value_counts(), set(sample["brand"])
    if size >= len(counts):
        assert kept == set(counts.index)
    else:
        assert len(kept) == size
        assert min(counts[list(kept)]) >= max(counts.drop(list(kept)))  # the most frequent paths are kept
    report = sample_report(sample, rows, CONTEST)
    assert report["paths"] == len(kept) and report["paths_left_out"] == len(counts) - len(kept)
    assert sample.equals(sample_for_training(rows, CONTEST, size, policy, seed))


@pytest.fixture
def long_tail():
    rng = np.random.default_rng(1)
    paths = np.repeat(np.arange(200), (2000 / (np.arange(200) + 1)).astype(int) + 1)
    return table(["x"] * len(paths), paths, rng.choice(4, len(paths), p=[0.7, 0.2, 0.05, 0.05]))


def test_stratified_keeps_the_proportions_beyond_the_first_row(long_tail):
    sample = sample_for_training(long_tail, CONTEST, 3000, "stratified", 0)
    further = long_tail["brand"].value_counts() - 1
    share = (3000 - 200) / further.sum()
    off = sample["brand"].value_counts() - 1 - further * share
    assert off.abs().max() < 1
    assert abs(off[further < 1 / share].sum()) < 5  # chance rounding does not starve the short paths


def test_per_path_is_as_even_as_the_paths_allow(long_tail):
    counts = sample_for_training(long_tail, CONTEST, 3000, "per_path", 0)["brand"].value_counts()
    whole = long_tail["brand"].value_counts()
    assert counts.max() - counts[counts < whole].min() <= 1
    assert (counts == np.minimum(whole, counts)).all()


def test_by_retailer_is_as_even_as_the_retailers_allow(long_tail):
    sample = sample_for_training(long_tail, CONTEST, 1200, "by_retailer", 0)
    counts, whole = sample["retailer"].value_counts(), long_tail["retailer"].value_counts()
    assert counts.max() - counts[counts < whole].min() <= 1


def test_by_retailer_keeps_the_paths_of_a_retailer_that_sells_most_of_them():
    rows = table(["x"] * 70, [*range(20), *[20] * 50], [0] * 20 + [1] * 50)
    assert sample_for_training(rows, CONTEST, 21, "by_retailer", 0)["brand"].nunique() == 21


def test_all_rows_and_no_rows(long_tail):
    assert sample_for_training(long_tail, CONTEST, 5, "all", 0).equals(long_tail)
    assert sample_for_training(long_tail, CONTEST, 10**6, "stratified", 0).equals(long_tail)
    with pytest.raises(ParamsError, match="the size is 0 rows; expected 1 or more"):
        sample_for_training(long_tail, CONTEST, 0, "stratified", 0)


def test_sample_report_by_hand():
    rows = table(["aa", "aaaa", "a", "a"], [0, 0, 2, 4], [0, 1, 1, 1])
    assert sample_report(rows[:3], rows, CONTEST) == {
        "rows": 3,
        "paths": 2,
        "paths_left_out": 1,
        "singleton_share": 0.5,
        "head_share": 1.0,
        "retailers": 2,
        "description_length": 2.33,
        "top_level_shift": 0.25,
    }


def printed(rng, products, times):
    """Receipts of the products, a letter of each misprinted, with a size."""
    for product in products:
        for _ in range(times):
            at = rng.integers(len(product))
            yield f"{product[:at]}{rng.choice(list('xyz'))}{product[at:]} {rng.integers(1, 900)} g"


def catalogue(split_by, seed):
    """A train and a test split of 250 products printed three times, split by product or by receipt."""
    rng = np.random.default_rng(seed)
    syllables = [first + vowel + last for first in "bcdfgklmnprst" for vowel in "aeiou" for last in "lmnrst"]
    products = [" ".join("".join(rng.choice(syllables, 2)) for _ in range(3)) for _ in range(250)]
    lines = pd.DataFrame({"description": list(printed(rng, products, 3)), "number": np.repeat(np.arange(250), 3)})
    in_test = lines["number"] % 4 == 0 if split_by == "product" else pd.Series(rng.random(len(lines)) < 0.25)
    rows = pd.concat(
        [table(some["description"].tolist(), (some["number"] // 8).tolist(), split=split)
         for split, some in (("train", lines[~in_test]), ("test", lines[in_test]))],
        ignore_index=True,
    )  # fmt: skip
    return rows.assign(product=rows["description"].map(product_key))


LISTED = [("a", "soap", "lux"), ("b", "soap", "lux"), ("b", "rice", "lux"), ("a", "soap", "dove"), ("b", "soap", "")]


def listed(paths, prices, products):
    rows = pd.DataFrame(paths, columns=["group", "module", "brand"]).replace("", None)
    return rows.assign(price=prices, product=products)


def test_a_product_with_several_paths_has_one_price_brand_and_last_label():
    levels = Levels(("group", "module", "brand"), "brand")
    rows = listed(LISTED, 0.99, "p")
    assert listings(rows, levels).tolist() == [0, 0, 2, 3, 4]
    assert listings(rows.assign(price=[0.99, 1, 0.99, 0.99, 0.99]), levels).tolist() == [0, 1, 2, 3, 4]
    assert listings(rows.assign(price=np.nan), levels).tolist() == [0, 1, 2, 3, 4]
    assert listings(rows, Levels(("group", "module", "brand"))).tolist() == [0, 1, 2, 3, 4]
    assert listings(rows.iloc[[0, 0, 3]].reset_index(drop=True), levels).tolist() == [0, 1, 2]  # one path each
    assert listings(rows[:0], levels).tolist() == []


def test_the_listings_of_a_product_share_its_key():
    levels = Levels(("group", "module", "brand"), "brand")
    rows = listed(
        [*LISTED, LISTED[1]], [0.99, 0.99, 1, 1, 1, 2], ["lx so", "bar lux", "lx rc", "dv so", "so", "bar lux"]
    )
    assert join_products(rows, levels) == {"lx so": "bar lux"}
    assert join_products(rows[2:], levels) == {}


@pytest.mark.parametrize("split_by", ["product", "row"])
def test_split_report_finds_how_the_test_rows_were_drawn(split_by):
    rows = catalogue(split_by, 7)
    rows["subset"] = assign_subsets(rows, split_by, **SHARES, seed=1)
    report = split_report(rows, CONTEST, seed=1)
    assert report["fits"] == split_by == min(report["distance_to_test"], key=report["distance_to_test"].get)
    other = {"product": "row", "row": "product"}[split_by]
    left_out = report["left_out"]
    gap = {by: abs(left_out[by]["mean"] - left_out["test"]["mean"]) for by in ("product", "row")}
    assert gap[split_by] < gap[other]
    assert left_out["product"]["mean"] < left_out["row"]["mean"]
    drawn = report["drawn"]
    assert abs(drawn["held_out"]["mean"] - drawn["test"]["mean"]) < gap[other]
    for entry in (*left_out.values(), *drawn.values()):
        assert 0 <= entry["p10"] <= entry["p50"] <= entry["p90"] <= 1
    assert report == split_report(rows, CONTEST, seed=1)


def test_split_report_by_hand():
    lines = ["apple pie", "apple pie", "apple  PIE", "melon tart", "quince jelly"]
    rows = pd.concat([table(lines, [0, 0, 1, 2, 2]), table(["melon tart"], split="test")], ignore_index=True)
    rows.loc[5, list(CONTEST)] = None
    rows["subset"] = ["train", "train", "dev", "holdout", "train", "test"]
    rows["product"] = rows["description"].map(product_key)
    report = split_report(rows, CONTEST, seed=0)
    assert report["compared_rows"] == {"labelled": 5, "held_out": 2, "test": 1}
    assert report["left_out"]["row"]["p50"] == 1.0  # the three pies are each other's copies
    assert report["left_out"]["product"]["p90"] < 0.5
    assert report["left_out"]["test"]["mean"] == 1.0 and report["drawn"]["test"]["mean"] < 0.5  # its copy is held out
    assert report["left_out"]["row"]["unseen_paths"] == 0.2  # the third pie's path
    assert report["left_out"]["product"]["unseen_paths"] == 0.6  # all pies go together; tart and jelly keep path 2
    assert report["drawn"]["held_out"]["unseen_paths"] == 0.5
    assert report["left_out"]["test"]["unseen_paths"] is None


def test_words_that_only_test_rows_have_make_them_less_similar():
    rows = pd.concat([table(["apple pie", "melon tart"]), table(["apple pie wxyz"], split="test")], ignore_index=True)
    rows["subset"] = ["train", "train", "test"]
    assert 0.3 < split_report(rows, CONTEST, seed=0)["left_out"]["test"]["mean"] < 0.9


@settings(max_examples=10)
@given(ROWS, st.integers(0, 3))
def test_split_report_bears_any_rows(products, seed):
    rows = pd.concat([table(products), table(products[:3], split="test")], ignore_index=True)
    rows["subset"] = assign_subsets(rows, "product", **SHARES, seed=seed)
    report = split_report(rows, CONTEST, seed, sample=5)
    assert report["fits"] in ("product", "row") and report["left_out"]["test"]["mean"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("share", "labelled", "expected"),
    [(0.08, 18_528, 0.08), (0.08, 3000, 0.2), (0.08, 6000, 0.1), (0.3, 3000, 0.3), (0.08, 0, 0.2)],
)
def test_few_rows_give_more_of_them_to_calibration(share, labelled, expected):
    assert calibration_share(share, 600, labelled) == pytest.approx(expected)


# Without a test file


@pytest.mark.parametrize("by", ["product", "row"])
def test_without_test_rows_some_of_the_labelled_rows_become_them(by):
    rows = table([f"p{number // 3}" for number in range(900)])
    drawn = draw_test(rows, by, 0.2, seed=1)
    assert drawn.drop(columns="split").equals(rows.drop(columns="split"))
    assert (drawn["split"] == "test").sum() == 180
    if by == "product":
        assert drawn.groupby("product")["split"].nunique().eq(1).all()
    assert drawn.equals(draw_test(rows, by, 0.2, seed=1)) and not drawn.equals(draw_test(rows, by, 0.2, seed=2))
    larger = draw_test(rows, by, 0.3, seed=1)
    assert ((drawn["split"] == "test") <= (larger["split"] == "test")).all()


def test_too_few_rows_to_hold_out_a_test():
    with pytest.raises(
        InputError, match=r"3 labelled rows are of 1 products, too few .* `split.by: row`, or name a test"
    ):
        draw_test(table(["a"] * 3), "product", 0.2, seed=1)
    assert (draw_test(table(["a"] * 3), "row", 0.2, seed=1)["split"] == "test").sum() == 1


RAGGED = Levels(("division", "group", "class"))
BREADS = [LabelPath("food", "", ""), LabelPath("food", "bread", ""), LabelPath("food", "bread", "rye")]


def raw_rows(count, split="train"):
    products = [f"{first}{last} loaf" for first in ("ba", "ce", "di", "fo", "gu") for last in "bcdfghjklm"]
    labels = RAGGED.columns(BREADS[number % 3] for number in range(count))
    rows = pd.DataFrame({"split": split, "id": range(count)})
    rows["description"] = [f"{products[number % 50]} {number} g" for number in range(count)]
    return pd.concat([rows.assign(retailer="hill", price=1.0), labels], axis=1)


@pytest.fixture
def stratified(tmp_path):
    """Run the stage on some rows, and give what it writes and returns."""

    def run(rows, declared=None):
        with chdir(tmp_path):
            write_table(rows, paths.RAW / "rows.parquet")
            write_json({"levels": list(RAGGED), "brand": None}, paths.RAW / "levels.json")
            if declared is not None:
                write_table(declared.to_table(), paths.RAW / "declared.parquet")
            found = stratify.main(params)
            return read_table(paths.ROWS), LabelTree.from_table(read_table(paths.TREE)), found

    params = read_params(ROOT / paths.PARAMS, schema(), stratify.PARAMS)
    return run


def test_one_file_of_labelled_rows_is_enough(stratified):
    rows, tree, found = stratified(raw_rows(600))
    test = rows[rows["subset"] == "test"]
    assert 100 <= len(test) <= 120 and (test["split"] == "test").all() and test["division"].notna().all()
    assert not set(test["product"]) & set(rows.loc[rows["subset"] != "test", "product"])
    assert set(rows["subset"]) == {"test", *SUBSETS} and (rows.loc[rows["subset"] != "test", "split"] == "train").all()
    assert not rows.duplicated(["split", "id"]).any()
    assert tree.levels == RAGGED and tree.paths == tuple(BREADS)
    assert sum(tree.rows) == (rows["subset"] == "train").sum()
    assert found["test_drawn"] is True and found["paths"] == 3


def test_test_rows_stay_and_no_others_are_drawn(stratified):
    rows = pd.concat([raw_rows(600), raw_rows(30, split="test")], ignore_index=True)
    split, _, found = stratified(rows)
    assert split["split"].equals(rows["split"]) and found["test_drawn"] is False
    assert (split["subset"] == "test").equals(rows["split"] == "test")
    alone = assign_subsets(split.drop(columns="subset"), "product", dev=0.04, calibration=0.2, holdout=0.04, seed=3407)
    assert alone.equals(split["subset"])


def test_paths_of_a_taxonomy_file_are_in_the_tree_without_rows(stratified):
    spelt = LabelPath("food", "bread", "spelt")
    declared = LabelTree(RAGGED, tuple(sorted([*BREADS, spelt])), (0,) * 4, ("1", "1.1", "1.1.1", "1.1.2"))
    _, tree, found = stratified(raw_rows(600), declared)
    assert spelt in tree and tree.rows_of(spelt) == 0 and tree.code_of(spelt) == "1.1.2"
    assert found["paths"] == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_sample_of_a_ragged_tree_keeps_every_path(policy):
    rows = raw_rows(90).assign(retailer=[None, "hill", "vale"] * 30)
    sample = sample_for_training(rows, RAGGED, 10, policy, 1)
    assert len(sample) == 10 and set(RAGGED.paths(sample)) == set(BREADS)
    assert sample_report(sample, rows, RAGGED)["paths_left_out"] == 0


def test_the_split_report_counts_paths_that_end_early(stratified):
    rows, _, found = stratified(raw_rows(600))
    assert found["left_out"]["test"]["unseen_paths"] == 0.0
    rows.loc[rows["subset"] == "test", list(RAGGED)] = None
    assert split_report(rows, RAGGED, 1)["left_out"]["test"]["unseen_paths"] is None


# Drift


def test_words_of_scripts_without_spaces_are_letters():
    assert words_of("Tea 绿茶 500") == ["tea", "绿", "茶", "500"]
    assert words_of("दाल चावल") == ["दाल", "चावल"]
    seen = Seen.of(pd.DataFrame({"description": ["绿茶", "red TEA"], "retailer": ["hill", None]}))
    assert read_as(Seen, Path("seen.json"), seen.as_json()) == seen
    drift = Drift(seen)
    drift.add(pd.DataFrame({"description": ["茶绿 tea", "红茶", "tea"], "retailer": ["vale", "", None]}))
    assert (drift.rows, drift.new_retailers, drift.new_words) == (3, 1, 1)


def test_labels_that_are_probably_one_are_said(stratified, caplog):
    rows = raw_rows(600)
    rows.loc[rows["class"].notna() & (rows["id"] < 60), "group"] = "Bread "
    _, tree, found = stratified(rows)
    assert found["alike_labels"] == {"group": 1}
    assert "group: 'Bread ' and 'bread' differ only in case, spaces or signs" in caplog.text
    assert {"Bread ", "bread"} <= set(tree.labels("group")), "they stay apart"
    caplog.clear()
    assert stratified(raw_rows(600))[2]["alike_labels"] == {}
    assert "differ only" not in caplog.text


def test_accents_tell_labels_apart():
    rows = pd.DataFrame({"class": ["pate", "pâté", "दाल", "दल", "7-up", "7 UP", None]})
    assert alike_labels(rows, Levels(("class",))) == {"class": [["7 UP", "7-up"]]}
