"""Which subset a row belongs to, and which rows the arms answer."""

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tillmap.core.errors import InputError, ParamsError
from tillmap.core.text import normalise, without_vowels

By = Literal["product", "row"]
HELD_OUT = ("dev", "calibration", "holdout")
SUBSETS = ("train", *HELD_OUT)
REFIT = "refit"  # rows that only the models for new rows are trained on, see `place_added`
_MAX_FOR_CALIBRATION = 0.2

# Sizes and counts, which differ between near-duplicates: "200 g", "5pk", "2%", "x6". Letters of other alphabets may
# stand beside them, in scripts without spaces.
_SIZE = re.compile(
    r"(?<![a-z0-9])\d+ ?(?:kgs?|gms?|gr?|mg|ml|cl|dl|ltrs?|lt|l|oz|lb|pcs?|packs?|pk|cm|mm|m|inch|w|ct|ea|s|x)"
    r"(?![a-z0-9])|[\d%]+"
)
_REPEATED = re.compile(r"(.)\1+")
# A till cuts words to three letters or more ("cad" for cadbury), or drops their vowels ("cdbry"). The first two letters
# without vowels ("cd") are the same in all three.
_SKELETON_LETTERS = 2


def product_key(description: str) -> str:
    """A key that near-duplicates share: lines that differ in size, digits, word order, punctuation or shortened words.

    The key is the sorted set of the words' first two letters, without vowels and doubled letters. A word in a script
    without capitals, such as Chinese or Hindi, is kept whole: its letters say more, and tills do not shorten it so.
    Different products may share a key. That does no harm: they are only kept in the same subset.

    >>> product_key("Cadbury Creme Egg 5 x 40 g") == product_key("crm egg, cad 200g")
    True
    """
    text = normalise(description)
    words = without_vowels(_SIZE.sub(" ", text)).split()
    return " ".join(sorted({_skeleton(word) for word in words})) or text or description


def _skeleton(word: str) -> str:
    if any(unicodedata.category(letter) == "Lo" for letter in word):
        return word
    return _REPEATED.sub(r"\1", word)[:_SKELETON_LETTERS]


def draw_test(rows: pd.DataFrame, by: By, share: float, seed: int) -> pd.DataFrame:
    """Make a share of the labelled rows the test rows, for a user who has no test file: their split becomes "test".

    Args:
        rows: split, id and, for "product", product; none is of the test split.
        by: "product" keeps all rows of a product together; "row" draws each row on its own.
        share: of the rows.
        seed: of the draw. A draw depends on the product's key and the seed only, as in `assign_subsets`.

    Returns the rows in their order. Raises InputError if there are too few rows for a test part and a training part.
    """
    group_of_row, groups, free = _in_drawn_order(rows, by, seed)
    taken = _take(free, np.bincount(group_of_row), round(share * len(rows)), leave=1)
    if not taken:
        raise InputError(
            f"split: the {len(rows):,} labelled rows are of {len(groups)} {by}s, too few to hold some out as a test; "
            "add rows, or set `split.by: row`, or name a test file in `data.test`"
        )
    return rows.assign(split=rows["split"].mask(np.isin(group_of_row, taken), "test"))


def assign_subsets(
    rows: pd.DataFrame, by: By, *, dev: float, calibration: float, holdout: float, seed: int
) -> "pd.Series[str]":
    """Assign each row a subset: "train", "dev", "calibration" or "holdout"; "test" for the rows of the test split.

    `dev`, `calibration` and `holdout` are shares of the labelled rows. With `by` "product" all rows of a product get
    the same subset; with "row" each row is drawn on its own. A product with more rows than a subset still lacks stays
    in the training subset, unless the held-out subset would be empty. With very few rows, training gets the first, then
    each subset in turn. A draw depends on the product's key and the seed only, so adding rows moves few others.

    Needs the columns split, id and, for "product", product. Raises ParamsError if a share is negative or the shares
    leave no row for training, InputError if no row is labelled.
    """
    shares = dict(zip(HELD_OUT, (dev, calibration, holdout), strict=True))
    if not all(share >= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ParamsError(
            f"split: dev is {dev}, calibration {calibration}, holdout {holdout}; "
            "expected shares of at least 0 with a sum below 1; lower them"
        )
    labelled = (rows["split"] == "train").to_numpy()
    if not labelled.any():
        raise InputError("split: no row is labelled; expected rows of the train split: check `data.source`")
    group_of_row, groups, free = _in_drawn_order(rows[labelled], by, seed)
    sizes = np.bincount(group_of_row)
    subset_of_group = np.zeros(len(groups), dtype=np.int64)
    wanted = {subset: round(share * len(group_of_row)) for subset, share in shares.items() if share}
    for turn, (subset, rows_wanted) in enumerate(wanted.items()):
        taken = _take(free, sizes, rows_wanted, leave=len(wanted) - turn)
        subset_of_group[taken] = SUBSETS.index(subset)
        free = [group for group in free if not subset_of_group[group]]
    subset_of_row = np.full(len(rows), "test", dtype=object)
    subset_of_row[labelled] = np.array(SUBSETS, dtype=object)[subset_of_group[group_of_row]]
    return pd.Series(subset_of_row, index=rows.index, dtype="str", name="subset")


def place_added(added: pd.DataFrame, others: pd.DataFrame, by: By, *, test_drawn: bool) -> "pd.Series[str]":
    """The subset of each training row that a person's correction added: "train", "refit" or "unused".

    Such rows are never held out: people label what the arms are unsure of, so they are no fair sample. With `by`
    "product" a row whose product is held out cannot be in the training subset either, or the held-out rows would no
    longer be of unseen products. It is "refit": as held-out rows, it trains the models for new rows. If the product is
    one of the test rows that `draw_test` drew, which these models answer, the row is "unused".

    Args:
        added: the added rows, with their product.
        others: all other rows, with subset and product.
        by: how the subsets were drawn.
        test_drawn: whether the test rows were drawn from the labelled rows.
    """
    if by == "row":
        return pd.Series("train", index=added.index, dtype="str")
    placed = dict.fromkeys(others.loc[others["subset"].isin(HELD_OUT), "product"], REFIT)
    if test_drawn:
        placed |= dict.fromkeys(others.loc[others["subset"] == "test", "product"], "unused")
    return added["product"].map(lambda product: placed.get(product, "train")).astype("str")


def calibration_share(share: float, min_rows: int, labelled: int) -> float:
    """The calibration subset's share of `labelled` rows: `share`, or more where that gives fewer than `min_rows` rows.

    At most a fifth of the rows. Few rows make unreliable confidences and thresholds: the standard error of an accuracy
    of 0.7 is 0.03 with 240 rows and 0.02 with 600.
    """
    return max(share, min(min_rows / max(labelled, 1), _MAX_FOR_CALIBRATION))


def _in_drawn_order(rows: pd.DataFrame, by: By, seed: int) -> tuple[NDArray[np.int64], pd.Index, list[int]]:
    """The number of each row's group (rows,), a product or a row; the groups; and their numbers in drawn order."""
    group_of_row, groups = pd.factorize(rows["product" if by == "product" else "id"])
    return group_of_row, pd.Index(groups), list(np.argsort(draws(groups, seed), kind="stable"))


def _take(free: list[int], sizes: NDArray[np.int64], wanted: int, leave: int) -> list[int]:
    """Groups in drawn order with at most `wanted` rows together; `leave` groups are left for other subsets.

    If that gives none, it is the smallest group, unless that is the last one.
    """
    taken: list[int] = []
    for group in free:
        if not wanted or len(free) - len(taken) <= leave:
            break
        if sizes[group] <= wanted:
            taken.append(group)
            wanted -= int(sizes[group])
    if not taken and len(free) > 1:
        taken = [min(free, key=lambda group: sizes[group])]
    return taken


def rows_to_answer(
    rows: pd.DataFrame, held_out_rows: int | None, seed: int, pilot_rows: int | None = None
) -> pd.DataFrame:
    """Up to `pilot_rows` test rows and up to `held_out_rows` rows of each held-out subset, in the order of `rows`.

    None: all. Needs the columns id and subset.
    """
    draw = pd.Series(draws(rows["id"], seed), index=rows.index)
    rank = draw.groupby(rows["subset"]).rank(method="first")
    held_out = rows["subset"].isin(HELD_OUT) & (held_out_rows is None or rank <= held_out_rows)
    new = (rows["subset"] == "test") & (pilot_rows is None or rank <= pilot_rows)
    return rows[held_out | new]


def draw_pilot(rows: pd.DataFrame, pilot_rows: int | None, seed: int) -> pd.DataFrame | None:
    """The test rows (split, id) that a pilot asks a language model about, the same for every arm.

    None where that is all of them: no pilot was asked for, or there are no more rows. `rows` may hold other rows.
    """
    test = rows[rows["subset"] == "test"]
    if pilot_rows is None or pilot_rows >= len(test):
        return None
    return rows_to_answer(test, 0, seed, pilot_rows)[["split", "id"]].reset_index(drop=True)


def draws(keys: Iterable[object], seed: int) -> NDArray[np.uint64]:
    """A random 64-bit number per key (keys,), which depends on the key and the seed only, not on the other keys."""
    hashes = (blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)
