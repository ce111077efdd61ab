"""What repairs an arm's answers, as the params say."""

import pandas as pd

from tillmap.arms import llama, nearest, openai, rag
from tillmap.labels import LabelTree
from tillmap.params import Params
from tillmap.repair import Repairer

ASKED = {"rag": rag, "llama": llama, "openai": openai}  # the arms that ask a language model


def make_repairer(params: Params, arm: str, tree: LabelTree) -> Repairer:
    """The repairer of one arm's answers; `tree` holds the paths that the arm can know. Raises ModelError."""
    least = params.postprocess.min_similarity
    if arm not in ASKED:  # its answers are paths already, and need no model of meaning
        unseen = arm == "linear" and params.linear.unseen_paths
        return Repairer(tree, nearest.target_of(tree), unseen_brand=unseen, least_score=least)
    from tillmap.retrieval.embedding import Embedder

    chosen, meaning = getattr(params, arm), params.embedding
    embedder = Embedder(meaning.model, meaning.revision, meaning.batch_size) if params.postprocess.embed else None
    return Repairer(
        tree,
        ASKED[arm].target_of(chosen, tree),
        embed=embedder.encode if embedder else None,
        unseen_brand=chosen.unseen_brand,
        least_score=least,
    )


def known_paths(params: Params, arm: str, rows: pd.DataFrame, tree: LabelTree) -> LabelTree:
    """The paths an arm can know: `tree`, of the training part, or all labelled rows' where it was refitted on them."""
    refitted = arm == "linear" and params.linear.refit
    return LabelTree.from_rows(rows[rows["split"] == "train"]) if refitted else tree
