"""Products that are listed under several label paths, as in trees where a label may have two parents."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tillmap.core.prices import cents
from tillmap.core.taxonomy import Levels, labels_of


def listings(rows: pd.DataFrame, levels: Levels) -> NDArray[np.int64]:
    """The position of the first row of each row's product (rows,), if that is listed under several paths; else its own.

    Rows of one price, brand and last label are taken for one product. Without a price or a brand nothing is known.

    Needs the columns price and those of the levels.
    """
    own = np.arange(len(rows))
    if levels.brand is None or not len(rows):
        return own
    paths = levels.paths(rows)
    product = pd.Series(
        [
            (price, path[-1], labels_of(levels.chain_of(path))[-1:]) if price >= 0 and path[-1] else place
            for place, (price, path) in enumerate(zip(cents(rows["price"].to_numpy(np.float64)), paths, strict=True))
        ]
    )
    alike = pd.DataFrame({"path": pd.factorize(pd.Series(paths))[0], "row": own}).groupby(pd.factorize(product)[0])
    several = alike["path"].transform("nunique") > 1
    return np.where(several, alike["row"].transform("first"), own)


def join_products(rows: pd.DataFrame, levels: Levels) -> dict[str, str]:
    """One product key for all the keys that the listings of a product have; only of those that have several.

    Lines of one listing may be spelled unlike those of another, so `product_key` tells them apart. Held-out rows would
    then not be of unseen products. Needs the columns product and price, and those of the levels.
    """
    number, keys = pd.factorize(rows["product"])
    first = listings(rows, levels)
    links = coo_matrix((np.ones(len(rows)), (number, number[first])), shape=(len(keys), len(keys)))
    group = pd.Series(connected_components(links, directed=False)[1])
    joined = pd.Series(keys).groupby(group).transform("min")
    return {key: one for key, one in zip(keys, joined, strict=True) if key != one}
