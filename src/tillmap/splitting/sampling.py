"""Splits the labelled rows into parts, says which way of splitting is like the test rows, and draws samples."""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from tillmap.core.errors import InputError, ParamsError
from tillmap.core.taxonomy import LEVELS
from tillmap.core.text import normalise, without_vowels

By = Literal["product", "row"]
Policy = Literal["stratified", "per_path", "by_retailer", "all"]
HELD_OUT = ("tune", "calibrate", "report")
_MOST_FOR_CALIBRATION = 0.2
PARTS = ("train", *HELD_OUT)

_SIZE = re.compile(
    r"\b\d+ ?(?:kgs?|gms?|gr?|mg|ml|cl|dl|ltrs?|lt|l|oz|lb|pcs?|packs?|pk|cm|mm|m|inch|w|ct|ea|s|x)\b|[\d%]+"
)
_WORD = re.compile(r"\w+")
_REPEATED = re.compile(r"(.)\1+")
# A till cuts a word to three letters or more, or drops its vowels: two letters of its skeleton survive both.
_SKELETON_LETTERS = 2
# Similarities worked out at most, queries times labelled rows (some ten seconds), once `sample` queries are done.
_PAIRS = 10**9


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


def assign_parts(
    rows: pd.DataFrame, by: By, *, tune: float, calibrate: float, report: float, seed: int
) -> "pd.Series[str]":
    """Each row's part: "train", "tune", "calibrate" or "report", and "test" for the rows of the test split.

    `tune`, `calibrate` and `report` are shares of the labelled rows. `by` "product" keeps all rows of a `product`
    together, "row" draws single rows. A product larger than what a part still wants stays in the training part,
    unless the part would be empty. Training gets at least one row, then each part in turn. Whether a product is drawn
    depends on its key and the seed, so rows that are added move few others.

    Needs the columns split, id and, by product, product. Raises ParamsError where a share is negative or they leave
    nothing to train on, InputError where no row is labelled.
    """
    shares = dict(zip(HELD_OUT, (tune, calibrate, report), strict=True))
    if not all(share >= 0 for share in shares.values()) or sum(shares.values()) >= 1:
        raise ParamsError(
            f"split: tune {tune}, calibrate {calibrate} and report {report} are held out of the training rows; "
            "expected shares from 0 up that sum to less than 1: lower them"
        )
    labelled = (rows["split"] == "train").to_numpy()
    if not labelled.any():
        raise InputError("split: there is no labelled row; expected rows of the train split: check `data.source`")
    group_of_row, groups = pd.factorize(rows.loc[labelled, "product" if by == "product" else "id"])
    sizes = np.bincount(group_of_row)
    free = list(np.argsort(_draws(groups, seed), kind="stable"))
    part_of_group = np.zeros(len(groups), dtype=np.int64)
    wanted = {part: round(share * len(group_of_row)) for part, share in shares.items() if share}
    for turn, (part, rows_wanted) in enumerate(wanted.items()):
        taken = _take(free, sizes, rows_wanted, leave=len(wanted) - turn)
        part_of_group[taken] = PARTS.index(part)
        free = [group for group in free if not part_of_group[group]]
    part_of_row = np.full(len(rows), "test", dtype=object)
    part_of_row[labelled] = np.array(PARTS, dtype=object)[part_of_group[group_of_row]]
    return pd.Series(part_of_row, index=rows.index, dtype="str", name="part")


def calibrate_share(share: float, least_rows: int, labelled: int) -> float:
    """The calibrate part's share of so many labelled rows: more than `share` where these are few.

    It holds `least_rows` where a fifth of the rows is enough for that: the accuracy of 240 rows is off by chance by
    0.03 (one standard error at 0.7), and so are the confidences and thresholds that rest on it; that of 600 by 0.02.
    """
    return max(share, min(least_rows / max(labelled, 1), _MOST_FOR_CALIBRATION))


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
    draw = pd.Series(_draws(rows["id"], seed), index=rows.index)
    rank = draw.groupby(rows["part"]).rank(method="first")
    wanted = rows["part"].isin(HELD_OUT) & (held_out_rows is None or rank <= held_out_rows)
    return rows[wanted | (rows["part"] == "test")]


def sample_for_training(rows: pd.DataFrame, size: int, policy: Policy, seed: int) -> pd.DataFrame:
    """An arm's training sample: exactly `size` rows (or all, if fewer or by policy "all"), in the rows' order.

    Every label path keeps at least one row; where `size` is below the number of paths, the most frequent paths do.
    What is left is spread
    - "stratified": in proportion to the paths' further rows, each path rounded up or down by chance;
    - "per_path": as evenly over the paths as they allow;
    - "by_retailer": as evenly over the retailers as they allow, in proportion within each.

    `rows` are those of the training part, all labelled. Raises ParamsError where `size` is below 1.
    """
    if policy == "all" or size >= len(rows):
        return rows
    if size < 1:
        raise ParamsError(f"a training sample of {size} rows was asked for; expected 1 or more")
    table = rows.reset_index(drop=True)
    draw = pd.Series(_draws(table["id"], seed))
    path = table.groupby(list(LEVELS), sort=True).ngroup()
    in_path = draw.groupby(path)
    rank, count = in_path.rank(method="first") - 1, in_path.transform("size")
    later = rank > 0
    if policy == "per_path":
        priority = rank
    elif policy == "stratified":
        # Systematic sampling: the k-th further row of n stands at (k - u) / n with the path's own u in [0, 1), so a
        # cut at any height takes that share of each path, to within one row and without bias against short ones.
        start = _draws(range(path.max() + 1), seed)[path] / 2.0**64
        priority = ((rank - start) / (count - 1)).where(later, -1.0)
    else:
        order = pd.DataFrame({"later": later, "draw": draw}).sort_values(["later", "draw"], kind="stable").index
        priority = table.loc[order].groupby("retailer").cumcount().reindex(table.index).where(later, -1)
    chosen = pd.DataFrame({"priority": priority, "rare": -count, "path": path, "draw": draw})
    return rows.iloc[np.sort(chosen.sort_values(list(chosen.columns), kind="stable").index[:size])]


def sample_report(sample: pd.DataFrame, rows: pd.DataFrame) -> dict[str, float]:
    """How a sample compares with the rows it was drawn from.

    `singleton_share`: of its paths, those with one row. `head_share`: of its rows, those of its ten largest paths.
    `description_length`: mean, in characters. `supergroup_shift`: total variation distance between the supergroups'
    shares in the sample and in all rows, from 0 (alike) to 1.
    """
    counts = sample.groupby(list(LEVELS)).size()
    paths = rows.groupby(list(LEVELS)).ngroups
    shares = [table["supergroup"].value_counts(normalize=True) for table in (sample, rows)]
    return {
        "rows": len(sample),
        "paths": len(counts),
        "paths_left_out": paths - len(counts),
        "singleton_share": round(float((counts == 1).mean()), 4),
        "head_share": round(float(counts.nlargest(10).sum() / len(sample)), 4),
        "retailers": int(sample["retailer"].nunique()),
        "description_length": round(float(sample["description"].str.len().mean()), 2),
        "supergroup_shift": round(float(shares[0].sub(shares[1], fill_value=0).abs().sum() / 2), 4),
    }


def split_report(rows: pd.DataFrame, seed: int, sample: int = 2000) -> dict[str, Any]:
    """Which way of splitting makes held-out rows like the test rows.

    Measured is each row's similarity to its nearest labelled row: the cosine of character 2-4-gram TF-IDF of the
    normalised text. `left_out` compares a labelled row that is left out alone ("row") or with all rows of its product
    ("product") to all other labelled rows, beside the test rows ("test"). `fits` is the way whose similarities are
    the closer to the test rows', by `distance_to_test`, the Wasserstein distance. `drawn` is the same for the parts
    as they were drawn: held-out rows and test rows against the training part. Each entry has the similarity's mean,
    deciles 1, 5 and 9, and `unseen_paths`, the share of rows whose label path the rows compared with lack (None where
    there are no labels); the test labels are reported and choose nothing.

    `sample` rows of each split are compared, or more where there are few labelled rows. Needs the columns split, id,
    part, description, product and the four labels.
    """
    from scipy.stats import wasserstein_distance

    labelled, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    size = max(sample, _PAIRS // max(1, len(labelled)))
    asked, asked_test = (table.iloc[np.argsort(_draws(table["id"], seed))[:size]] for table in (labelled, test))
    similarity = _similarities(labelled, asked, asked_test)
    held_out = asked["part"].isin(HELD_OUT).to_numpy()
    unseen = _unseen_paths(labelled, test)
    distance = {
        by: round(float(wasserstein_distance(similarity[by], similarity["test"])), 4) for by in ("product", "row")
    }
    similarity["drawn_held_out"] = similarity["drawn_held_out"][held_out]
    entries = {name: {**_summary(values), "unseen_paths": unseen[name]} for name, values in similarity.items()}
    return {
        "fits": "product" if distance["product"] <= distance["row"] else "row",
        "distance_to_test": distance,
        "left_out": {name: entries[name] for name in ("product", "row", "test")},
        "drawn": {"held_out": entries["drawn_held_out"], "test": entries["drawn_test"]},
        "compared_rows": {"labelled": len(asked), "held_out": int(held_out.sum()), "test": len(asked_test)},
    }


def _similarities(labelled: pd.DataFrame, asked: pd.DataFrame, test: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Each asked row's similarity to the nearest of the rows that it may be compared with."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    compared = pd.concat([labelled, test])
    text_of_row, texts = pd.factorize(compared["description"].map(normalise))
    text_of_labelled, text_of_test = text_of_row[: len(labelled)], text_of_row[len(labelled) :]
    # The test texts are fitted too: were their own character groups unknown, the rest would weigh more, and the test
    # rows would look more alike to the labelled ones than those look to one another.
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    matrix = vectoriser.fit_transform(texts)
    copies = np.bincount(text_of_labelled)  # factorize numbers texts as they come, so the labelled ones are first
    grams = matrix[: len(copies)].tocsc()
    in_training = np.zeros(len(copies), dtype=bool)
    in_training[text_of_labelled[labelled["part"] == "train"]] = True
    product_of_text = np.zeros(len(copies), dtype=np.int64)
    product_of_text[text_of_labelled] = pd.factorize(labelled["product"])[0]
    found: dict[str, list[float]] = {name: [] for name in ("product", "row", "test", "drawn_held_out", "drawn_test")}

    def compare(text: int) -> NDArray[np.float32]:
        query = matrix[[text]]
        scores: NDArray[np.float32] = np.minimum(grams[:, query.indices] @ query.data, 1.0)
        return scores

    with tqdm(total=len(asked) + len(test), desc="similarity", unit="row", disable=None) as bar:
        for text in pd.Series(text_of_labelled, index=labelled.index)[asked.index]:
            scores = compare(text)
            found["drawn_held_out"].append(scores.max(where=in_training, initial=0.0))
            found["product"].append(scores.max(where=product_of_text != product_of_text[text], initial=0.0))
            if copies[text] == 1:
                scores[text] = 0.0
            found["row"].append(scores.max())
            bar.update()
        for text in text_of_test:
            scores = compare(text)
            found["drawn_test"].append(scores.max(where=in_training, initial=0.0))
            found["test"].append(scores.max())
            bar.update()
    return {name: np.array(values) for name, values in found.items()}


def _unseen_paths(labelled: pd.DataFrame, test: pd.DataFrame) -> dict[str, float | None]:
    """The share of rows whose path is missing from what they are compared with; of all rows, not of a sample."""
    path = pd.concat([labelled, test]).groupby(list(LEVELS)).ngroup()  # null where a row has no label
    known, asked = path[: len(labelled)], path[len(labelled) :].dropna()
    training = known[(labelled["part"] == "train").to_numpy()]
    held_out = known[labelled["part"].isin(HELD_OUT).to_numpy()]
    products = labelled["product"].groupby(known).transform("nunique")
    missing = {
        "product": products == 1,
        "row": known.groupby(known).transform("size") == 1,
        "test": ~asked.isin(known),
        "drawn_held_out": ~held_out.isin(training),
        "drawn_test": ~asked.isin(training),
    }
    return {name: round(float(flags.mean()), 4) if len(flags) else None for name, flags in missing.items()}


def _summary(similarity: NDArray[np.float64]) -> dict[str, float | None]:
    if not len(similarity):
        return dict.fromkeys(("mean", "p10", "p50", "p90"))
    p10, p50, p90 = (round(float(value), 4) for value in np.quantile(similarity, (0.1, 0.5, 0.9)))
    return {"mean": round(float(similarity.mean()), 4), "p10": p10, "p50": p50, "p90": p90}


def _draws(keys: Iterable[object], seed: int) -> NDArray[np.uint64]:
    """A random number for each key that depends on the key and the seed alone, and not on the rows around it."""
    hashes = (blake2b(f"{seed} {key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), dtype=">u8").astype(np.uint64)
