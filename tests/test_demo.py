import hashlib
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from tillmap.catalogue.demo import DemoCatalogue, make_demo, write_contest_files
from tillmap.catalogue.demo.labelspace import build_label_space
from tillmap.catalogue.demo.receipts import print_line
from tillmap.catalogue.demo.vocabulary import CATCH_ALL_BRAND, RETAILERS
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST
from tillmap.core.text import without_vowels

LABELS = list(CONTEST)
COLUMNS = ["indoml_id", "description", "retailer", "price", *LABELS]
FILES = ["train.features", "train.labels", "test.features", "test.labels"]
CODE = "import sys; from pathlib import Path; from tillmap.catalogue.demo import make_demo, write_contest_files; "


@pytest.fixture(scope="module")
def demo() -> DemoCatalogue:
    return make_demo()


@pytest.fixture(scope="module")
def letters(demo) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(demo.train.description)


@pytest.fixture(scope="module")
def counts(demo) -> pd.Series:
    """Training rows of each path."""
    return demo.train.groupby(LABELS).size()


def paths(table):
    return list(table[LABELS].itertuples(index=False, name=None))


def is_unseen(demo):
    known = set(paths(demo.train))
    return np.array([path not in known for path in paths(demo.test)])


def own_brands():
    return {brand: retailer.name for retailer in RETAILERS for brand in retailer.own_brands}


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digest(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


# Size and shape


def test_default_size_ids_and_columns(demo):
    assert (len(demo.train), len(demo.test)) == (4000, 800)
    for table in (demo.train, demo.test):
        assert list(table.columns) == COLUMNS
        assert table.indoml_id.tolist() == list(range(len(table)))
        assert table.price.dtype == np.float64
        assert table.drop(columns="price").notna().all(axis=None)


@settings(max_examples=25, deadline=None)
@given(st.integers(100, 700), st.integers(20, 200), st.integers(0, 2**32))
def test_any_size_has_exactly_its_rows_and_its_unseen_paths(train_rows, test_rows, seed):
    small = make_demo(train_rows, test_rows, seed)
    assert (len(small.train), len(small.test)) == (train_rows, test_rows)
    assert is_unseen(small).sum() == max(1, round(0.03 * test_rows))
    assert set(small.test.module) <= set(small.train.module)


def test_a_large_one_keeps_its_shape():
    large = make_demo(20_000, 2_000)
    rows = large.train.groupby(LABELS).size().sort_values()
    assert set(rows[-2:]) == {1400}
    assert rows.iloc[-3] < 1400
    assert 0.25 < (rows < 5).mean() < 0.35


@pytest.mark.parametrize(("train_rows", "test_rows", "name"), [(99, 20, "train_rows"), (100, 19, "test_rows")])
def test_too_few_rows_are_refused(train_rows, test_rows, name):
    with pytest.raises(ParamsError, match=rf"{name} is \d+; .* at least"):
        make_demo(train_rows, test_rows)


def test_it_says_that_it_is_simulated():
    assert "simulated" in make_demo.__doc__


# The label space


def test_label_space_is_wide_enough(demo):
    assert demo.train.supergroup.nunique() >= 8
    assert demo.train.module.nunique() >= 60
    assert demo.train.brand.nunique() >= 300


def test_tree_is_strict_down_to_the_module(demo):
    both = pd.concat([demo.train, demo.test])
    assert (both.groupby("module").group.nunique() == 1).all()
    assert (both.groupby("group").supergroup.nunique() == 1).all()


def test_some_modules_are_called_like_their_group_and_most_are_not(demo):
    modules = demo.train.drop_duplicates("module")
    assert 0.1 < (modules.module == modules.group).mean() < 0.5


def test_seven_brands_of_ten_are_sold_in_one_module(demo):
    modules = demo.train.groupby("brand").module.nunique()
    assert 0.65 <= (modules == 1).mean() <= 0.75
    makers = modules.drop([CATCH_ALL_BRAND, *own_brands()], errors="ignore")
    assert makers.max() <= 3


def test_no_path_is_listed_twice():
    space = build_label_space()
    assert len({listing.path for listing in space.listings}) == len(space.listings)
    assert not {listing.path.brand for listing in space.listings} & set(space.new_brands)


def test_own_brands_are_sold_by_their_shop_alone_and_mostly_carry_its_name(demo):
    both = pd.concat([demo.train, demo.test])
    assert both.retailer.nunique() == 12
    owners = own_brands()
    own = both[both.brand.isin(owners)]
    assert own.brand.nunique() == len(owners) == 24
    assert (own.retailer == own.brand.map(owners)).all()
    named = [retailer.split()[0] == brand.split()[0] for brand, retailer in owners.items()]
    assert 0.7 < np.mean(named) < 1
    others = both[~both.brand.isin(owners)].groupby("brand").retailer.nunique()
    assert others.median() >= 3


# How the rows are spread


def test_two_catch_alls_lead_with_seven_percent_each(counts):
    top = counts.sort_values(ascending=False)
    assert top.iloc[:2].tolist() == [280, 280]
    assert set(top.index[:2].get_level_values("brand")) == {CATCH_ALL_BRAND}
    assert all(group.endswith("detail unknown total") for group in top.index[:2].get_level_values("group"))
    assert top.iloc[2] < 140


def test_catch_all_lines_are_vague(demo):
    vague = demo.train[demo.train.brand == CATCH_ALL_BRAND].description
    rest = demo.train[demo.train.brand != CATCH_ALL_BRAND].description
    assert vague.nunique() / len(vague) < 0.6 < rest.nunique() / len(rest)
    assert vague.isin(["misc grocery", "sundry item", "dept 04"]).any()
    assert demo.test.brand.eq(CATCH_ALL_BRAND).mean() > 0.08


def test_paths_have_a_long_tail(counts):
    assert 0.25 < (counts < 5).mean() < 0.35
    assert (counts == 1).mean() > 0.08
    named = counts.drop(CATCH_ALL_BRAND, level="brand").sort_values(ascending=False)
    tenth = len(named) // 10
    assert named.iloc[:tenth].sum() > 6 * named.iloc[-3 * tenth :].sum() / 3


def test_unseen_paths_are_new_brands_and_brands_in_another_module(demo):
    unseen = demo.test[is_unseen(demo)]
    assert len(unseen) == 24
    assert set(unseen.module) <= set(demo.train.module)
    known = unseen.brand.isin(set(demo.train.brand))
    assert known.sum() == 12
    assert (~known).sum() == 12


def test_test_rows_are_mostly_of_other_products(demo, letters):
    named = (demo.train.brand != CATCH_ALL_BRAND).to_numpy()
    asked = (demo.test.brand != CATCH_ALL_BRAND).to_numpy()
    known = letters.transform(demo.train.description[named])
    among_training = (known @ known.T).toarray()
    np.fill_diagonal(among_training, 0)
    to_training = (letters.transform(demo.test.description[asked]) @ known.T).toarray()
    twins = (among_training.max(axis=1) > 0.99).mean()
    assert twins > 0.08
    assert (to_training.max(axis=1) > 0.99).mean() < 0.75 * twins
    assert np.median(to_training.max(axis=1)) < np.median(among_training.max(axis=1)) - 0.02


def test_prices_are_typical_of_their_path(demo):
    rows = demo.train[demo.train.price.notna() & (demo.train.brand != CATCH_ALL_BRAND)]
    logs = np.log(rows.price)
    within = logs.groupby(rows[LABELS].agg("|".join, axis=1)).transform("mean")
    assert (logs - within).var() < 0.25 * logs.var()
    assert rows.price.min() > 0
    assert (rows.price == rows.price.round(2)).all()
    assert 0.003 < pd.concat([demo.train, demo.test]).price.isna().mean() < 0.02


# The receipts


def test_descriptions_have_the_length_of_receipt_lines(demo):
    lengths = pd.concat([demo.train, demo.test]).description.str.len()
    assert lengths.min() >= 4
    assert 40 < lengths.max() <= 68
    assert 16 <= lengths.median() <= 20


def test_descriptions_are_noisy_but_not_beyond_reading(demo):
    rows = demo.train[demo.train.brand.str.fullmatch("[a-z]{7,}")]
    first = [re.findall(r"[a-z]+", line) for line in rows.description]
    words = list(zip(rows.brand, first, strict=True))
    assert 0.35 < np.mean([brand in line for brand, line in words]) < 0.75
    assert 0.05 < np.mean([without_vowels(brand) in line for brand, line in words]) < 0.3
    assert np.mean([any(word in (brand[:3], brand[:4], brand[:5]) for word in line) for brand, line in words]) > 0.1
    assert demo.train.description.str.fullmatch(r"[a-z]{1,3}( [a-z]{1,3})*( [\d.a-z ]+)?").mean() > 0.03
    assert demo.train.description.str.fullmatch(r"[a-z0-9. &]+").all()


@given(
    st.lists(st.sampled_from(["milk", "white", "chocolate", "gin", "4", "&", "croissants"]), min_size=2, max_size=6),
    st.sampled_from(["", "ulvoak", "captain pelk & sons"]),
    st.sampled_from(["", "5 pk", "10 x 330 ml"]),
    st.integers(16, 68),
    st.integers(0, 2**32),
)
def test_a_line_fits_the_till(goods, brand, size, width, seed):
    line = print_line(brand, goods, size, width, random.Random(seed))
    assert min(4, len(" ".join(goods))) <= len(line) <= width
    assert line == " ".join(line.split())


def test_neighbours_of_letter_grams_answer_many_rows_and_not_all(demo, letters):
    known = letters.transform(demo.train.description)
    nearest = (letters.transform(demo.test.description) @ known.T).toarray().argmax(axis=1)
    right = demo.train[LABELS].to_numpy()[nearest] == demo.test[LABELS].to_numpy()
    assert 0.55 <= right.all(axis=1).mean() <= 0.75


# Files


def test_files_are_in_the_contest_format(demo, tmp_path):
    write_contest_files(demo, tmp_path / "new" / "folder")
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(FILES)
    for split, table in (("train", demo.train), ("test", demo.test)):
        features = read_lines(tmp_path / "new" / "folder" / f"{split}.features")
        labels = read_lines(tmp_path / "new" / "folder" / f"{split}.labels")
        assert [list(line) for line in features] == [COLUMNS[:4]] * len(table)
        assert [list(line.values()) for line in labels] == table[["indoml_id", *LABELS]].to_numpy().tolist()
        assert list(labels[0]) == ["indoml_id", *LABELS]
        assert [line["indoml_id"] for line in features] == table.indoml_id.tolist()
        assert [line["description"] for line in features] == table.description.tolist()
        prices = [np.nan if line["price"] is None else float(line["price"]) for line in features]
        assert np.array_equal(prices, table.price, equal_nan=True)
        kinds = pd.Series([type(line["price"]).__name__ for line in features]).value_counts(normalize=True)
        assert set(kinds.index) == {"float", "str", "NoneType"}
        assert 0.1 < kinds["str"] < 0.5
        texts = [line["price"] for line in features if isinstance(line["price"], str)]
        assert all(re.fullmatch(r"\d+\.\d\d", text) for text in texts)


def test_same_arguments_give_the_same_bytes_in_any_process(tmp_path):
    write_contest_files(make_demo(300, 60, 5), tmp_path / "here")
    code = CODE + "write_contest_files(make_demo(300, 60, 5), Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "there")], env={**os.environ, "PYTHONHASHSEED": "99"}, check=True
    )
    assert digest(tmp_path / "here") == digest(tmp_path / "there")


def test_default_size_repeats_and_another_seed_differs(demo, tmp_path):
    for name, catalogue in (("one", demo), ("two", make_demo()), ("other", make_demo(seed=8))):
        write_contest_files(catalogue, tmp_path / name)
    one, two, other = (digest(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in FILES)


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    small = make_demo(100, 20)
    write_contest_files(small, tmp_path)
    before = digest(tmp_path)
    broken = small.train.assign(description=small.train.description.astype(object))
    broken.loc[99, "description"] = object()
    with pytest.raises(TypeError):
        write_contest_files(DemoCatalogue(broken, small.test), tmp_path)
    assert digest(tmp_path) == before
    write_contest_files(make_demo(100, 20, seed=1), tmp_path)
    assert all(digest(tmp_path)[name] != before[name] for name in FILES)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(FILES)
