"""The demo catalogue's label space: which brand is sold in which module, at what price and in which shops.

It is the same for every size and seed of the catalogue. Down to the module the labels are a strict tree: a module has
one group. The makers' brands are made up from syllables; the shops' own brands are listed with the shops.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tillmap.catalogue.demo.vocabulary import (
    BRAND_FIRST_WORDS,
    BRAND_HEADS,
    BRAND_LAST_WORDS,
    BRAND_TAILS,
    CATCH_ALL_BRAND,
    CATCH_ALL_GROUP,
    CATCH_ALLS,
    GOODS,
    RANGE_WORDS,
    RETAILERS,
    Module,
    Retailer,
)

_SPACE_SEED = 11
_MAKERS = 330  # brands of makers
_SHARE_OF_MAKERS_IN_ONE_MODULE = 0.74
_SHARE_OF_RANGES = 0.12  # of makers' brands are an older brand and a word: "tavatta gold"
_MODULES_OF_AN_OWN_BRAND = (3, 6)  # from, to
_NEW_BRANDS = 30


class ContestPath(NamedTuple):
    """A label path with the contest's levels."""

    supergroup: str
    group: str
    module: str
    brand: str


@dataclass(frozen=True)
class Listing:
    """One label path on sale: its goods, its typical price, and the shops that sell it."""

    path: ContestPath
    module: Module
    price: float
    retailers: tuple[Retailer, ...]
    is_own_brand: bool = False

    @property
    def is_catch_all(self) -> bool:
        """Whether the path is for lines that the till could not name."""
        return self.path.brand == CATCH_ALL_BRAND


@dataclass(frozen=True)
class LabelSpace:
    """All that the demo catalogue can hold.

    `catch_alls`: paths of vague lines, which take the most rows. `listings`: the other paths, in random order.
    `new_brands`: names that no listing has, for test rows with a brand that training never shows.
    """

    catch_alls: list[Listing]
    listings: list[Listing]
    new_brands: list[str]


def build_label_space() -> LabelSpace:
    """Every label path of the demo catalogue. Each call returns the same."""
    rng = random.Random(_SPACE_SEED)
    names = _brand_names(rng)
    modules = [
        ContestPath(supergroup, group, module.name, "")
        for supergroup, groups in GOODS.items()
        for group, members in groups.items()
        for module in members
    ]
    listings = [
        *(stock(path, rng) for path in _makers_paths(modules, names, rng)),
        *(stock(path, rng, owner) for path, owner in _own_brand_paths(modules, rng)),
    ]
    rng.shuffle(listings)
    catch_alls = [
        Listing(
            ContestPath(supergroup, CATCH_ALL_GROUP.format(supergroup), module.name, CATCH_ALL_BRAND),
            module,
            module.price,
            tuple(RETAILERS),
        )
        for supergroup, module in CATCH_ALLS.items()
    ]
    return LabelSpace(catch_alls, listings, [next(names) for _ in range(_NEW_BRANDS)])


def stock(path: ContestPath, rng: random.Random, owner: Retailer | None = None) -> Listing:
    """Put a path on sale: in four shops or more, or, as `owner`'s own brand, there alone and at a lower price."""
    module = next(module for module in GOODS[path.supergroup][path.group] if module.name == path.module)
    price = module.price * rng.lognormvariate(0.0, 0.3)
    if owner:
        return Listing(path, module, 0.75 * price, (owner,), is_own_brand=True)
    shops = rng.sample(RETAILERS, rng.randint(4, len(RETAILERS)))
    return Listing(path, module, price, tuple(shops))


def _makers_paths(modules: list[ContestPath], names: Iterator[str], rng: random.Random) -> list[ContestPath]:
    """Give brands to the modules in turn, so that no module is empty. Some brands are also sold in modules nearby."""
    paths: list[ContestPath] = []
    family: dict[str, list[str]] = {}
    for number in range(_MAKERS):
        home = modules[number % len(modules)]
        parents = family.setdefault(home.supergroup, [])
        if parents and rng.random() < _SHARE_OF_RANGES:
            brand = f"{parents.pop(rng.randrange(len(parents)))} {rng.choice(RANGE_WORDS)}"
        else:
            brand = next(names)
            parents.append(brand)
        paths.append(home._replace(brand=brand))
        if rng.random() >= _SHARE_OF_MAKERS_IN_ONE_MODULE:
            near = [module for module in modules if module.supergroup == home.supergroup and module != home]
            others = rng.sample(near or modules, k=min(len(near or modules), rng.choice((1, 1, 2))))
            paths += [module._replace(brand=brand) for module in others]
    return paths


def _own_brand_paths(modules: list[ContestPath], rng: random.Random) -> Iterator[tuple[ContestPath, Retailer]]:
    for retailer in RETAILERS:
        for brand in retailer.own_brands:
            for module in rng.sample(modules, k=rng.randint(*_MODULES_OF_AN_OWN_BRAND)):
                yield module._replace(brand=brand), retailer


def _brand_names(rng: random.Random) -> Iterator[str]:
    """Made-up names, each pair of syllables once. A third have another word: "dame zimworth", "zimworth mill"."""
    pairs = [head + tail for head in BRAND_HEADS for tail in BRAND_TAILS]
    rng.shuffle(pairs)
    for name in pairs:
        kind = rng.random()
        if kind < 0.1:
            yield f"{rng.choice(BRAND_FIRST_WORDS)} {name}"
        elif kind < 0.33:
            yield f"{name} {rng.choice(BRAND_LAST_WORDS)}"
        else:
            yield name
