"""Which subset a row belongs to: what trains, what is held out, and which rows are asked about."""

import re
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
_MAX_FOR_CALIBRATION = 0.2

_SIZE = re.compile(
    r"\b\d+ ?(?:kgs?|gms?|gr?|mg|ml|cl|dl|ltrs?|lt|l|oz|lb|pcs?|packs?|pk|cm|mm|m|inch|w|ct|ea|s|x)\b|[\d%]+"
)
_WORD = re.compile(r"\w+")
_REPEATED = re.compile(r"(.)\1+")
# A till cuts a word to three letters or more, or drops its vowels: two letters of its skeleton survive both.
_SKELETON_LETTERS = 2


def product_key(description: str) -> str:
    """A key that near-duplicates share: lines that differ in size, digits, order, punctuation or how words are cut.

    It is the sorted set of the words' first two letters once vowels and doubled letters are gone. Unlike products
    may share a key, which is harmless: they only stay on the same side of a split.

    >>> product_key("Cadbury Creme Egg 5 x 40 g") == product_key("crm egg, cad 200g")
    True
    """
    text = normalise(description)
    words = _WORD.findall(without_vowels(_SIZE.sub(" ", text)))
    return " ".join(sorted({_REPEATED.sub(r"\1", word)[:_SKELETON_LETTERS] for word in words})) or text or description


def assign_subsets(
    rows: pd.DataFrame, by: By, *, dev: float, calibration: float, holdout: float, seed: int
) -> "pd.Series[str]":
    """Each row's subset: "train", "dev", "calibration" or "holdout", and "test" for the rows of the test split.

    `dev`, `calibration` and `holdout` are shares of the labelled rows. `by` "product" keeps all rows of a `product`
    together, "row" draws single rows. A product larger than what a subset still wants stays in the training subset,
    unless the subset would be empty. Training gets at least one row, then each subset in turn. Whether a product is drawn
    depends on its key and the seed, so rows that are added move few others.

    Needs the columns split, id and, by product, product. Raises ParamsError where a share is negative or they leave
    nothing to train on, InputError where no row is labelled.
    """
    shares = dict(zip(HELD_OUT, (dev, calibration, holdout), strict=True))
    if not all(share >= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ParamsError(
            f"split: dev {dev}, calibration {calibration} and holdout {holdout} are held out of the training rows; "
            "expected shares from 0 up that sum to less than 1: lower them"
        )
    labelled = (rows["split"] == "train").to_numpy()
    if not labelled.any():
        raise InputError("split: there is no labelled row; expected rows of the train split: check `data.source`")
    group_of_row, groups = pd.factorize(rows.loc[labelled, "product" if by == "product" else "id"])
    sizes = np.bincount(group_of_row)
    free = list(np.argsort(draws(groups, seed), kind="stable"))
    part_of_group = np.zeros(len(groups), dtype=np.int64)
    wanted = {part: round(share * len(group_of_row)) for part, share in shares.items() if share}
    for turn, (part, rows_wanted) in enumerate(wanted.items()):
        taken = _take(free, sizes, rows_wanted, leave=len(wanted) - turn)
        part_of_group[taken] = SUBSETS.index(part)
        free = [group for group in free if not part_of_group[group]]
    part_of_row = np.full(len(rows), "test", dtype=object)
    part_of_row[labelled] = np.array(SUBSETS, dtype=object)[part_of_group[group_of_row]]
    return pd.Series(part_of_row, index=rows.index, dtype="str", name="subset")


def calibration_share(share: float, min_rows: int, labelled: int) -> float:
    """The calibration subset's share of so many labelled rows: more than `share` where these are few.

    It holds `min_rows` where a fifth of the rows is enough for that: the accuracy of 240 rows is off by chance by
    0.03 (one standard error at 0.7), and so are the confidences and thresholds that rest on it; that of 600 by 0.02.
    """
    return max(share, min(min_rows / max(labelled, 1), _MAX_FOR_CALIBRATION))


def _take(free: list[int], sizes: NDArray[np.int64], wanted: int, leave: int) -> list[int]:
    """Groups in drawn order that together have at most `wanted` rows, leaving `leave` groups for what comes after.

    Where that is none, the smallest group, as long as another is left to train on.
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


def rows_to_answer(rows: pd.DataFrame, held_out_rows: int | None, seed: int) -> pd.DataFrame:
    """The test rows and, of each held-out part, up to `held_out_rows` rows (None: all), in the rows' order.

    Needs the columns split, id and part.
    """
    draw = pd.Series(draws(rows["id"], seed), index=rows.index)
    rank = draw.groupby(rows["subset"]).rank(method="first")
    wanted = rows["subset"].isin(HELD_OUT) & (held_out_rows is None or rank <= held_out_rows)
    return rows[wanted | (rows["subset"] == "test")]


def draws(keys: Iterable[object], seed: int) -> NDArray[np.uint64]:
    """A random number for each key that depends on the key and the seed alone, and not on the rows around it."""
    hashes = (blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)
