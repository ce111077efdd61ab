"""The reranker against the linear model on data of many kinds, and whether it is chosen only where it is better.

    python benchmarks/shops.py [SHOP ...] [--receipts FOLDER] [--shelf FOLDER] [--dense FOLDER]
        [--rows N] [--test-rows N] [--trees N]

Each shop has up to `--rows` labelled rows, drawn by chance, and up to `--test-rows` test rows. The folders have data in
the contest's format: short receipt lines, names as on the shelf, and many receipts of each product. From the receipts
come shops without prices, with one retailer, without retailers, without a brand (then paths end early, as those of a
list of codes do), and with labels that say nothing of the lines. The Polish shop is made up here. A shop whose folder
is not given is left out.

The linear model has the default recipe. Prints for each shop the item accuracy of both, with 95% intervals (bootstrap
by product), the rows that only one of them gets right, their difference with its interval, and what the reranker
chose on the training rows out of fold. `always` is the difference of the answers of trees that were trained in any
case, on all rows out of fold: it shows what the choice is worth.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from linear import SEED, read

from tillmap.catalogue.rows import read_price
from tillmap.core.taxonomy import CONTEST, LabelTree, Levels
from tillmap.evaluation.bootstrap import mean_interval
from tillmap.linear.model import LinearModel, Recipe
from tillmap.rerank import training
from tillmap.rerank.evidence import Evidence
from tillmap.rerank.examples import Options, collect
from tillmap.rerank.reranker import Reranker
from tillmap.splitting.subsets import product_key

ITEM = ["id", "description", "retailer", "price", "split"]
NO_BRAND = Levels(("supergroup", "group", "module"))


class Shop(NamedTuple):
    """Rows with a split, `train` or `test`, and their levels."""

    rows: pd.DataFrame
    levels: Levels = CONTEST


# Kinds of data that are made of others


def without_prices(rows: pd.DataFrame) -> Shop:
    return Shop(rows.assign(price=np.nan))


def one_retailer(rows: pd.DataFrame) -> Shop:
    return Shop(rows.assign(retailer="the shop"))


def without_retailers(rows: pd.DataFrame) -> Shop:
    return Shop(rows.assign(retailer=""))


def without_brand(rows: pd.DataFrame) -> Shop:
    """Codes of one to three levels: a path ends where fewer than 30 rows have it."""
    codes = rows.copy()
    chains = [list(NO_BRAND.names[: depth + 1]) for depth in range(len(NO_BRAND))]
    for level, chain in reversed([*zip(NO_BRAND, chains, strict=True)][1:]):
        few = codes.groupby(chain, dropna=False)[level].transform("size") < 30
        codes.loc[few, level] = ""
    return Shop(codes.drop(columns="brand"), NO_BRAND)


def random_labels(rows: pd.DataFrame) -> Shop:
    """Labels that say nothing of the lines: each of the 8 most frequent label paths, drawn by chance."""
    common = rows.value_counts([*CONTEST]).head(8).reset_index()
    drawn = common.sample(len(rows), replace=True, random_state=SEED)
    return Shop(rows.assign(**{level: drawn[level].to_numpy() for level in CONTEST}))


# A Polish shop

_GOODS = {
    ("nabiał", "mleko i śmietana"): "mleko świeże|mleko UHT|śmietana kremówka|śmietanka do kawy|maślanka naturalna",
    ("nabiał", "sery i masło"): "ser żółty gouda|ser twarogowy półtłusty|masło ekstra|serek wiejski|ser pleśniowy",
    ("nabiał", "jogurty"): "jogurt naturalny|jogurt truskawkowy|jogurt pitny brzoskwinia|kefir|serek waniliowy",
    ("pieczywo", "chleb"): "chleb żytni|chleb pszenny krojony|chleb wieloziarnisty|chleb razowy",
    ("pieczywo", "bułki i ciasta"): "bułka kajzerka|bułka grahamka|drożdżówka z serem|pączek z różą|rogalik maślany",
    ("mięso", "wędliny"): "szynka wędzona|kiełbasa śląska|kiełbasa żywiecka|parówki z szynki|boczek wędzony|salami",
    ("mięso", "drób"): "filet z kurczaka|skrzydełka z kurczaka|udko kurczaka|wątróbka drobiowa",
    ("spiżarnia", "kasze i ryż"): "ryż biały|ryż jaśminowy|kasza gryczana|kasza jęczmienna|płatki owsiane górskie",
    ("spiżarnia", "mąka i cukier"): "mąka pszenna tortowa|mąka żytnia|cukier biały|cukier trzcinowy",
    ("spiżarnia", "przetwory"): "dżem truskawkowy|ogórki konserwowe|groszek konserwowy|koncentrat pomidorowy|musztarda",
    ("napoje", "soki i wody"): "sok jabłkowy|sok pomarańczowy|woda gazowana|woda źródlana|napój wiśniowy",
    ("napoje", "kawa i herbata"): "kawa mielona|kawa rozpuszczalna|herbata czarna|herbata zielona|herbata miętowa",
    ("chemia", "pranie i sprzątanie"): "proszek do prania|płyn do naczyń|płyn do podłóg|mydło w płynie|szampon",
}  # fmt: skip
_STARTS = ("Łąk", "Zdró", "Mlecz", "Gór", "Wiej", "Świer", "Bór", "Krak", "Żyw", "Jabł", "Dęb", "Śnież", "Kłos", "Źród")
_ENDS = ("owit", "anka", "pol", "ex", "ówka", "ix")


def polish() -> Shop:
    """2,600 till lines in Polish: capitals, cut words, lost strokes and accents, misprints, prices with a comma."""
    rng = np.random.default_rng(SEED)
    products = [(chain, name) for chain, names in _GOODS.items() for name in names.split("|")]
    brands = [first + last for first in _STARTS for last in _ENDS]
    makers = {product: rng.choice(brands, rng.integers(3, 9), replace=False) for product in products}
    cost = {product: float(np.exp(rng.normal(1.8, 0.6))) for product in products}
    table = []
    for number in range(2600):
        product = products[rng.integers(len(products))]
        brand = str(rng.choice(makers[product]))
        words = [*product[1].split(), brand] if rng.random() < 0.6 else [brand, *product[1].split()]
        size = rng.choice(["200G", "500G", "1KG", "1L", "0,5L", "SZT", ""])
        line = " ".join([*(_printed(word, rng) for word in words), size]).strip().upper()
        price = f"{cost[product] * rng.uniform(0.8, 1.25):.2f}".replace(".", ",")
        split = "test" if rng.random() < 0.25 else "train"
        item = (number, line, "sklep", read_price({"price": price}, "price", ","), split)
        table.append((*item, *product[0], product[1], brand))
    return Shop(pd.DataFrame(table, columns=[*ITEM, *CONTEST]))


def _printed(word: str, rng: np.random.Generator) -> str:
    dice = rng.random()
    if len(word) > 4 and dice < 0.4:
        word = word[: rng.integers(3, 6)] + "." * (dice < 0.2)
    if rng.random() < 0.3:
        word = word.translate(str.maketrans("ąćęłńóśźż", "acelnoszz"))
    if len(word) > 3 and rng.random() < 0.05:
        at = rng.integers(len(word))
        word = word[:at] + word[at + 1 :]
    return word


def measure(shop: Shop, options: Options) -> dict[str, object]:
    """The answers of both to the shop's test rows."""
    began = time.process_time()
    labelled, test = (shop.rows[shop.rows["split"] == split] for split in ("train", "test"))
    truth, product = shop.levels.paths(test), test["description"].map(product_key)
    model = LinearModel.fit(labelled, LabelTree.from_rows(labelled, shop.levels), Recipe(), SEED)
    linear = _right([each[0][0] for each in model.predict(test)["candidates"]], truth)
    examples = collect(model, labelled, test, options, SEED)
    assert examples is not None, "each shop has many products"
    leaves = training._leaves(labelled)
    untrained = Reranker(None, options.candidates, options.unseen_paths)
    chosen = training.choose(untrained, examples, options, leaves, SEED)
    kept = chosen.trees is not None
    trees = examples.boost(len(chosen.trees) if chosen.trees else options.trees, leaves, SEED)
    always = replace(chosen, trees=trees)
    ranked = linear
    if trees is not None:
        ranked = _right([each[0][0] for each in always.rank(Evidence.of(model, labelled), test)], truth)
    right = ranked if kept else linear
    return {
        "labelled": len(labelled),
        "test": len(test),
        "linear": _interval(linear, product),
        "rerank": _interval(right, product),
        "gained": int((right & ~linear).sum()),
        "lost": int((linear & ~right).sum()),
        "difference": _interval(right.astype(int) - linear, product),
        "reranks": kept,
        "reads brands": chosen.read_brand,
        "always": _interval(ranked.astype(int) - linear, product),
        "out of fold": " ".join(f"{each['right']}{'*' * each['kept']}" for each in chosen.trials),
        "CPU s": round(time.process_time() - began),
    }


def _right(answers: list, truth: list) -> np.ndarray:
    return np.array([answer == path for answer, path in zip(answers, truth, strict=True)])


def _interval(values: np.ndarray, product: pd.Series) -> str:
    low, high = mean_interval(values, product, bounds=(-1 if (values < 0).any() else 0, 1), seed=SEED)
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def some(shop: Shop, labelled: int, test: int) -> Shop:
    """So many rows of a shop, drawn by chance."""
    parts = [
        part.sample(min(len(part), size), random_state=SEED).sort_index()
        for size, (_, part) in zip((test, labelled), shop.rows.groupby("split"), strict=True)
    ]
    return shop._replace(rows=pd.concat(parts))


OF_RECEIPTS: dict[str, Callable[[pd.DataFrame], Shop]] = {
    "receipts": Shop,
    "without prices": without_prices,
    "one retailer": one_retailer,
    "without retailers": without_retailers,
    "without brand": without_brand,
    "random labels": random_labels,
}
SHOPS = (*OF_RECEIPTS, "shelf", "dense", "polish")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shops", nargs="*", metavar="SHOP", help=f"some of: {', '.join(SHOPS)}")
    for name in ("receipts", "shelf", "dense"):
        parser.add_argument(f"--{name}", type=Path, help="folder with train.* and test.* (.features, .labels)")
    parser.add_argument("--rows", type=int, default=6000, help="labelled rows of a shop; default %(default)s")
    parser.add_argument("--test-rows", type=int, default=2000, help="test rows of a shop; default %(default)s")
    parser.add_argument("--trees", type=int, default=Options.trees, help="default %(default)s")
    args = parser.parse_args()
    folders = {**dict.fromkeys(OF_RECEIPTS, args.receipts), "shelf": args.shelf, "dense": args.dense}
    for name in args.shops or SHOPS:
        if name != "polish" and folders[name] is None:
            continue
        shop = polish() if name == "polish" else OF_RECEIPTS.get(name, Shop)(read(folders[name], "row"))
        found = measure(some(shop, args.rows, args.test_rows), Options(trees=args.trees))
        print(name, *(f"{key}: {value}" for key, value in found.items()), sep="\n  ", flush=True)


if __name__ == "__main__":
    main()
