"""Rows of a shop where most brands are rare, so that many test rows have a brand that no training row has."""

import numpy as np
import pandas as pd

from tillmap.core.taxonomy import Levels

LEVELS = Levels(("group", "brand"), "brand")
KINDS = ("bread", "butter", "cheese", "coffee", "soap", "rice")


def brand_rows(count=600):
    """Each line begins with its brand, and prices follow the group."""
    rng = np.random.default_rng(2)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in ("a", "o", "in", "ux")]
    brands = [
        " ".join("".join(rng.choice(syllables, 3)) for _ in range(1 + (number % 5 == 0))) for number in range(300)
    ]
    table = []
    for number in range(count):
        brand, kind = brands[rng.integers(len(brands))], KINDS[number % len(KINDS)]
        table.append((number, f"{brand.upper()} {kind}", "", 1.0 + number % len(KINDS), kind, brand.title()))
    columns = ["id", "description", "retailer", "price", "group", "brand"]
    return pd.DataFrame(table, columns=columns).assign(split="train")
