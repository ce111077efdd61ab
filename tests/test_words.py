"""What each word adds to the score of a linear model's answer: it sums to the score, for the right words."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tillmap.core.taxonomy import LabelPath, LabelTree, Levels
from tillmap.linear import BIAS
from tillmap.linear.model import LinearModel, Recipe
from tillmap.linear.words import word_scores

LEVELS = Levels(("group", "kind", "brand"), brand="brand")
KINDS = {"green tea": ("drinks", "tea"), "dark rum": ("drinks", "rum"), "rye loaf": ("food", "bread")}
BLOCKS = ("grams", "skeletons", "words", "price", "retailer", "sizes")


def make_rows(count=120):
    rng = np.random.default_rng(5)
    kinds, brands = list(KINDS), ("alder", "elm", "")
    rows, paths = [], []
    for number in range(count):
        kind, brand = kinds[number % 3], brands[number // 3 % 3]
        text = f"{brand} {kind} {rng.choice(['big', 'new', 'Fine!'])} {kind} {number % 5 + 1}00g"
        rows.append((number, text, ("hill", "")[number % 2], (1.5, np.nan)[number % 7 == 0]))
        paths.append(LabelPath(*KINDS[kind], brand))
    table = pd.DataFrame(rows, columns=["id", "description", "retailer", "price"])
    return pd.concat([table, LEVELS.columns(paths)], axis=1)


@pytest.fixture(scope="module", params=[False, True], ids=["no siblings", "siblings"])
def model(request):
    rows = make_rows()
    recipe = Recipe(blocks=BLOCKS, siblings=request.param, head_weights=(0.3, 0.5, 1.0, 0.7)[: 3 + request.param])
    return LinearModel.fit(rows, LabelTree.from_rows(rows, LEVELS), recipe, seed=1)


NEW = pd.DataFrame(
    [
        ("ALDER green tea green TEA 500g", "hill", 1.5),
        ("elm crème rye-loaf 100g", "", np.nan),
        ("drk rum 50% \U0001f37a rum", "vale", -2.0),
        ("!!", "", np.nan),
        ("zzz qqq", "", 3.0),
    ],
    columns=["description", "retailer", "price"],
)


def test_the_words_and_the_bias_sum_to_the_score_of_every_candidate(model):
    found = model.rank(NEW, 4)
    for place in range(4):
        paths = [model.tree.paths[at] for at in found.paths[:, place]]
        sums = [sum(parts.values()) for parts in word_scores(model, NEW, paths)]
        assert sums == pytest.approx(found.scores[:, place].tolist(), abs=1e-5)


def test_an_unseen_path_sums_to_its_score_too():
    rows = make_rows()
    rows = rows[(rows["kind"] != "rum") | (rows["brand"] != "elm")]
    recipe = Recipe(head_weights=(0.3, 0.5, 1.0, 0.0), unseen_penalty=0.01)
    model = LinearModel.fit(rows, LabelTree.from_rows(rows, LEVELS), recipe, seed=1)
    items = NEW.head(1).assign(description="elm dark rum")
    path = LabelPath("drinks", "rum", "elm")
    assert LEVELS.paths(model.predict(items)) == [path] and path not in model.tree
    [parts] = word_scores(model, items, [path])
    assert sum(parts.values()) == pytest.approx(float(model.rank(items).free_score[0]) - 0.01, abs=1e-5)


def test_the_words_that_speak_for_an_answer_are_those_that_name_it(model):
    paths = LEVELS.paths(model.predict(NEW))
    first, second, third, blank, _ = word_scores(model, NEW, paths)
    assert paths[:2] == [LabelPath("drinks", "tea", "alder"), LabelPath("food", "bread", "elm")]
    assert list(first) == ["(price)", "(retailer)", "(amounts)", "alder", "green", "tea", "500g", BIAS]
    assert max(first, key=first.get) in {"alder", "green", "tea"}
    assert {"elm", "rye", "loaf", "creme"} <= set(second) and second["elm"] > second["creme"]
    assert third["rum"] > third["50%"]
    assert set(blank) == {"(price)", "(retailer)", "(amounts)", BIAS}


def test_a_saved_model_says_the_same(model, tmp_path):
    model.save(tmp_path)
    paths = LEVELS.paths(model.predict(NEW))
    again = word_scores(LinearModel.load(tmp_path), NEW, paths)
    assert again == [pytest.approx(parts, abs=1e-6) for parts in word_scores(model, NEW, paths)]
    assert word_scores(replace(model), NEW.head(0), []) == []
