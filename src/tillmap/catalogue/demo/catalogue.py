"""Draws the demo catalogue's rows: how many a path gets, which products, in which shop, at what price."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from tillmap.catalogue.demo.labelspace import ContestPath, LabelSpace, Listing, build_label_space, stock
from tillmap.catalogue.demo.receipts import print_line
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import CONTEST

MIN_TRAIN_ROWS, MIN_TEST_ROWS = 100, 20
# As in the contest's data, where two catch-all paths hold about 7% of the rows each, and 32% of the paths have fewer
# than five rows.
_CATCH_ALL_SHARE = 0.07  # of the rows, for each catch-all path
_TAIL_SHARE = 0.3  # of the paths have fewer than five rows
_TAIL_ROWS, _TAIL_WEIGHTS = (1, 2, 3, 4), (5, 3, 2, 2)  # how many rows, and how often
# Our own choices.
_ROWS_PER_PATH = 6  # on average; a small catalogue has fewer paths, so that most of them can still be learnt
_UNSEEN_SHARE = 0.03  # of the test rows have a path that training never shows
_MAX_UNSEEN_PATHS = 40
_MAX_KINDS = 3  # of a module's goods that one brand makes
_TEST_ONLY_NAMES = 0.25  # of a path's goods are in test rows only, in every size
_LINES_PER_PRODUCT = 3  # training rows, on average
_SEEN_PRODUCTS = 0.15  # of the test rows are of a product that may be in training rows, too
_NO_PRICE = 0.01  # of the rows


@dataclass(frozen=True, eq=False)
class DemoCatalogue:
    """Simulated rows; none is a real product.

    Both tables have indoml_id (int, from 0), description, retailer, price (float, NaN where unknown) and the four
    levels.
    """

    train: pd.DataFrame
    test: pd.DataFrame


def make_demo(train_rows: int = 4000, test_rows: int = 800, seed: int = 7) -> DemoCatalogue:
    """A simulated catalogue of till receipt lines. The same arguments give the same rows.

    The brands, shops and lines are made up. All sizes and seeds share one label space, but with fewer than about
    3,800 training rows only some of its paths are used (one for six rows). Two catch-all paths take 7% of the rows
    each. 30% of the paths have fewer than five training rows. 3% of the test rows, at least one, have a path that
    training never shows: a new brand, or a known brand in another module. Most test rows are of products that
    training shows in no size.

    Args:
        train_rows: how many training rows, at least 100.
        test_rows: how many test rows, at least 20.
        seed: of everything that is drawn, except the label space.

    Raises ParamsError for fewer rows.
    """
    for name, rows, least in (("train_rows", train_rows, MIN_TRAIN_ROWS), ("test_rows", test_rows, MIN_TEST_ROWS)):
        if rows < least:
            raise ParamsError(f"{name} is {rows}; the demo catalogue needs at least {least}: set it to more rows")
    rng = random.Random(seed)
    space = build_label_space()
    counts = _rows_per_listing(space, train_rows, rng)
    shelves = [_Shelf(listing, rows, rng) for listing, rows in counts.items()]
    train = [shelf for shelf, rows in zip(shelves, counts.values(), strict=True) for _ in range(rows)]

    unseen_rows = max(1, round(_UNSEEN_SHARE * test_rows))
    unseen = [_Shelf(listing, 1, rng) for listing in _unseen_listings(space, list(counts), unseen_rows, rng)]
    test = rng.choices(shelves, weights=list(counts.values()), k=test_rows - unseen_rows)
    test += [unseen[row % len(unseen)] for row in range(unseen_rows)]
    return DemoCatalogue(_table(train, rng, is_test=False), _table(test, rng, is_test=True))


def _rows_per_listing(space: LabelSpace, rows: int, rng: random.Random) -> dict[Listing, int]:
    """How many training rows each listing gets. They add up to `rows`; listings without any are left out.

    The catch-alls get a fixed share, the tail 1 to 4 rows a path, and the others 5 or more, by Zipf's law.
    """
    catch_all = round(_CATCH_ALL_SHARE * rows)
    rows -= catch_all * len(space.catch_alls)
    shown = space.listings[: rows // _ROWS_PER_PATH]
    tail = rng.choices(_TAIL_ROWS, weights=_TAIL_WEIGHTS, k=round(_TAIL_SHARE * len(shown)))
    head = len(shown) - len(tail)
    least = max(_TAIL_ROWS) + 1
    # Zipf's law, flattened at the top (rank + 3), so that no path has more rows than the catch-alls.
    weights = [(rank + 3) ** -0.9 for rank in range(head)]
    extra = _apportion(rows - sum(tail) - least * head, weights)
    sizes = [*(least + count for count in extra), *tail]
    rng.shuffle(sizes)
    return dict.fromkeys(space.catch_alls, catch_all) | dict(zip(shown, sizes, strict=True))


def _apportion(total: int, weights: list[float]) -> list[int]:
    """Whole numbers that add up to `total`, in proportion to the weights (the largest remainder method)."""
    unit = total / sum(weights)
    shares = [int(unit * weight) for weight in weights]
    short = sorted(range(len(shares)), key=lambda place: shares[place] - unit * weights[place])
    for place in short[: total - sum(shares)]:
        shares[place] += 1
    return shares


def _unseen_listings(space: LabelSpace, shown: list[Listing], rows: int, rng: random.Random) -> Iterator[Listing]:
    """Paths that training never shows: in turn a new brand in a known module, and a known brand in another module."""
    shown = [listing for listing in shown if not listing.is_catch_all]
    taken = {listing.path for listing in space.listings}
    for number in range(min(rows, _MAX_UNSEEN_PATHS)):
        home = rng.choice(shown)
        if number % 2 == 0:
            listing = stock(home.path._replace(brand=space.new_brands[number // 2]), rng)
        else:
            path = rng.choice(_other_modules(home.path.brand, home.path.supergroup, shown, taken))
            listing = stock(path, rng, home.retailers[0] if home.is_own_brand else None)
        taken.add(listing.path)
        yield listing


def _other_modules(brand: str, supergroup: str, shown: Iterable[Listing], taken: set[ContestPath]) -> list[ContestPath]:
    """Modules in which a brand is not sold yet: those of its supergroup, or any if there is none."""
    free = sorted({listing.path._replace(brand=brand) for listing in shown} - taken)
    return [path for path in free if path.supergroup == supergroup] or free


class _Product(NamedTuple):
    goods: list[str]
    size: str
    price: float


class _Shelf:
    """A listing's products: few enough that each is printed several times, and others for test rows only."""

    def __init__(self, listing: Listing, rows: int, rng: random.Random) -> None:
        self.listing = listing
        self.weights = [retailer.weight for retailer in listing.retailers]
        kinds, variants = listing.module.kinds.split(", "), listing.module.variants.split(", ")
        if listing.is_catch_all:  # training and test rows share its few vague lines
            self.products = self.test_products = self._make(list(product(kinds, variants)), rows, rng)
            return
        names = list(product(rng.sample(kinds, k=min(len(kinds), _MAX_KINDS)), variants))
        rng.shuffle(names)
        held_back = round(_TEST_ONLY_NAMES * len(names))
        self.products = self._make(names[held_back:], rows, rng)
        self.test_products = self._make(names[:held_back], round(rows * _TEST_ONLY_NAMES), rng)

    def _make(self, names: list[tuple[str, str]], rows: int, rng: random.Random) -> list[_Product]:
        sizes = self.listing.module.sizes.split(", ")
        kinds = list(product(names, range(len(sizes))))
        made = []
        for name, size in rng.sample(kinds, k=min(len(kinds), 1 + rows // _LINES_PER_PRODUCT)):
            goods = " ".join(rng.sample(name, k=2)).split()  # kind and variant, in either order
            price = self.listing.price * (0.7 + 0.25 * size) * rng.lognormvariate(0.0, 0.15)
            made.append(_Product(goods, sizes[size], price))
        return made

    def draw(self, rng: random.Random, *, is_test: bool) -> tuple[str, str, float, *tuple[str, ...]]:
        """A row: description, retailer, price and the four labels."""
        path, is_catch_all = self.listing.path, self.listing.is_catch_all
        item = rng.choice(self.test_products if is_test and rng.random() >= _SEEN_PRODUCTS else self.products)
        (retailer,) = rng.choices(self.listing.retailers, weights=self.weights)
        price = max(0.05, round(item.price * rng.lognormvariate(0.0, 0.6 if is_catch_all else 0.06), 2))
        brand = "" if is_catch_all else path.brand
        line = print_line(brand, item.goods, item.size, retailer.width, rng, is_own_brand=self.listing.is_own_brand)
        return line, retailer.name, price if rng.random() >= _NO_PRICE else float("nan"), *path


def _table(shelves: list[_Shelf], rng: random.Random, *, is_test: bool) -> pd.DataFrame:
    rng.shuffle(shelves)
    rows = [shelf.draw(rng, is_test=is_test) for shelf in tqdm(shelves, desc="demo rows", disable=None)]
    table = pd.DataFrame(rows, columns=["description", "retailer", "price", *CONTEST])
    table.insert(0, "indoml_id", range(len(table)))
    return table
