"""The `rag` arm: an untuned language model that sees the retrieved neighbours of each row with their labels."""

from collections.abc import Iterator

import pandas as pd

from tillmap.engines import Question
from tillmap.labels import LEVELS, LabelPath, LabelTree
from tillmap.params import Rag
from tillmap.prompting import SEED_RAG, Example, Item, Renderer, our_rag
from tillmap.targets import Target, make_target


def target_of(params: Rag, tree: LabelTree) -> Target:
    """The form of the arm's answers; the seed's recipe has its own."""
    return make_target("json" if params.recipe == "seed" else params.target, tree)


def write_questions(
    asked: pd.DataFrame, training: pd.DataFrame, neighbours: pd.DataFrame, tree: LabelTree, params: Rag
) -> Iterator[Question]:
    """One question for each row of `asked`, in order, with the nearest of its neighbours as examples.

    `asked` and `training` are rows tables, `neighbours` a neighbours table that covers `asked`. Neighbours that read
    and are labelled alike are shown once. With `constrain: retrieved` a question allows only the answers that stand for
    some neighbour's path, and any text where a row has no neighbours.
    """
    recipe = SEED_RAG if params.recipe == "seed" else our_rag(params.show_retailer, params.show_price)
    target = target_of(params, tree)
    renderer = Renderer(recipe, target)
    items = ["description", "retailer", "price"]
    known = {
        row_id: Example(_item(*shown), LabelPath(*path))
        for row_id, *shown, path in zip(
            training["id"],
            *(training[name] for name in items),
            training[list(LEVELS)].itertuples(index=False, name=None),
            strict=True,
        )
    }
    nearest: dict[tuple[str, int], list[int]] = {}
    for split, row_id, neighbour in neighbours.sort_values("rank", kind="stable")[
        ["split", "id", "neighbour"]
    ].itertuples(index=False, name=None):
        nearest.setdefault((split, row_id), []).append(neighbour)
    for split, row_id, *shown in asked[["split", "id", *items]].itertuples(index=False, name=None):
        distinct: dict[tuple[str, LabelPath], Example] = {}
        for neighbour in nearest.get((split, row_id), []):
            example = known[neighbour]
            distinct.setdefault((example.item.description, example.path), example)
        examples = list(distinct.values())
        found = dict.fromkeys(target.encode(example.path) for example in examples)
        yield Question(
            split,
            row_id,
            renderer.question(_item(*shown), examples[: params.examples]),
            list(found) if params.constrain == "retrieved" and found else None,
        )


def _item(description: str, retailer: str, price: float) -> Item:
    return Item(description, retailer, None if pd.isna(price) else float(price))
