"""Accuracy of an arm by kind of row (slices), and which labels it confuses."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import KEY, MAX_LEVELS, LabelPath, Levels
from tillmap.core.text import normalise
from tillmap.evaluation.bootstrap import mean_interval
from tillmap.evaluation.metrics import PREDICTED, RIGHT, clusters_of, path_codes

NONE = "(none)"
_FREQUENCIES = {
    "unseen": 0,
    "1": 1,
    "2-4": 4,
    "5-19": 19,
    "20+": np.inf,
}  # name: largest number of rows
_LENGTHS = {"up to 10": 10, "11-15": 15, "16-20": 20, "21-30": 30, "31+": np.inf}  # name: largest number of characters
_DEPTHS: dict[str, float] = {f"{depth} level{'s' if depth > 1 else ''}": depth for depth in range(1, MAX_LEVELS + 1)}
_MIN_STEM = 3  # letters; shorter words of a text say nothing about a brand


def slice_rows(
    truth: pd.DataFrame, training: pd.DataFrame, levels: Levels, catch_all: Collection[LabelPath] = ()
) -> pd.DataFrame:
    """The slices that each row of the truth is in: split, id and a column per way of slicing.

    The ways: the label of the first level; retailer; path_frequency, the number of `training` rows with the true path;
    description_length, in characters; brand_shown, see there, if there is a brand level; catch_all, "catch-all" for the
    paths given (see `catch_all_paths`), else "other"; path_depth, the labels of the true path without its brand, if the
    paths end at different levels; refund, "refund" for a negative price, else "sale or unknown", if there are refunds.
    """
    true_paths, training_paths, catch_all_codes = path_codes(levels, truth, training, levels.columns(catch_all))
    seen = np.bincount(training_paths, minlength=true_paths.max(initial=0) + 1)[true_paths]
    is_catch_all = np.isin(true_paths, catch_all_codes)
    depths, refunds = truth[list(levels.chain)].notna().sum(axis=1), truth["price"] < 0
    ways: dict[str, object] = {
        levels.names[0]: truth[levels.names[0]],
        "retailer": truth["retailer"],
        "path_frequency": _bands(seen, _FREQUENCIES),
        "description_length": _bands(truth["description"].str.len(), _LENGTHS),
    }
    if levels.brand is not None:
        brands = truth[levels.brand].fillna("")
        shown = [brand_shown(text, brand) for text, brand in zip(truth["description"], brands, strict=True)]
        ways["brand_shown"] = pd.Categorical(shown, ["in full", "shortened", "no", NONE], ordered=True)
    ways["catch_all"] = _either(is_catch_all, "catch-all", "other")
    if depths.nunique() > 1:
        ways["path_depth"] = _bands(depths, _DEPTHS)
    if refunds.any():
        ways["refund"] = _either(refunds, "refund", "sale or unknown")
    return pd.DataFrame({"split": truth["split"], "id": truth["id"], **ways}, index=truth.index)


def catch_all_paths(training: pd.DataFrame, levels: Levels, share: float = 0.05) -> list[LabelPath]:
    """The paths with more than `share` of the training rows, the largest first."""
    shares = training.groupby(list(levels), observed=True, dropna=False).size() / len(training)
    large = shares[shares > share].sort_values(ascending=False, kind="stable")
    return levels.paths(large.index.to_frame(index=False))


def brand_shown(description: str, brand: str) -> str:
    """Whether a description shows the brand: "in full", "shortened", "no", or "(none)" for "", which is no brand.

    Both are normalised first. In full: the words of the brand are in the text, in order. Shortened: the brand without
    its spaces starts with a word of the text of at least three letters, such as "cad" or "cadbury" for cadbury creme
    egg.

    >>> brand_shown("CAD 5 pk creme egg", "cadbury creme egg")
    'shortened'
    """
    if not brand:
        return NONE
    text, name = normalise(description), normalise(brand)
    if f" {name} " in f" {text} ":
        return "in full"
    joined = name.replace(" ", "")
    starts = any(len(word) >= _MIN_STEM and joined.startswith(word) for word in text.split())
    return "shortened" if starts else "no"


def score_slices(
    marks: pd.DataFrame, slices: pd.DataFrame, arm: str, levels: Levels, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Score one arm by slice: a tidy table of arm, slice, value, rows, correct, accuracy, low, high (95% interval).

    `marks` comes from `metrics.mark` and `slices` from `slice_rows`; they are joined by key. Added to these slices are
    "all" (with one value, "item"), "level" (each label alone, on the rows whose true path reaches it), and repair,
    source and in_tree if the marks have them. Bands keep their order; other values are sorted by falling number of
    rows.

    Raises InputError if a row of `marks` is in no slice.
    """
    joined = marks[KEY].merge(slices, on=KEY, validate="one_to_one")
    if len(joined) != len(marks):
        raise InputError(
            f"arm {arm}: {len(marks) - len(joined):,} of {len(marks):,} rows are in no slice; slice the same rows"
        )
    ways = joined.drop(columns=KEY).assign(
        **{name: marks[name].to_numpy() for name in ("repair", "source", "in_tree") if name in marks}
    )
    right = marks["right"].to_numpy(bool)
    clusters = clusters_of(marks)

    def scored(way: str, value: str, hits: np.ndarray, at: np.ndarray) -> tuple[object, ...]:
        chosen = hits[at]
        low, high = mean_interval(chosen, None if clusters is None else clusters[at], resamples=resamples, seed=seed)
        return arm, way, value, chosen.size, int(chosen.sum()), float(chosen.mean()), low, high

    table = [scored("all", "item", right, np.arange(len(marks)))]
    for level in levels:
        reached = np.flatnonzero(marks[level].notna())
        if reached.size:
            table.append(scored("level", level, marks[RIGHT.format(level)].to_numpy(bool), reached))
    for way in ways:
        for value, at in _positions(ways[way]).items():
            table.append(scored(str(way), value, right, at))
    return pd.DataFrame(table, columns=["arm", "slice", "value", "rows", "correct", "accuracy", "low", "high"])


def confusion(marks: pd.DataFrame, level: str) -> pd.DataFrame:
    """How often each label of a level is predicted for each true label: true, predicted, rows, share.

    Only pairs that occur, those of the most frequent true label first. `share` is that of the true label's rows. Where
    a path has no label at this level, it is "(none)".
    """
    pairs = _pairs(marks, level)
    totals = pairs.groupby("true")["rows"].transform("sum")
    order = pairs.assign(share=pairs["rows"] / totals, _total=totals).sort_values(
        ["_total", "true", "rows", "predicted"], ascending=[False, True, False, True]
    )
    return order.drop(columns="_total").reset_index(drop=True)


def costliest_confusions(marks: pd.DataFrame, level: str, most: int = 20) -> pd.DataFrame:
    """The `most` frequent wrong labels of a level: true, predicted, rows, share_of_errors (of all wrong items)."""
    wrong = _pairs(marks[~marks[RIGHT.format(level)]], level)
    wrong = wrong.sort_values(["rows", "true", "predicted"], ascending=[False, True, True]).head(most)
    return wrong.assign(share_of_errors=wrong["rows"] / max(1, int((~marks["right"]).sum()))).reset_index(drop=True)


def _pairs(marks: pd.DataFrame, level: str) -> pd.DataFrame:
    pairs = pd.DataFrame({"true": marks[level], "predicted": marks[PREDICTED.format(level)]}).fillna(NONE)
    return pairs.groupby(["true", "predicted"], observed=True).size().rename("rows").reset_index()


def _either(flags: pd.Series | np.ndarray, yes: str, no: str) -> pd.Categorical:
    return pd.Categorical(np.where(flags, yes, no), [yes, no])


def _bands(values: pd.Series | np.ndarray, bands: dict[str, float]) -> pd.Categorical:
    edges = [-np.inf, *bands.values()]
    return pd.Categorical(pd.cut(np.asarray(values), edges, labels=list(bands)), ordered=True)


def _positions(values: pd.Series) -> dict[str, np.ndarray]:
    """The positions of each value: bands in their order, other values by falling number of rows."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return {str(name): at for name in values.cat.categories if (at := np.flatnonzero(values == name)).size}
    codes, names = pd.factorize(values.astype("str").replace("", NONE).fillna(NONE))
    places = {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}
    return dict(sorted(places.items(), key=lambda place: (-place[1].size, place[0])))
