"""The free arms from stratify to evaluate and to new rows, for taxonomies of other shapes than the contest's."""

from contextlib import chdir

import numpy as np
import pandas as pd
import pytest
from trained import answer_freely, evaluate_freely, set_params
from typer.testing import CliRunner

from stages import stratify
from tillmap import cli
from tillmap.arms import schema
from tillmap.config import paths
from tillmap.config.params import read_params
from tillmap.core.files import read_json, read_table, write_json, write_table
from tillmap.core.taxonomy import LabelPath, LabelTree, Levels
from tillmap.serving.labeller import open_arm

GOODS = {
    "rye loaf": ("food", "bread", "rye"),
    "wheat loaf": ("food", "bread", ""),
    "green tea": ("food", "drinks", "tea"),
    "tonic": ("food", "drinks", ""),
    "gift": ("food", "", ""),
    "bin liner": ("home", "bags", "bin bags"),
}
WORDS = ("fresh", "large", "fine", "best", "mini", "dark", "light", "crisp", "old", "new", "red", "blue")


def ragged(labels, _):
    return labels


def deepest(labels, _):
    return (" ".join(filter(None, labels)),)


def branded(labels, number):
    return (*labels, ("alder", "elm", "")[number % 3])


def deep(labels, _):
    return (*labels, *(f"{labels[2]} {depth}" if labels[2] else "" for depth in range(5)))


SHAPES = {
    "ragged": (Levels(("division", "group", "class")), ragged),
    "one level": (Levels(("name",)), deepest),
    "brand": (Levels(("division", "group", "class", "maker"), "maker"), branded),
    "eight levels": (Levels(tuple(f"level {depth}" for depth in range(1, 9))), deep),
}
SPELT = LabelPath("food", "bread", "spelt")


def raw_rows(levels, shape, rows=480):
    rng = np.random.default_rng(11)
    names = list(GOODS)
    lines = []
    for number in range(rows):
        name = names[number % len(names)]
        path = shape(GOODS[name], number // len(names))
        maker = path[-1] if levels.brand else ""
        line = f"{rng.choice(WORDS)} {name} {rng.choice(WORDS)} {maker} {number % 9 + 1}00 g"
        lines.append((line, ("hill", "vale", "")[number % 3], -1.0 if number % 20 == 0 else 1.0, path))
    table = pd.DataFrame(lines, columns=["description", "retailer", "price", "path"])
    rest = pd.DataFrame({"split": "train", "id": range(rows)})
    return pd.concat([rest, table.drop(columns="path"), levels.columns(table["path"])], axis=1)


@pytest.fixture(scope="module", params=SHAPES)
def made(request, tmp_path_factory):
    """A folder with the files of all stages, from one file of labelled rows of one shape of taxonomy."""
    levels, shape = SHAPES[request.param]
    folder = tmp_path_factory.mktemp("shape")
    off = {"rag": False, "llama": False, "pilot_rows": None}
    split = {"calibration_rows": 80}
    set_params(
        folder,
        {
            "run": off,
            "linear": {"epochs": 2, "price": False, "retailer": False},
            "split": split,
            "evaluate": {"resamples": 100},
        },
    )
    with chdir(folder):
        params = read_params(paths.PARAMS, schema())
        write_table(raw_rows(levels, shape), paths.RAW / "rows.parquet")
        write_json({"levels": list(levels), "brand": levels.brand}, paths.RAW / "levels.json")
        if request.param == "ragged":
            known = sorted({LabelPath(*path) for path in GOODS.values()} | {SPELT})
            codes = tuple(f"{place:02}" for place in range(len(known)))
            notes = tuple("bread of spelt flour" if path == SPELT else "" for path in known)
            declared = LabelTree(levels, tuple(known), (0,) * len(known), codes, notes)
            write_table(declared.to_table(), paths.RAW / "declared.parquet")
        stratify.main(params)
        answer_freely(params)
        evaluate_freely(params)
    return folder, levels


def test_every_arm_answers_with_paths_of_the_tree_and_is_nearly_always_right(made):
    folder, levels = made
    with chdir(folder):
        tree = LabelTree.from_table(read_table(paths.TREE))
        rows = read_table(paths.ROWS)
        metrics = read_json(paths.METRICS / "scores.json")["scores"]["arms"]
        for arm in ("nearest", "linear", "rerank", "vote"):
            answers = read_table(paths.PREDICTIONS / f"{arm}.parquet")
            assert set(answers.columns) >= set(levels) and set(levels.paths(answers)) <= set(tree.paths)
            assert answers["in_tree"].all() and answers["confidence"].between(0, 1).all()
            both = answers[answers["split"] == "test"].merge(rows, on=["split", "id"], suffixes=("", "_true"))
            true = both[[f"{level}_true" for level in levels]].set_axis(list(levels), axis=1)
            right = np.mean([a == b for a, b in zip(levels.paths(both), levels.paths(true), strict=True)])
            assert metrics[arm]["item_accuracy"] == pytest.approx(right, abs=1e-6) and right > 0.85


def test_what_is_written_for_people_has_the_levels(made):
    folder, levels = made
    table = (folder / "plots/table.txt").read_text()
    review = pd.read_csv(folder / "data/review/linear_needs_review.csv")
    assert all(level.split()[0] in table for level in levels)
    assert set(review.columns) >= {*levels, *(f"guess_{level}" for level in levels)}


@pytest.mark.parametrize("arm", ["nearest", "linear", "rerank"])
def test_new_rows_are_labelled_as_the_test_rows_were(made, arm):
    folder, levels = made
    with chdir(folder):
        rows = read_table(paths.ROWS).query("subset == 'test'").reset_index(drop=True)
        labeller = open_arm(arm, read_params(paths.PARAMS, schema()), "all")
        answers = labeller.label(rows[["description", "retailer", "price"]].assign(key=rows["id"]))
        stored = read_table(paths.PREDICTIONS / f"{arm}.parquet").query("split == 'test'")
        assert levels.paths(answers) == levels.paths(stored)
        assert answers["confidence"].to_numpy() == pytest.approx(stored["confidence"].to_numpy(), abs=1e-5)
        tree = labeller.tree
        assert ("code" in answers) == bool(tree.codes) == (SPELT in tree)
        if tree.codes:
            assert answers["code"].tolist() == [tree.code_of(path) for path in levels.paths(answers)]
            assert answers["code"].ne("").all()


def test_predict_writes_the_levels_and_the_users_codes(made, tmp_path):
    folder, levels = made
    (tmp_path / "new.csv").write_text("ref;text;amount\nA1;best rye loaf fine;-1,20\nA2;new tonic red;3,00\n")
    names = ["--id", "ref", "--text", "text", "--price", "amount"]
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILLMAP_STATE", str(tmp_path / "state"))
        words = ["predict", str(tmp_path / "new.csv"), "--arm", "linear", "--out", str(tmp_path / "out.csv"), *names]
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 0, done.output
        tree = LabelTree.from_table(read_table(paths.TREE))
    written = pd.read_csv(tmp_path / "out.csv", dtype="str")
    assert written.columns[: len(levels) + 1].tolist() == ["ref", *levels] and written["ref"].tolist() == ["A1", "A2"]
    found = levels.paths(written)
    assert all(path in tree for path in found)
    assert ("code" in written) == bool(tree.codes)
    if tree.codes:
        assert written["code"].tolist() == [tree.code_of(path) for path in found]


@pytest.mark.parametrize("arm", ["nearest", "linear"])
def test_an_explanation_has_the_best_paths_the_nearest_rows_and_the_words(made, arm):
    folder, levels = made
    asked = pd.DataFrame({"key": [1, 2], "description": ["best rye loaf fine", "gift"], "retailer": "", "price": 1.0})
    with chdir(folder):
        labeller = open_arm(arm, read_params(paths.PARAMS, schema()), "own")
        plain, explained = labeller.label(asked), labeller.label(asked, explain=3)
        rows = read_table(paths.ROWS).query("subset == 'train'").set_index("id")
    pd.testing.assert_frame_equal(explained[plain.columns], plain)
    for answer, row in zip(levels.paths(plain), explained.to_dict("records"), strict=True):
        assert [label or "" for label in row["candidates"][0]["path"]] == list(answer)
        shares = [each["share"] for each in row["candidates"]]
        assert 1 <= len(shares) <= 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 1.001
        similar = [each["similarity"] for each in row["neighbours"]]
        assert len(similar) == 3 and similar == sorted(similar, reverse=True)
        for each in row["neighbours"]:
            known = rows.loc[int(each["id"])]
            assert each["text"] == known["description"]
            assert [label or "" for label in each["path"]] == list(levels.path(known[list(levels)]))
    words = [each["word"] for each in explained["words"][0]]
    assert (set(words) & {"rye", "loaf"} and len(words) <= 3) if arm == "linear" else words == []
