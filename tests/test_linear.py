"""The linear model and its fits, on the demo catalogue and on small tables."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config
from scipy.sparse import csr_matrix

from arm_context import make_context
from tillmap.arms import ARMS, schema
from tillmap.arms.linear import Linear
from tillmap.catalogue.demo import make_demo
from tillmap.config.params import check_params
from tillmap.core.completions import Completion
from tillmap.core.errors import InputError, ModelError, ParamsError
from tillmap.core.taxonomy import CONTEST, LabelPath, LabelTree, Levels, right_labels
from tillmap.linear import fits
from tillmap.linear.features import Featuriser
from tillmap.linear.heads import SparseHeads
from tillmap.linear.model import LinearModel, Recipe
from tillmap.linear.training import SILENT, Heads, train_heads
from tillmap.llm.interface.answer_formats import make_answer_format
from tillmap.splitting.subsets import assign_subsets, product_key

LABELS = list(CONTEST)
PARAMS = Path(__file__).parents[1] / "params.yaml"
QUICK = fits.Options(epochs=2)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    demo = make_demo(1200, 200)
    tables = [table.assign(split=split) for split, table in (("train", demo.train), ("test", demo.test))]
    rows = pd.concat(tables, ignore_index=True).rename(columns={"indoml_id": "id"})
    rows["product"] = rows["description"].map(product_key)
    rows["subset"] = assign_subsets(rows, "product", dev=0.1, calibration=0.05, holdout=0.05, seed=1)
    return rows


@pytest.fixture(scope="module")
def tree(rows: pd.DataFrame) -> LabelTree:
    return LabelTree.from_rows(rows[rows["subset"] == "train"], CONTEST)


@pytest.fixture(scope="module")
def model(rows: pd.DataFrame, tree: LabelTree) -> LinearModel:
    return fits.train(rows, tree, QUICK, 1)


def accuracy(answers: pd.DataFrame, rows: pd.DataFrame, levels: Levels = CONTEST) -> float:
    return float(right_labels(answers, rows, levels).all(axis=1).mean())


def files(model: LinearModel, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    model.save(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def answer(folder: Path, asked: pd.DataFrame) -> list[Completion]:
    """What the arm says with the fits saved in a folder."""
    return list(ARMS["linear"].answer(make_context("linear", None, asked, model=folder), asked))


def test_it_answers_most_rows_with_known_paths(model: LinearModel, rows: pd.DataFrame, tree: LabelTree) -> None:
    test = rows[rows["subset"] == "test"]
    answers = model.predict(test)
    assert answers.index.equals(test.index)
    assert accuracy(answers, test) > 0.75
    assert answers["in_tree"].all()
    assert {LabelPath(*path) for path in answers[LABELS].itertuples(index=False)} <= set(tree)


def test_the_same_inputs_give_the_same_bytes(
    model: LinearModel, rows: pd.DataFrame, tree: LabelTree, tmp_path: Path
) -> None:
    assert files(fits.train(rows, tree, QUICK, 1), tmp_path / "again") == files(model, tmp_path / "first")


def test_a_saved_model_answers_the_same(model: LinearModel, rows: pd.DataFrame, tmp_path: Path) -> None:
    files(model, tmp_path / "model")
    loaded = LinearModel.load(tmp_path / "model")
    assert (loaded.recipe, loaded.trials) == (model.recipe, model.trials)
    asked = rows[rows["subset"] == "test"].head(50)
    pd.testing.assert_frame_equal(loaded.predict(asked), model.predict(asked))


def test_missing_and_foreign_files_are_told(model: LinearModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe\.json: file not found"):
        LinearModel.load(tmp_path)
    files(model, tmp_path / "model")
    (tmp_path / "model" / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="not a linear model"):
        LinearModel.load(tmp_path / "model")
    (tmp_path / "model" / "recipe.json").write_text('{"format": 0}')
    with pytest.raises(ModelError, match="of this version"):
        LinearModel.load(tmp_path / "model")


def test_ranking_is_the_weighted_sum_over_levels(model: LinearModel, rows: pd.DataFrame, tree: LabelTree) -> None:
    """Worked out anew with dense matrices."""
    asked = rows[rows["subset"] == "test"].head(40)
    features = model.featuriser.transform(asked)
    heads = model.heads
    weights = csr_matrix((heads.values, heads.columns, heads.starts), (features.shape[1], len(heads.biases)))
    scores = (features @ weights).toarray() + heads.biases
    total, start = np.zeros((len(asked), len(tree))), 0
    for level, weight in zip(CONTEST, model.recipe.head_weights, strict=False):
        labels = tree.labels(level)
        mine = scores[:, start : start + len(labels)]
        total += weight * mine[:, [labels.index(CONTEST.of(path)[level]) for path in tree]]
        start += len(labels)
    ranking = model.rank(asked, k=5)
    expected = np.argsort(-total, axis=1, kind="stable")[:, :5]
    np.testing.assert_allclose(ranking.scores, np.take_along_axis(total, expected, 1), atol=1e-5)
    assert (ranking.paths == expected).mean() > 0.98  # but for sums that differ in their last digit
    np.testing.assert_allclose(ranking.best[:, 3], mine.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(ranking.second[:, 3], np.sort(mine, axis=1)[:, -2], atol=1e-5)


def test_candidates_are_ranked_shares_and_completions_carry_them(
    model: LinearModel, rows: pd.DataFrame, tmp_path: Path
) -> None:
    asked = rows[rows["subset"] == "holdout"]
    answers = model.predict(asked)
    fits.save(model, tmp_path)
    written = answer(tmp_path, asked)
    assert [(one.split, one.id) for one in written] == list(zip(asked["split"], asked["id"], strict=True))
    for one, (_, said) in zip(written, answers.iterrows(), strict=True):
        assert one.candidates is not None and one.logprob is not None
        shares = [share for _, share in one.candidates]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-4)
        assert one.candidates[0][0] == said[LABELS].tolist()
        assert one.logprob <= 0
        assert one.logprob == round(said["evidence"], 6)
        assert make_answer_format("json", model.tree).decode(one.text) == LabelPath(*said[LABELS])


def test_unseen_paths_pair_known_chains_with_known_brands(model: LinearModel, rows: pd.DataFrame) -> None:
    tree = model.tree
    asked = rows[rows["subset"] == "test"]
    free = model.with_recipe(unseen_penalty=0.0).predict(asked)
    outside = free[~free["in_tree"]]
    assert 0 < len(outside) < len(free)
    for path in CONTEST.paths(outside):
        assert path not in tree and path[:3] in tree.chains and path[3] in tree.labels("brand")
    strict = model.predict(asked)
    pd.testing.assert_frame_equal(free.loc[free["in_tree"], LABELS], strict.loc[free["in_tree"], LABELS])
    assert (outside["margin"] >= 0).all()
    assert model.with_recipe(unseen_penalty=99.0).predict(asked)["in_tree"].all()


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(max_size=30), st.floats(0, 1e6) | st.just(float("nan"))), min_size=1, max_size=4))
def test_any_text_gets_an_answer(model: LinearModel, items: list[tuple[str, float]]) -> None:
    asked = pd.DataFrame(items, columns=["description", "price"]).assign(retailer="nowhere")
    answers = model.with_recipe(unseen_penalty=0.1).predict(asked)
    numbers = answers.select_dtypes("number").to_numpy()
    assert len(answers) == len(items) and np.isfinite(numbers).all()
    assert answers["share"].between(0, 1).all()


def test_the_recipe_is_chosen_on_dev_rows_and_reported(model: LinearModel) -> None:
    assert model.trials[0]["tried"] == "start"
    few_rows_a_path = len(model.tree) * 8 > sum(model.tree.rows)
    assert few_rows_a_path and "with siblings" not in {trial["tried"] for trial in model.trials}
    *_, start, halved, doubled = model.trials
    assert [trial["tried"].split()[0] for trial in (start, halved, doubled)] == ["head"] * 3
    assert sum(trial["kept"] for trial in (start, halved, doubled)) == 1
    kept = [trial["right"] for trial in model.trials if trial["kept"]]
    assert kept == sorted(kept) and kept[-1] == max(trial["right"] for trial in (start, halved, doubled))


def test_a_telling_price_or_retailer_is_kept_and_a_silent_one_is_not() -> None:
    rng = np.random.default_rng(0)
    size = 600
    brand, word = rng.integers(0, 4, size), rng.integers(0, 3, size)
    rows = pd.DataFrame(
        {
            "split": "train",
            "id": range(size),
            "subset": np.where(np.arange(size) % 4 == 0, "dev", "train"),
            "description": [["green tea", "brown rice", "white soap"][w] for w in word],
            "retailer": [f"shop {b % 2}" for b in brand],
            "price": [(1.0, 1.0, 64.0, 64.0)[b] for b in brand],
            "supergroup": "all",
            "group": "all",
            "module": [f"m{w}" for w in word],
            "brand": [f"b{b}" for b in brand],
        }
    )
    tree = LabelTree.from_rows(rows, CONTEST)
    model = fits.train(rows, tree, fits.Options(), 0)
    assert {"price", "retailer"} <= set(model.recipe.blocks)
    assert accuracy(model.predict(rows), rows) == 1
    told = fits.train(rows, tree, fits.Options(price=False, retailer=True), 0)
    assert "price" not in told.recipe.blocks and "retailer" in told.recipe.blocks
    tried = {trial["tried"] for trial in told.trials}
    assert not {"without price", "with retailer"} & tried and "with siblings" in tried
    same = rows.assign(retailer="shop", price=float("nan"))
    blind = fits.train(same, LabelTree.from_rows(same, CONTEST), fits.Options(), 0)
    assert "retailer" not in blind.recipe.blocks
    grouped = rows.assign(group=rows["module"])
    groups = fits.train(grouped, LabelTree.from_rows(grouped, CONTEST), fits.Options(trial_rows=200), 0)
    assert len(groups.tree) == len(tree) and groups.trials[0]["rows"] < groups.trials[-1]["rows"]


def test_few_dev_rows_choose_nothing(rows: pd.DataFrame, tree: LabelTree) -> None:
    few = rows[(rows["subset"] == "train") | (rows.index < 30)]
    model = fits.train(few, tree, QUICK, 1)
    assert model.trials == () and model.recipe == Recipe(epochs=2, head_weights=(0.2, 0.2, 0.4, 1.0, 0.0))


def test_refitting_knows_the_held_out_paths(model: LinearModel, rows: pd.DataFrame) -> None:
    full = fits.refit(model, rows, 1)
    assert full.recipe == model.recipe and set(model.tree) < set(full.tree)
    held_out = rows[rows["subset"] == "dev"]
    assert accuracy(full.predict(held_out), held_out) > accuracy(model.predict(held_out), held_out)


def test_every_row_is_answered_by_the_model_of_the_most_rows_besides(
    model: LinearModel, rows: pd.DataFrame, tmp_path: Path
) -> None:
    others, whole = fits.refit_for_calibration(model, rows, 1), fits.refit(model, rows, 1)
    strange = rows.assign(**{level: rows[level].where(rows["subset"] != "calibration", "x") for level in LABELS})
    blind = fits.refit_for_calibration(model, strange, 1)
    np.testing.assert_array_equal(others.heads.values, blind.heads.values, "it has seen a calibration row")
    assert others.tree == model.tree
    fits.save(model, tmp_path, others=others, whole=whole)
    asked = rows[rows["subset"] != "train"]
    answers = answer(tmp_path, asked)
    assert [(one.split, one.id) for one in answers] == list(zip(asked["split"], asked["id"], strict=True))
    for subset, by in (("holdout", model), ("calibration", others), ("test", whole)):
        chosen = (asked["subset"] == subset).to_numpy()
        loaded = fits.load(tmp_path, fits.fit_for(subset)).predict(asked[chosen])
        pd.testing.assert_frame_equal(loaded, by.predict(asked[chosen]))
        evidence = [one.logprob for one, wanted in zip(answers, chosen, strict=True) if wanted]
        assert evidence == loaded["evidence"].round(6).tolist()
    (tmp_path / "alone").mkdir()
    fits.save(model, tmp_path / "alone")
    alone = [one.candidates for one in answer(tmp_path / "alone", asked)]
    expected = model.predict(asked)["candidates"]
    assert alone == [[[list(path), round(share, 6)] for path, share in candidates] for candidates in expected]


@pytest.mark.parametrize(("refit_up_to", "fitted"), [(0, ["train"]), (10_000, ["all", "all_but_calibration", "train"])])
def test_the_arm_trains_its_fits_and_says_what_it_knows(
    rows: pd.DataFrame, tree: LabelTree, tmp_path: Path, refit_up_to: int, fitted: list[str]
) -> None:
    arm, settings = ARMS["linear"], Linear.Settings(
        epochs=1, ngrams=[2, 3], price=True, retailer="auto", sizes=False, trial_rows=100, weights_mib=16.0,
        unseen_paths=True, refit_up_to=refit_up_to,
    )  # fmt: skip
    context = make_context("linear", settings, rows[rows["subset"] == "train"], model=tmp_path)
    context.rows, context.tree = rows, tree
    found = arm.train(context, None, tmp_path)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == fitted
    recipe = LinearModel.load(tmp_path / "train").recipe
    assert (recipe.epochs, recipe.ngrams, "price" in recipe.blocks) == (1, (2, 3), True)
    assert found["blocks"] == list(recipe.blocks) and found["rows"] == (rows["subset"] == "train").sum()
    tried = {trial["tried"] for trial in found["trials"]}
    assert not {"with price", "without price"} & tried, "price is decided"
    assert {"with retailer", "without retailer"} & tried, "retailer is not"
    assert "with sizes" not in tried
    assert arm.training_paths(context) == tree
    assert (len(arm.known_paths(context)) > len(tree)) == (refit_up_to > 0), "those of held-out rows, too"
    assert arm.answers_unseen(settings)
    arm.check(context)
    asked = rows[rows["subset"] != "train"].sample(frac=1, random_state=1)
    answers = list(arm.answer(context, asked))
    assert [(one.split, one.id) for one in answers] == list(zip(asked["split"], asked["id"], strict=True))
    with pytest.raises(InputError, match="file not found"):
        arm.check(make_context("linear", settings, rows, model=tmp_path / "nowhere"))


def test_ngram_bounds_that_are_turned_round_are_told() -> None:
    text = PARAMS.read_text().replace("ngrams: [2, 4]", "ngrams: [4, 2]")
    with pytest.raises(ParamsError, match=r"linear\.ngrams: .*shortest n-gram before the longest, but it is \[4, 2\]"):
        check_params(text, PARAMS, schema())


def test_rows_that_do_not_fit_the_tree_are_told(rows: pd.DataFrame, tree: LabelTree) -> None:
    with pytest.raises(InputError, match="a path that is not in the tree"):
        LinearModel.fit(rows[rows["split"] == "train"], tree, Recipe(), 0)
    with pytest.raises(InputError, match="no row of the training subset"):
        fits.train(rows[rows["subset"] == "test"], tree, QUICK, 0)


def test_siblings_are_rivals_within_their_group(rows: pd.DataFrame, tree: LabelTree) -> None:
    training = rows[rows["subset"] == "train"]
    model = LinearModel.fit(training, tree, Recipe(siblings=True, head_weights=(0.2, 0.2, 0.4, 1, 0.6)), 1)
    assert accuracy(model.predict(training), training) > 0.9
    alone = [place for place, path in enumerate(tree) if sum(path[:2] == other[:2] for other in tree) == 1]
    others = len(model.heads.biases) - len(tree)
    assert alone and all((model.heads.columns != others + place).sum() > 0 for place in alone)


# --- other levels ---------------------------------------------------------------------------------------------------

GOODS = [
    ("food", "bread", "white", "white toast bread"),
    ("food", "bread", "", "baguette loaf"),
    ("food", "milk", "fresh", "fresh milk"),
    ("food", "milk", "other", "milk shake drink"),
    ("home", "paper", "other", "paper napkins"),
    ("home", "paper", "kitchen", "kitchen roll paper"),
    ("refunds", "", "", "bottle deposit voucher"),
]  # of ragged depth, and with an "other" below two parents


def shelf(levels: Levels, size: int = 45) -> pd.DataFrame:
    """Rows of GOODS under up to so many levels: more than three repeat the last labels' names, longer each time."""
    rng, lines = np.random.default_rng(1), []
    for number in range(size * len(GOODS)):
        *labels, text = GOODS[number % len(GOODS)]
        while len(labels) < levels.depth:
            labels.append(f"{labels[-1]} {len(labels)}" if labels[-1] else "")
        if levels.brand:
            labels[levels.depth :] = [("", "acme", "purely")[number % 3]]
            text += f" {labels[-1]}"
        words = text.split()
        text = f"{' '.join(words[i] for i in rng.permutation(len(words)))} {'xyz'[number % 3]}"
        lines.append((text, *(label or None for label in labels[: len(levels)])))
    rows = pd.DataFrame(lines, columns=["description", *levels])
    refund = rows[levels.names[0]] == "refunds"
    subset = np.where(np.arange(len(rows)) // (3 * len(GOODS)) % 3 == 0, "dev", "train")
    return rows.assign(split="train", id=range(len(rows)), subset=subset, retailer=None, price=np.where(refund, -1, 2))


@pytest.mark.parametrize(
    "levels",
    [
        Levels(("division",)),
        Levels(("division", "kind")),
        Levels(("division", "group", "class")),
        Levels(tuple(f"level {i}" for i in range(8))),
        Levels(("division", "maker"), brand="maker"),
        Levels(("division", "group", "class", "maker"), brand="maker"),
    ],
    ids=lambda levels: f"{len(levels)} levels{', brand' * bool(levels.brand)}",
)
def test_any_levels_are_learnt_saved_and_refitted(levels: Levels, tmp_path: Path) -> None:
    rows = shelf(levels)
    tree = LabelTree.from_rows(rows[rows["subset"] == "train"], levels)
    model = fits.train(rows, tree, fits.Options(), 0)
    answers = model.predict(rows)
    assert accuracy(answers, rows, levels) == 1
    assert set(levels.paths(answers)) == set(tree) == set(levels.paths(rows))
    leads = [f"{level}_lead" for level in levels]
    assert answers[[*levels, *leads, "evidence"]].columns.size == 2 * len(levels) + 1
    assert np.isfinite(answers[[*leads, "margin", "evidence"]].to_numpy()).all()
    files(model, tmp_path / "model")
    pd.testing.assert_frame_equal(LinearModel.load(tmp_path / "model").predict(rows), answers)
    assert fits.refit(model, rows, 0).tree == LabelTree.from_rows(rows, levels)
    siblings = LinearModel.fit(rows, tree, Recipe(siblings=True, head_weights=(*(1.0,) * len(levels), 1.0)), 0)
    assert accuracy(siblings.predict(rows), rows, levels) == 1


def test_a_label_under_two_parents_is_two_classes_and_the_end_of_a_path_one() -> None:
    """Ranking worked out anew, class by class: prefixes, and from its end on a path's own end."""
    levels = Levels(("division", "group", "class"))
    rows = shelf(levels)
    tree = LabelTree.from_rows(rows, levels)
    model = LinearModel.fit(rows, tree, Recipe(epochs=1), 0)
    asked = rows.head(20)
    features, heads = model.featuriser.transform(asked), model.heads
    weights = csr_matrix((heads.values, heads.columns, heads.starts), (features.shape[1], len(heads.biases)))
    scores = (features @ weights).toarray() + heads.biases
    divisions = ["food", "home", "refunds"]
    groups = [("refunds", ""), ("food", "bread"), ("food", "milk"), ("home", "paper")]
    classes = [  # the first is shared by paths that ended before
        None, ("food", "bread", ""), ("food", "milk", "fresh"), ("home", "paper", "kitchen"),
        ("food", "milk", "other"), ("home", "paper", "other"), ("food", "bread", "white"),
    ]  # fmt: skip
    assert scores.shape[1] == len(divisions) + len(groups) + len(classes)
    total = []
    for path in tree:
        group = 3 + groups.index(path[:2])
        last = group if path[1] == "" else 7 + classes.index(tuple(path))
        total.append(0.2 * scores[:, divisions.index(path[0])] + 0.4 * scores[:, group] + scores[:, last])
    best = np.sort(np.array(total), axis=0)[::-1]
    np.testing.assert_allclose(model.rank(asked, k=len(tree)).scores.T, best, atol=1e-5)


def test_a_path_without_rows_is_answered_by_its_name_or_its_definition() -> None:
    levels = Levels(("division", "group"))
    known = [("food", "bread"), ("food", "milk"), ("home", "soap"), ("home", "01.9")]
    texts = {("home", "01.9"): "candles and tealights"}
    declared = LabelTree(
        levels,
        tuple(sorted(LabelPath(*path) for path in [*known, ("food", "oranges"), ("food", "")])),
        (0,) * 6,
        definitions=tuple(texts.get(path, "") for path in sorted([*known, ("food", "oranges"), ("food", "")])),
    )
    rows = pd.DataFrame([(*path, path[1]) for path in known[:3]] * 30, columns=["division", "group", "description"])
    rows = rows.assign(id=range(90), split="train", retailer="", price=1.0, subset=["train", "dev", "train"] * 30)
    rows["subset"] = np.where(np.arange(90) < 80, "train", "dev")
    tree = LabelTree.from_rows(rows, levels, declared)
    asked = pd.DataFrame({"description": ["oranges", "tealights", "milk"], "retailer": None, "price": 1.0})
    model = fits.train(rows, tree, fits.Options(sizes=False), 0)
    for each in (model, fits.refit(model, rows, 0)):
        assert levels.paths(each.predict(asked)) == [("food", "oranges"), ("home", "01.9"), ("food", "milk")]
        assert each.tree.definition_of(("home", "01.9")) == "candles and tealights"
    more = pd.concat([rows.assign(id=rows["id"] + 90 * i, subset="dev" if i else "train") for i in range(3)])
    told = fits.train(more, tree, fits.Options(), 0)
    assert told.trials and "without label names" not in {trial["tried"] for trial in told.trials}
    drawn = fits.train(more, tree, fits.Options(trial_rows=40), 0)
    assert levels.paths(drawn.predict(asked))[1] == ("home", "01.9")


def test_unseen_paths_need_a_brand_and_an_unknown_brand_is_one() -> None:
    levels = Levels(("division", "kind"))
    rows = shelf(levels)
    with pytest.raises(ParamsError, match="unseen_paths"):
        fits.train(rows, LabelTree.from_rows(rows, levels), fits.Options(unseen_paths=True), 0)
    branded = Levels(("division", "kind", "maker"), brand="maker")
    rows = shelf(branded)
    rows = rows[~(rows["kind"].eq("milk") & rows["maker"].isna())]
    model = LinearModel.fit(rows, LabelTree.from_rows(rows, branded), Recipe(unseen_penalty=0.0), 0)
    answer = model.predict(pd.DataFrame({"description": ["fresh milk x"], "retailer": None, "price": 2.0}))
    assert branded.paths(answer) == [("food", "milk", "")] and not answer["in_tree"].any()


def test_sizes_that_tell_goods_apart_are_used_and_others_are_not_tried() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(800) % 2
    grams = np.where(kind, rng.integers(300, 999, 800), rng.integers(10, 99, 800))
    rows = pd.DataFrame({"description": [f"coffee {number}g" for number in grams], "kind": np.array(["a", "b"])[kind]})
    rows = rows.assign(id=range(800), split="train", retailer=None, price=float("nan"))
    rows["subset"] = np.where(rng.random(800) < 0.7, "dev", "train")
    levels = Levels(("kind",))
    tree = LabelTree.from_rows(rows, levels)
    model = fits.train(rows, tree, fits.Options(), 0)
    assert "sizes" in model.recipe.blocks
    assert "sizes" not in fits.train(rows, tree, fits.Options(sizes=False), 0).recipe.blocks
    plain = rows.assign(description="coffee " + rows["kind"])
    assert "with sizes" not in {trial["tried"] for trial in fits.train(plain, tree, fits.Options(), 0).trials}


def test_a_brand_of_digits_is_learnt_from_its_name_and_a_code_is_not() -> None:
    levels = Levels(("kind", "maker"), brand="maker")
    rows = pd.DataFrame({"description": ["tea one", "tea two"] * 4, "kind": ["1", "2"] * 4, "maker": "acme"})
    rows = rows.assign(id=range(8), retailer=None, price=1.0)
    known = LabelTree(
        levels, tuple(LabelPath(*path) for path in [("1", "365"), ("1", "acme"), ("2", "acme")]), (0, 4, 4)
    )
    model = LinearModel.fit(rows, known, Recipe(unseen_penalty=None), 0)
    scores = model.rank(pd.DataFrame({"description": ["365", "1"], "retailer": None, "price": 1.0})).best
    assert scores[0, 1] > scores[1, 1] and scores[1, 0] < 0


@pytest.mark.parametrize("texts", [["green tea"], ["茶"], ["茶", "ミルク"], ["น้ำ", "ไข่", "🍎"], ["a"] * 10])
def test_a_handful_of_rows_makes_a_model(texts: list[str]) -> None:
    levels = Levels(("kind",))
    rows = pd.DataFrame({"description": texts, "retailer": None, "price": 1.0, "id": range(len(texts)), "kind": texts})
    rows = rows.assign(split="train", subset="train")
    model = fits.train(rows, LabelTree.from_rows(rows, levels), fits.Options(), 0)
    assert accuracy(model.predict(rows), rows, levels) == 1


# --- parts ----------------------------------------------------------------------------------------------------------


def plain_epoch(features: np.ndarray, columns: np.ndarray, heads: Heads, step: float) -> np.ndarray:
    """One round of the squared hinge, row by row in the drawn order, with nothing left out."""
    weights, biases = np.zeros((features.shape[1], len(heads))), np.full(len(heads), -1.0)
    for row in np.random.default_rng(0).permutation(len(features)):
        score, slope = features[row] @ weights + biases, np.zeros(len(heads))
        for column in columns[row][columns[row] >= 0]:
            rivals = np.arange(heads.first[column], heads.last[column])
            slope[rivals] = np.maximum(0, 1 + score[rivals])
            slope[column] = -max(0, 1 - score[column])
        weights -= step * np.outer(features[row], slope)
        biases -= 0.1 * step * slope
    return weights


def test_training_takes_the_steps_of_the_squared_hinge() -> None:
    rng = np.random.default_rng(3)
    features = np.where(rng.random((30, 12)) < 0.4, rng.random((30, 12)), 0).astype(np.float32)
    heads = Heads.of([2, 3])
    heads.first[2:] = [2, 2, 4]
    heads.last[2:] = [4, 4, 5]  # the last label has no rival
    columns = np.stack([rng.integers(0, 2, 30), rng.integers(2, 5, 30)], axis=1)
    columns[::5, 1] = SILENT
    weights, _ = train_heads(csr_matrix(features), columns, heads, epochs=1, rate=0.2, seed=0)
    np.testing.assert_allclose(weights, plain_epoch(features, columns, heads, 0.2), atol=0.03)


@given(st.integers(2, 12), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_the_number_of_threads_changes_nothing(threads: int, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    heads, ends = Heads.of(sizes), np.cumsum([0, *sizes])
    columns = np.stack([rng.integers(low, high, 20) for low, high in pairwise(ends)], axis=1)
    columns[::4, -1] = SILENT
    features = csr_matrix(np.where(rng.random((20, 8)) < 0.4, rng.random((20, 8)), 0).astype(np.float32))
    runs = []
    for number in (1, threads):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config, "NUMBA_NUM_THREADS", number)
            runs.append(train_heads(features, columns, heads, epochs=2, rate=0.2, seed=0))
    for one, many in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, many)


def test_pruning_keeps_the_largest_weights_in_the_size_allowed() -> None:
    weights = np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)
    heads = SparseHeads.prune(weights, np.zeros(100, np.float32), 4 * 1000 / 2**20)
    assert len(heads.values) == 1000
    dense = csr_matrix((heads.values, heads.columns, heads.starts), weights.shape).toarray()
    least = np.sort(np.abs(weights).ravel())[-1000]
    np.testing.assert_allclose(dense, np.where(np.abs(weights) >= least, weights, 0), rtol=1e-3)
    whole = SparseHeads.prune(weights, np.zeros(100, np.float32), 1)
    assert len(whole.values) == (np.abs(weights) >= 0.02).sum()


def test_a_refund_has_the_buckets_of_its_amount_and_its_sign() -> None:
    items = pd.DataFrame({"description": ["tea", "tea", "6X33CL tea"], "retailer": "", "price": [2.5, -2.5, 0.0]})
    featuriser = Featuriser.fit(items, ["grams", "price", "sizes"])
    table, features = featuriser.to_table(), featuriser.transform(items).toarray() > 0
    has = [set(table["term"][line & table["block"].isin(["price", "sizes"]).to_numpy()]) for line in features]
    assert has == [{"2:3", "4:5"}, {"2:3", "4:5", "refund"}, {"2:-13", "4:-27", "millilitres:17", "pieces:6"}]


def test_marks_and_letters_of_any_script_tell_texts_apart() -> None:
    texts = ["दाल", "दल", "ไข่", "ไข", "茶", "花茶", "شاي", "شاى", "молоко", "молока"]
    items = pd.DataFrame({"description": texts, "retailer": "", "price": float("nan")})
    features = Featuriser.fit(items, min_rows=1).transform(items).toarray()
    assert len({line.tobytes() for line in features}) == len(texts) and (features != 0).any(axis=1).all()


def test_features_say_nothing_of_what_is_not_known() -> None:
    items = pd.DataFrame(
        {"description": ["Grn TEA", "green tea 5"], "retailer": ["A b", None], "price": [2.5, float("nan")]}
    )
    featuriser = Featuriser.fit(items, ["retailer", "price", "grams", "skeletons"], min_rows=1)
    assert featuriser.blocks == ("grams", "skeletons", "price", "retailer")
    table = featuriser.to_table()
    features = featuriser.transform(items).toarray()
    lengths = {
        block: np.sqrt((features[:, (table["block"] == block).to_numpy()] ** 2).sum(axis=1)).tolist()
        for block in featuriser.blocks
    }
    expected = {"grams": [1, 1], "skeletons": [1, 1], "price": [0.5, 0], "retailer": [0.3, 0]}
    assert {block: pytest.approx(norms) for block, norms in expected.items()} == lengths
    again = Featuriser.from_table(table, (2, 4))
    np.testing.assert_array_equal(again.transform(items).toarray(), features)
    assert not again.read_labels(["xyz"]).toarray().any()
    with pytest.raises(InputError, match="no description has"):
        Featuriser.fit(items.assign(description="!?"))
    with pytest.raises(ModelError, match="expected the columns"):
        Featuriser.from_table(table.assign(block="colour"), (2, 4))
