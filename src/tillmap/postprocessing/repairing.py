"""What repairs an arm's answers, as the params say."""

import pandas as pd

from tillmap.arms import llama, nearest, openai, rag
from tillmap.config.params import Params
from tillmap.core.taxonomy import LabelTree
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.embedding import Embedder

HAVE_LINEAR = ("linear", "cascade", "vote")  # whose answers may be linear's
ASKED = {"rag": rag, "llama": llama, "openai": openai}


def make_repairer(params: Params, arm: str, tree: LabelTree) -> Repairer:
    """The repairer of one arm's answers; `tree` holds the paths that the arm can know."""
    chosen, meaning = getattr(params, arm), params.embedding
    if arm in ASKED:
        target, unseen = ASKED[arm].answer_format_of(chosen, tree), chosen.unseen_brand
    else:
        target, unseen = nearest.answer_format_of(tree), arm == "linear" and chosen.unseen_paths
    # The other arms answer with paths, and need no model of meaning.
    by_meaning = arm in ASKED and params.postprocess.repair and params.postprocess.embed
    embedder = Embedder(meaning.model, meaning.revision, meaning.batch_size) if by_meaning else None
    return Repairer(
        tree,
        target,
        embed=embedder.encode if embedder else None,
        unseen_brand=unseen,
        min_score=params.postprocess.min_similarity,
        exact_only=not params.postprocess.repair,
    )


def known_paths(params: Params, arm: str, rows: pd.DataFrame) -> LabelTree:
    """The paths an arm can know: of the training subset, or of all labelled rows where it was refitted on them."""
    labelled = rows[rows["split"] == "train"]
    refitted = arm in HAVE_LINEAR and len(labelled) <= params.linear.refit_up_to
    return LabelTree.from_rows(labelled if refitted else rows[rows["subset"] == "train"])
