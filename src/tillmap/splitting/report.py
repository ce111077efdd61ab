"""Finds which way of splitting, by product or by row, makes held-out rows most like the test rows."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from tillmap.core.taxonomy import Levels
from tillmap.core.text import normalise
from tillmap.splitting.subsets import HELD_OUT, draws

# At most so many similarities (queries x labelled rows) are computed, some ten seconds, but always `sample` queries.
_MAX_PAIRS = 10**9


def split_report(rows: pd.DataFrame, levels: Levels, seed: int, sample: int = 2000) -> dict[str, Any]:
    """Compare the ways of splitting: which makes held-out rows most like the test rows?

    The measure is each row's similarity to its nearest labelled row: the cosine of the character 2-4-gram TF-IDF of
    the normalised descriptions. Keys:

    - `left_out`: labelled rows compared with all others ("row") or with those of other products ("product"), and test
      rows compared with all labelled rows ("test").
    - `distance_to_test`: the Wasserstein distance of the "row" and "product" similarities to the "test" ones.
    - `fits`: the way with the smaller distance, "product" or "row".
    - `drawn`: held-out rows and test rows compared with the training subset, as the subsets were drawn.
    - `compared_rows`: how many rows were compared.

    Each entry of `left_out` and `drawn` has the similarity's mean and percentiles 10, 50 and 90, and `unseen_paths`:
    the share of all rows whose label path is not among the rows compared with (None without labels). Test labels are
    reported but do not decide anything.

    `sample` rows of each split are compared, more if there are few labelled rows. Needs the columns split, id, subset,
    description, product and the levels.
    """
    from scipy.stats import wasserstein_distance

    labelled, test = rows[rows["split"] == "train"], rows[rows["split"] == "test"]
    size = max(sample, _MAX_PAIRS // max(1, len(labelled)))
    asked, asked_test = (table.iloc[np.argsort(draws(table["id"], seed))[:size]] for table in (labelled, test))
    similarity = _similarities(labelled, asked, asked_test)
    held_out = asked["subset"].isin(HELD_OUT).to_numpy()
    unseen = _unseen_paths(labelled, test, levels)
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
    """The similarity of each row of `asked` and `test` to the nearest row that it is compared with, by comparison."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    compared = pd.concat([labelled, test])
    text_of_row, texts = pd.factorize(compared["description"].map(normalise))
    text_of_labelled, text_of_test = text_of_row[: len(labelled)], text_of_row[len(labelled) :]
    # Fit on the test texts too. An n-gram that the vectoriser does not know is dropped, and the other n-grams of that
    # text then weigh more: test rows would look more similar to the labelled rows than those do to each other.
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, dtype=np.float32)
    matrix = vectoriser.fit_transform(texts)
    copies = np.bincount(text_of_labelled)  # factorize numbers texts by appearance: labelled ones first
    grams = matrix[: len(copies)].tocsc()
    in_training = np.zeros(len(copies), dtype=bool)
    in_training[text_of_labelled[labelled["subset"] == "train"]] = True
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
            if copies[text] == 1:  # no other row has this text, so its similarity of 1 is to the row itself
                scores[text] = 0.0
            found["row"].append(scores.max())
            bar.update()
        for text in text_of_test:
            scores = compare(text)
            found["drawn_test"].append(scores.max(where=in_training, initial=0.0))
            found["test"].append(scores.max())
            bar.update()
    return {name: np.array(values) for name, values in found.items()}


def _unseen_paths(labelled: pd.DataFrame, test: pd.DataFrame, levels: Levels) -> dict[str, float | None]:
    """The share of rows whose path is not among the rows that they are compared with; of all rows, not of a sample."""
    both = pd.concat([labelled, test])
    path = both.groupby(list(levels), dropna=False).ngroup().where(levels.labelled(both))
    known, asked = path[: len(labelled)], path[len(labelled) :].dropna()
    training = known[(labelled["subset"] == "train").to_numpy()]
    held_out = known[labelled["subset"].isin(HELD_OUT).to_numpy()]
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
