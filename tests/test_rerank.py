"""The reranker: lines as arrays, similar lines, candidates, features, trees, training, and the arm that uses them."""

import json
import logging
import re
from dataclasses import replace
from itertools import pairwise

import lightgbm
import numpy as np
import pandas as pd
import pytest

from arm_context import make_context
from brand_shop import LEVELS as BRANDS
from brand_shop import brand_rows
from tillmap.arms import ARMS
from tillmap.arms.rerank import RerankSettings
from tillmap.catalogue.demo import make_demo
from tillmap.core.errors import InputError, ModelError
from tillmap.core.files import read_table
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels
from tillmap.core.text import without_vowels
from tillmap.linear import fits
from tillmap.linear.model import LinearModel, Recipe
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.postprocessing.repair import Repairer
from tillmap.rerank.candidates import prefix_range
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.examples import Options, collect
from tillmap.rerank.facts import Names, spell
from tillmap.rerank.features import distance
from tillmap.rerank.folds import assign_folds, hold_out
from tillmap.rerank.lines import Lines
from tillmap.rerank.reranker import Reranker
from tillmap.rerank.similar import Groups, SimilarLines
from tillmap.rerank.training import _SURELY as SURELY
from tillmap.rerank.training import train
from tillmap.rerank.trees import Trees
from tillmap.splitting.subsets import assign_subsets, product_key

QUICK = Recipe(epochs=2)
FEW = Options(candidates=30, trees=20, folds=2)


@pytest.fixture(scope="module", autouse=True)
def easily_chosen():
    """Few trees of few rows gain less than what is asked for: here one standard error is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tillmap.rerank.training._SURELY", 1.0)
        yield


@pytest.fixture(scope="module")
def rows():
    demo = make_demo(1500, 300)
    tables = [table.assign(split=split) for split, table in (("train", demo.train), ("test", demo.test))]
    rows = pd.concat(tables, ignore_index=True).rename(columns={"indoml_id": "id"})
    rows["product"] = rows["description"].map(product_key)
    rows["subset"] = assign_subsets(rows, "product", dev=0.1, calibration=0.05, holdout=0.05, seed=1)
    return rows


@pytest.fixture(scope="module")
def training(rows):
    return rows[rows["subset"] == "train"]


@pytest.fixture(scope="module")
def model(training):
    return LinearModel.fit(training, LabelTree.from_rows(training, CONTEST), QUICK, 1)


@pytest.fixture(scope="module")
def evidence(model, training):
    return Evidence.of(model, training)


@pytest.fixture(scope="module")
def reranker(model, rows, training):
    return train(model, training, rows[rows["subset"] == "test"], FEW, 1)


@pytest.fixture(scope="module")
def booster():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)).astype(np.float32)
    target = rows[:, 0] + (rows[:, 1] > 0.3)
    params = {"verbose": -1, "num_leaves": 7, "use_missing": False, "num_threads": 1}
    return lightgbm.train(params, lightgbm.Dataset(rows, target), 5), rows


def right(answers, paths):
    return float(np.mean([each[0][0] == path for each, path in zip(answers, paths, strict=True)]))


# Lines and similar lines


def test_lines_are_split_into_words_with_and_without_vowels():
    texts = ["Golden  MEADOW butter", "", "a"]
    lines = Lines.of(texts)
    assert len(lines) == 3 and lines.starts.tolist() == [0, 3, 3, 4]

    def words(letters, ends):
        return ["".join(map(chr, letters[begin:end])) for begin, end in pairwise(ends)]

    assert words(lines.letters, lines.ends) == ["golden", "meadow", "butter", "a"]
    assert words(lines.consonants, lines.consonant_ends) == [*without_vowels("golden meadow butter").split(), "a"]


def test_the_nearest_lines_share_words_or_their_consonants():
    index = SimilarLines.of(Lines.of(["dove soap bar", "dove shampoo", "green tea", "dettol soap", "green tea"]))
    places, similar = index.nearest(Lines.of(["dv soap", "GREEN TEA", "xyz", ""]), 3)
    assert places[0, 0] == 0 and places[1, :2].tolist() == [2, 4]
    assert similar[1, 0] == pytest.approx(1, abs=1e-5)
    assert (places[2:] == -1).all() and (similar[2:] == 0).all()
    assert (np.diff(similar, axis=1) <= 0).all()


def test_the_first_words_of_a_query_can_be_left_out():
    index = SimilarLines.of(Lines.of(["dove shampoo", "green tea"]))
    assert index.nearest(Lines.of(["dove green tea"]), 1, skip=1)[1][0, 0] == pytest.approx(1, abs=1e-5)


def test_the_nearest_lines_of_a_group_are_found_however_far_they_are():
    index = SimilarLines.of(Lines.of(["dove soap bar", "dove soap", "dove shampoo", "green tea", "lux soap"]))
    groups = Groups(np.array([0, 1, 1, 4]), np.array([1, 3, 4, 2]))
    queries = Lines.of(["dove soap bar", "dove soap bar", "dove soap bar", "dove soap bar"])
    near, inside = index.nearest_and_in_group(queries, 1, np.array([-1, 0, 1, 2]), groups, 2)
    assert inside[0].tolist() == [[-1, -1], [1, -1], [-1, -1], [2, 4]]  # tea shares no n-gram
    assert near[0].tolist() == index.nearest(queries, 1)[0].tolist() == [[0]] * 4
    assert inside[1][3] == pytest.approx(index.nearest(queries, 5)[1][3, [2, 3]])


def test_folds_keep_near_duplicates_together_only_if_the_asked_lines_are_new():
    kinds = [
        f"{first}{second} {third} soap"
        for first in ("dove", "lux", "fa")
        for second in "abcdefgh"
        for third in ("rose", "lime")
    ]
    lines = Lines.of([f"{kind} {number}" for kind in kinds for number in range(4)])
    path_of = np.repeat(np.arange(len(kinds)), 4)

    def kept_together(asked):
        fold = assign_folds(lines, path_of, np.arange(len(lines)), Lines.of(asked), 4, 1).reshape(-1, 4)
        return float((fold == fold[:, :1]).all(axis=1).mean())

    assert kept_together(kinds) < 0.2
    assert kept_together(["dove", "green tea", "rice"]) == 1


def test_a_product_under_several_paths_stays_in_one_fold():
    lines = Lines.of([f"{first}{second} soap" for first in "abcdefghij" for second in "abcdefghij"])
    listing, alone = np.arange(100) // 4 * 4, np.arange(100)

    def kept_together(listing):
        fold = assign_folds(lines, np.arange(100) % 4, listing, lines, 4, 1).reshape(-1, 4)
        return (fold == fold[:, :1]).all(axis=1)

    assert kept_together(listing).all()
    assert not kept_together(alone).all()


# Spelling


def test_brands_that_begin_with_some_letters_are_found_by_bisection():
    names = Names([("food",)], ["dettol", "dove", "Dr. Oetker", "", "detto"])
    spelled = spell(names)
    text = Lines.of(["dett dr zz"])
    found = []
    for word, length in ((0, 3), (0, 4), (1, 2), (2, 1)):
        low, high = prefix_range(
            text.letters, text.ends[word], length, spelled.letters, spelled.ends, spelled.sorted_letters
        )
        found.append({names.brands[brand] for brand in spelled.sorted_letters[low:high]})
    assert found == [{"dettol", "detto"}, {"dettol", "detto"}, {"Dr. Oetker"}, set()]


@pytest.mark.parametrize(("word", "label", "expected"), [("dett", "dettol", 0), ("dxtt", "dettol", 0.25), ("a", "", 1)])
def test_a_word_is_compared_with_the_start_of_a_label(word, label, expected):
    one, other = Lines.of([word]), Lines.of([label or "-"])
    assert distance(one.letters, 0, len(word), other.letters, 0, len(label)) == expected


# Candidates and features


def test_candidates_are_distinct_limited_and_mostly_hold_the_true_path(evidence, rows):
    test = rows[rows["subset"] == "test"]
    paths = CONTEST.paths(test)
    ((found, described),) = evidence.chunks(test, 30, read=True)
    sizes = np.diff(found.starts)
    assert sizes.max() == 30 and sizes.min() > 10
    row = np.repeat(np.arange(len(test)), sizes)
    keys = set(zip(row.tolist(), found.chain.tolist(), found.brand.tolist(), strict=True))
    assert len(keys) == len(found.chain)
    assert np.bincount(row, evidence.right(found, paths, test["description"].tolist())).mean() > 0.9
    assert (np.diff(found.total)[np.diff(row) == 0] <= 0).all()
    assert described.shape == (len(row), len(evidence.features)) and np.isfinite(described).all()
    assert len(set(evidence.features)) == len(evidence.features)


def test_candidates_have_pairs_that_no_training_row_shows(evidence, rows):
    ((found, described),) = evidence.chunks(rows[rows["subset"] == "test"].head(50), 60, read=False)
    known = described[:, evidence.features.index("known")] > 0
    assert 0.1 < known.mean() < 0.95
    trained = set(evidence.model.tree)
    assert all(
        (evidence.path(chain, brand, "") in trained) == is_known
        for chain, brand, is_known in zip(found.chain, found.brand, known, strict=True)
    )


def test_a_pair_that_is_not_known_is_kept_only_if_its_score_is_well_above(evidence, rows):
    row = rows[rows["subset"] == "test"].head(1)
    ((all_of_them, described),) = evidence.chunks(row, 200, read=False)
    ((kept, _),) = evidence.chunks(row, 20, read=False)
    known = described[:, evidence.features.index("known")]
    best = np.sort(np.argsort(-(all_of_them.total + 0.5 * known), kind="stable")[:20])
    assert 0 < known[best].sum() < 20
    assert best.tolist() != list(range(20))
    assert kept.chain.tolist() == all_of_them.chain[best].tolist()
    assert kept.brand.tolist() == all_of_them.brand[best].tolist()


def test_rows_of_exactly_the_same_price_speak_for_their_paths(evidence, training):
    counts = training["price"].value_counts()
    row = training[training["price"] == counts.index[-1]].iloc[0]
    assert counts.iloc[-1] == 1
    asked = pd.DataFrame({"description": row["description"], "retailer": "", "price": [row["price"], 98765.43, np.nan]})
    ((found, described),) = evidence.chunks(asked, 60, read=False)
    speaks = described[:, evidence.features.index("same_price_path_best")]
    paths = [evidence.path(chain, brand, "") for chain, brand in zip(found.chain, found.brand, strict=True)]
    asked_row = np.repeat(np.arange(len(asked)), np.diff(found.starts))
    (own,) = CONTEST.paths(row.to_frame().T)
    assert {(asked_row[place], paths[place]) for place in np.flatnonzero(speaks)} == {(0, own)}
    assert speaks.max() == pytest.approx(1, abs=1e-5)


def test_a_line_of_nothing_gets_candidates_too(evidence):
    nothing = pd.DataFrame({"description": ["", "???"], "retailer": "", "price": [np.nan, -3.0]})
    ((found, described),) = evidence.chunks(nothing, 30, read=True)
    assert (np.diff(found.starts) > 0).all() and np.isfinite(described).all()


def test_brands_that_the_line_spells_are_candidates(model, evidence, training):
    brand = max(evidence.names.brands, key=len)
    line = pd.DataFrame({"description": [f"{brand[:5]} zzz"], "retailer": "", "price": [2.0]})
    ((found, described),) = evidence.chunks(line, 200, read=False)
    row = [evidence.names.brands[number] for number in found.brand].index(brand)
    assert described[row, evidence.features.index("brand_shared")] == 5


# Trees


def test_trees_score_as_lightgbm_does(booster):
    fitted, rows = booster
    trees = Trees.parse(fitted.model_to_string())
    assert len(trees) == 5 and trees.features == tuple(fitted.feature_name())
    np.testing.assert_allclose(trees.score(rows), fitted.predict(rows), rtol=1e-6)
    np.testing.assert_allclose(trees.first(2).score(rows), fitted.predict(rows, num_iteration=2), rtol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "changed"),
    [
        (r"num_class=1", "num_class=3"),
        (r"left_child=\S+", "left_child=0"),
        (r"right_child=\S+", "right_child=99999"),
        (r"split_feature=\S+", "split_feature=7"),
        (r"split_feature=\S+", "split_feature=-1"),
        (r"threshold=\S+", "threshold=nan"),
        (r"leaf_value=\S+", "leaf_value=1e999"),
        (r"leaf_value=\S+", "leaf_value=-1e30"),
        (r"leaf_value=\S+ ", "leaf_value="),
        (r"split_feature=\S+", "split_feature=1.5"),
        (r"version=v4", "version=v5"),
        (r"max_feature_idx=\S+", "max_feature_idx=9"),
        (r"tree_sizes=\S+", "tree_sizes=9"),
        (r"Tree=3[\s\S]*(?=Tree=4)", ""),
        (r"Tree=3[\s\S]*", ""),
        (r"is_linear=0\nshrinkage=\S+\n*end of trees[\s\S]*", ""),
        (r"num_leaves=7", "num_leaves=99999999999"),
        (r"num_leaves=7", "num_leaves=x"),
        (r"num_cat=0", "num_cat=1"),
        (r"decision_type=\S+", "decision_type=1"),
        (r"is_linear=0", "is_linear=1"),
        (r"feature_names=.*", ""),
        (r"Tree=[\s\S]*", ""),
    ],
)
def test_a_changed_model_file_is_an_error(booster, tmp_path, pattern, changed):
    text, count = re.subn(pattern, changed, booster[0].model_to_string(), count=1)
    assert count == 1
    (tmp_path / "trees.txt").write_text(text)
    with pytest.raises(ModelError, match=r"trees\.txt: not a LightGBM model of this version"):
        Trees.load(tmp_path / "trees.txt")


def test_a_file_of_bytes_is_an_error(tmp_path):
    (tmp_path / "trees.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not readable"):
        Trees.load(tmp_path / "trees.txt")
    with pytest.raises(ModelError, match="not readable"):
        Trees.load(tmp_path / "none.txt")


# Training and choice


def test_the_reranker_is_kept_only_if_it_gains_rows_out_of_fold(reranker, training):
    tried = {trial["tried"]: trial for trial in reranker.trials}
    assert [*tried] == ["no trees", "5 trees", "10 trees", "20 trees", "brands read off the line"]
    assert {trial["rows"] for trial in reranker.trials} == {len(training)}
    kept = [trial for trial in reranker.trials if trial["kept"]]
    assert kept[0]["right"] > tried["no trees"]["right"]
    assert reranker.read_brand == tried["brands read off the line"]["kept"]
    assert len(reranker.trees) == int(kept[0]["tried"].split()[0])


def test_with_many_rows_a_part_is_held_out_instead_of_folds(model, evidence, training, rows, caplog):
    """One linear model is trained without that part and without what is too near to it, and the trees on the part."""
    test, options = rows[rows["subset"] == "test"], replace(FEW, trees=40, fold_up_to=1000, held_out_rows=600)
    caplog.set_level(logging.INFO)
    found = collect(model, training, test, options, 1)
    assert len(found.linear) == 600 and np.bincount(found.half).tolist() == [300, 300]
    assert len(found.right) == found.starts[-1] == len(found.described) and np.diff(found.starts).max() <= 30
    fitted = [record.args[1] for record in caplog.records if record.msg.startswith("training")]
    assert len(fitted) == 1 and fitted[0] < len(training) - 600 + len(model.tree) * 2  # with names of labels
    reranker = train(model, training, test, options, 1)
    assert {trial["rows"] for trial in reranker.trials} == {600} and reranker.trees is not None
    paths = CONTEST.paths(test)
    linear = model.predict(test)["candidates"].tolist()
    assert right(reranker.rank(evidence, test), paths) > right(linear, paths)


def of_two_groups(count, prices):
    """Rows of one brand and module, each in one of two groups at the same price."""
    rows = pd.DataFrame({"id": range(count), "description": [f"soap {name_of(each)}" for each in range(count)]})
    rows["group"] = ["bath", "gifts"] * (count // 2)
    return rows.assign(retailer="", module="soap", brand="dove", price=prices, split="train")


def name_of(number):
    return "".join("aeioubcdf"[int(digit)] for digit in str(number).translate(str.maketrans("9", "0")))


@pytest.mark.parametrize("fold_up_to", [0, 1000])
def test_all_listings_of_a_product_are_held_out_together(fold_up_to):
    levels = Levels(("group", "module", "brand"), "brand")
    rows = of_two_groups(240, np.repeat(np.arange(60) + 1.0, 4))
    options = replace(FEW, fold_up_to=fold_up_to, held_out_rows=50)
    model = LinearModel.fit(rows, LabelTree.from_rows(rows, levels), QUICK, 1)
    found = collect(model, rows, rows, options, 1)
    inside = rows.merge(found.keys.assign(half=found.half), on=["split", "id"])
    assert len(inside) == (52 if fold_up_to == 0 else 240)  # 12 products of 4 rows are too few
    assert (inside.groupby("price").size() == 4).all()
    assert (inside.groupby("price")["half"].nunique() == 1).all()


@pytest.mark.parametrize("fold_up_to", [0, 1000])
def test_where_all_rows_are_listings_of_one_product_the_linear_model_answers(fold_up_to):
    levels, rows = Levels(("group", "module", "brand"), "brand"), of_two_groups(120, 1.0)
    model = LinearModel.fit(rows, LabelTree.from_rows(rows, levels), QUICK, 1)
    assert train(model, rows, rows, replace(FEW, fold_up_to=fold_up_to), 1).trees is None


def test_lines_too_near_to_held_out_ones_of_their_path_train_nothing_if_asked_lines_are_new():
    lines = [f"{first} {second} soap" for first in ("dove", "lux", "fa") for second in ("rose", "lime", "mint", "aloe")]
    path_of = np.repeat(np.arange(len(lines)), 3)
    text, held = [line for line in lines for _ in range(3)], np.arange(0, 36, 3)

    def kept(asked):
        inside = hold_out(Lines.of(text), path_of, Lines.of(asked), held, Lines.of([text[each] for each in held]))
        assert not inside[held].any()
        return int(inside.sum())

    assert kept(lines) == 24
    assert kept(["green tea", "rice"]) == 0


def test_with_few_rows_the_linear_model_answers(model, rows, training):
    assert train(model, training.head(50), rows[rows["subset"] == "test"], FEW, 1).trees is None


def test_where_lines_say_all_the_linear_model_answers():
    """Each line names its path, so that no candidate is better than the first."""
    levels = Levels(("group", "brand"), "brand")
    kinds = [f"{group} {brand}" for group in ("bread", "soap", "rice") for brand in ("dove", "amul", "kraft")]
    table = [(number, kinds[number % len(kinds)], "", 1.0) for number in range(270)]
    rows = pd.DataFrame(table, columns=["id", "description", "retailer", "price"])
    rows[["group", "brand"]] = [text.split() for text in rows["description"]]
    rows["split"] = "train"
    model = LinearModel.fit(rows, LabelTree.from_rows(rows, levels), QUICK, 1)
    found = train(model, rows, rows, FEW, 1)
    assert found.trees is None
    assert [trial["tried"] for trial in found.trials if trial["kept"]] == ["no trees"]
    assert found.trials[0]["right"] == len(rows)


def test_where_labels_say_nothing_of_the_lines_the_linear_model_answers(training, monkeypatch):
    """Trees that gain by chance are not chosen."""
    monkeypatch.setattr("tillmap.rerank.training._SURELY", SURELY)
    paths = CONTEST.paths(training)[:6]
    for seed in range(3):
        drawn = np.random.default_rng(seed).integers(len(paths), size=300)
        levels = pd.DataFrame([paths[each] for each in drawn], columns=[*CONTEST])
        rows = training.head(300).reset_index(drop=True).assign(**levels)
        model = LinearModel.fit(rows, LabelTree.from_rows(rows, CONTEST), QUICK, 1)
        assert train(model, rows, rows, FEW, seed).trees is None


# Brands that no training row has


@pytest.fixture(scope="module")
def reading():
    """Evidence of some rows with rare brands, the reranker that is trained on them, and the other rows."""
    rows = brand_rows()
    training, test = rows.head(450), rows.tail(150)
    model = LinearModel.fit(training, LabelTree.from_rows(training, BRANDS), QUICK, 1)
    return Evidence.of(model, training), train(model, training, test, FEW, 1), test


def test_brands_are_read_off_the_line_where_that_gains(reading):
    evidence, reranker, test = reading
    known = set(evidence.names.brands)
    paths = evidence.model.tree.levels.paths(test)
    answers = [each[0][0] for each in reranker.rank(evidence, test)]
    new = [(path, answer) for path, answer in zip(paths, answers, strict=True) if path[-1] not in known]
    assert reranker.read_brand and len(new) > 20
    assert np.mean([path == answer for path, answer in new]) > 0.8
    without = replace(reranker, read_brand=False).rank(evidence, test)
    assert not any(path[-1] not in known for each in without for path, _ in each)


def test_a_brand_that_is_read_has_its_own_repair_mark(reading):
    evidence, reranker, test = reading
    levels, tree = evidence.model.tree.levels, evidence.model.tree
    repairer = Repairer(tree, make_answer_format("json", tree), unseen_brand=True)
    ranked = reranker.rank(evidence, test)
    repaired = [repairer.repair(json.dumps(levels.of(each[0][0]), ensure_ascii=False)) for each in ranked]
    marks = {(found.repair, found.in_tree) for found in repaired if found.path[-1] not in evidence.names.brands}
    assert marks == {("new_brand", False)}


def test_a_line_that_names_a_known_brand_reads_none(reading):
    evidence, _, _ = reading
    brand = evidence.names.brands[0]
    items = pd.DataFrame({"description": [f"{brand} soap", "", "x", "12 soap"], "retailer": "", "price": np.nan})
    ((found, _),) = evidence.chunks(items, 200, read=True)
    row = np.repeat(np.arange(len(items)), np.diff(found.starts))
    paths = [
        evidence.path(chain, number, items["description"][at])
        for at, chain, number in zip(row, found.chain, found.brand, strict=True)
    ]
    read = {
        (at, path[-1]) for at, path in zip(row.tolist(), paths, strict=True) if path[-1] not in evidence.names.brands
    }
    assert brand not in {name for _, name in read} and {at for at, _ in read} <= {0}


# Other taxonomies


def shop(levels, size=400, seed=0):
    """Rows of a shop: each path has its own words, and prices of its own height."""
    rng = np.random.default_rng(seed)
    kinds = ["bread", "butter", "cheese", "coffee", "soap", "rice"]
    sorts = ["white", "dark", "mild", "strong"]
    table = []
    for number in range(size):
        kind, sort = rng.integers(len(kinds)), rng.integers(len(sorts) + 1)
        labels = ["food" if kind < 4 else "other", kinds[kind], sorts[sort] if sort < len(sorts) else None]
        brand = ["dove", "kraft", "amul", "lux"][rng.integers(4)]
        text = " ".join([brand[:3], labels[2] or "", labels[1][: rng.integers(3, 7)]]).replace("  ", " ")
        table.append([number, text, "shop", (kind + 1) * rng.uniform(0.9, 1.1), *labels, brand])
    rows = pd.DataFrame(
        table, columns=["id", "description", "retailer", "price", "division", "group", "class", "brand"]
    )
    rows = rows.assign(split="train", product=rows["description"])
    return rows.assign(subset=np.where(rows["id"] < size * 0.8, "train", "dev"))[[*rows, "subset"]].drop(
        columns=[name for name in ("division", "group", "class", "brand") if name not in levels.names]
    )


@pytest.mark.parametrize("prices", [True, False])
@pytest.mark.parametrize(
    "levels",
    [
        Levels(("group",)),
        Levels(("group", "brand"), "brand"),
        Levels(("division", "group", "class")),
        Levels(("division", "group", "class", "brand"), "brand"),
        Levels(('Product "group", €', "Product group", "brand", "total"), "total"),
    ],
    ids="-".join,
)
def test_any_levels_can_be_reranked(levels, prices):
    four = ("division", "group", "class", "brand")
    named = dict(zip(four, levels.names, strict=True)) if len(levels) == len(four) else {}
    rows = shop(Levels(four, "brand") if named else levels).rename(columns=named)
    rows = rows if prices else rows.assign(price=np.nan)
    training, dev = (rows[rows["subset"] == subset] for subset in ("train", "dev"))
    model = LinearModel.fit(training, LabelTree.from_rows(training, levels), QUICK, 1)
    trees = collect(model, training, dev, FEW, 1).boost(5, 15, 1)
    answers = list(Reranker(trees, 20, True).rank(Evidence.of(model, training), dev))
    assert right(answers, levels.paths(dev)) > 0.8
    assert all(len(path) == len(levels) for answer in answers for path, _ in answer)


def test_known_paths_alone_are_answered_if_unseen_ones_are_not_wanted(evidence, model, rows, trees):
    test, known = rows[rows["subset"] == "test"], set(model.tree)
    both = [Reranker(trees, 30, unseen).rank(evidence, test) for unseen in (False, True)]
    assert [all(path in known for answer in answers for path, share in answer if share > 0) for answers in both] == [
        True,
        False,
    ]


# The arm


@pytest.fixture(scope="module")
def trees(model, training, rows):
    return collect(model, training, rows[rows["subset"] == "test"], FEW, 1).boost(20, 15, 1)


@pytest.fixture
def context(model, rows, trees, tmp_path):
    """The context of an arm whose reranker and linear model are saved."""
    folders = [tmp_path / name for name in ("linear", "rerank")]
    for folder in folders:
        folder.mkdir()
    fits.save(model, folders[0], whole=fits.refit(model, rows, 1))
    Reranker(trees, 30, True).save(folders[1])
    settings = RerankSettings(
        candidates=30,
        unseen_paths=True,
        read_brand="auto",
        trees=20,
        folds=2,
        fold_up_to=10_000,
        held_out_rows=100,
    )
    context = make_context("rerank", settings, rows[rows["subset"] == "train"], model=folders[1], linear=folders[0])
    context.rows = rows
    return context


def test_the_arm_answers_all_rows_in_order_with_shares(context, rows):
    asked = rows[rows["subset"] != "train"].sample(80, random_state=1)
    ARMS["rerank"].check(context)
    answers = list(ARMS["rerank"].answer(context, asked))
    assert [(answer.split, answer.id) for answer in answers] == list(zip(asked["split"], asked["id"], strict=True))
    best = [LabelPath(*answer.candidates[0][0]) for answer in answers]
    assert np.mean([path == true for path, true in zip(best, CONTEST.paths(asked), strict=True)]) > 0.6
    for answer, path in zip(answers, best, strict=True):
        shares = [share for _, share in answer.candidates]
        assert json.loads(answer.text) == CONTEST.of(path)
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.0001


def test_without_trees_the_arm_answers_as_linear_does(context, rows):
    Reranker(None, 30, True).save(context.model)
    asked = rows[rows["subset"] == "test"].head(40)
    of_linear = make_context("linear", None, rows, model=context.linear)
    ARMS["rerank"].check(context)
    assert list(ARMS["rerank"].answer(context, asked)) == list(ARMS["linear"].answer(of_linear, asked))


def test_the_arm_trains_a_reranker_that_is_no_worse_out_of_fold(context, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    found = ARMS["rerank"].train(context, None, folder)
    kept = [trial for trial in found["trials"] if trial["kept"]]
    linear = found["trials"][0]
    assert linear["tried"] == "no trees" and kept[0]["right"] >= linear["right"]
    assert found["reranks"] == (kept[0] != linear) == (folder / "trees.txt").is_file()
    written = read_table(folder / "out_of_fold.parquet")
    first = written[written["rank"] == 0]
    true = first[["split", "id"]].merge(context.rows, on=["split", "id"])
    right = sum(answer == path for answer, path in zip(CONTEST.paths(first), CONTEST.paths(true), strict=True))
    assert (right, len(first), found["out_of_fold"]) == (kept[-1]["right"], kept[-1]["rows"], kept[-1]["rows"])
    assert written["rank"].max() == 9 and written["score"].between(0, 1).all()


def test_the_arm_needs_the_linear_model(context, tmp_path):
    (context.linear / "off.json").write_text("{}")
    with pytest.raises(InputError, match=r"run\.linear: true"):
        ARMS["rerank"].train(context, None, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reranker.json", "[]"),
        ("reranker.json", '{"format": 4}'),
        ("reranker.json", '{"format": 4, "candidates": 1e9, "sharpness": 1}'),
        ("trees.txt", "tree\n"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_an_error(context, name, content):
    (context.model / name).write_text(content)
    with pytest.raises(ModelError, match=r"dvc repro|train it again"):
        ARMS["rerank"].check(context)


def test_trees_of_other_levels_are_an_error(context, booster, rows):
    (context.model / "trees.txt").write_text(booster[0].model_to_string())
    with pytest.raises(ModelError, match="other levels"):
        list(ARMS["rerank"].answer(context, rows[rows["subset"] == "test"]))


def test_the_same_inputs_give_the_same_model(model, training, rows, reranker):
    again = train(model, training, rows[rows["subset"] == "test"], FEW, 1)
    assert (again.trees.text, again.trials) == (reranker.trees.text, reranker.trials)
