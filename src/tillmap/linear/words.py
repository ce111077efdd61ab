"""Why the linear model gives an answer: what each word of a line adds to the answer's score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from tillmap.core.compiled import compiled
from tillmap.core.taxonomy import LabelPath
from tillmap.linear import BIAS
from tillmap.linear.model import LinearModel
from tillmap.linear.training import Ints


def word_scores(model: LinearModel, items: pd.DataFrame, paths: Sequence[LabelPath]) -> list[dict[str, float]]:
    """What each word of an item's line adds to the score of a path; the values of an item sum to that score.

    The score of a path is a weighted sum over the features of the item, so this is exact. A feature belongs to the
    words that it was found in: an n-gram that two words share counts half for each, and so does a pair of words. Words
    are normalised (`core.text.normalise`). `(start)`, how the line starts, `(price)`, `(retailer)` and `(amounts)` are
    the parts of the features that are no words, and `(bias)` is what the labels score whatever the line says.

    Args:
        model: the model.
        items: description, retailer and price.
        paths: the path of each item, such as its answer. Each is in the model's tree, or is a known chain with a known
            brand.
    """
    if items.empty:
        return []
    layout, recipe = model.layout, model.recipe
    weights = np.array(recipe.head_weights[: len(layout.paths)], dtype=np.float32)
    columns = model.columns_of(paths)
    words = model.featuriser.read_words(items)
    features = model.featuriser.transform(items)
    heads = model.heads
    values = np.zeros(len(features.data), dtype=np.float32)
    _compiled_values(
        features.indptr, features.indices, features.data, heads.starts, heads.columns, heads.values, columns, weights,
        values,
    )  # fmt: skip
    parts = model.featuriser.share_out(words, csr_matrix((values, features.indices, features.indptr), features.shape))
    known = np.where(columns >= 0, heads.biases[columns], 0.0) @ weights.astype(np.float64)
    unseen = np.array([path not in model.tree for path in paths], dtype=bool)
    known -= np.where(unseen, recipe.unseen_penalty or 0.0, 0.0)
    return [{**part, BIAS: float(bias)} for part, bias in zip(parts, known, strict=True)]


def _values(  # noqa: PLR0917 - one loop for the compiler
    starts: Any, terms: Any, features: Any, line_starts: Any, line_columns: Any, line_values: Any, columns: Ints,
    weights: Any, values: Any,
) -> None:  # fmt: skip
    """Fill `values` with what each feature adds to the score of its row's labels, `columns` (rows, heads)."""
    for row in range(starts.shape[0] - 1):
        for place in range(starts[row], starts[row + 1]):
            first, end = line_starts[terms[place]], line_starts[terms[place] + 1]
            for head in range(columns.shape[1]):
                low, high = first, end  # the columns of a line ascend
                while low < high:
                    middle = (low + high) // 2
                    if line_columns[middle] < columns[row, head]:
                        low = middle + 1
                    else:
                        high = middle
                if low < end and line_columns[low] == columns[row, head]:
                    values[place] += weights[head] * line_values[low] * features[place]


_compiled_values = compiled(_values)
