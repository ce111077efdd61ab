"""Every answer becomes a label path; what it took is written beside it."""

from typing import Any

import pandas as pd
import paths
from runner import Metrics, run_arm

from tillmap.arms import llama, nearest, openai, rag
from tillmap.labels import LEVELS, LabelPath, LabelTree
from tillmap.params import Params
from tillmap.predictions import no_predictions, predict
from tillmap.repair import Repairer
from tillmap.retrieval.embedding import Embedder
from tillmap.storage import read_jsonl, read_table, write_table

Key = tuple[str, int]
Completions = list[dict[str, Any]]

ASKED = {"rag": rag, "llama": llama, "openai": openai}
PARAMS = ("run.{arm}", "{arm}", "nearest", "embedding", "postprocess")


def main(params: Params, arm: str) -> Metrics:
    tree = LabelTree.from_table(read_table(paths.TREE))
    chosen = getattr(params, arm)
    target = nearest.target_of(tree) if arm == "nearest" else ASKED[arm].target_of(chosen, tree)
    unseen_brand = arm != "nearest" and chosen.unseen_brand
    meaning = params.embedding
    embedder = Embedder(meaning.model, meaning.revision, meaning.batch_size) if params.postprocess.embed else None
    repairer = Repairer(
        tree,
        target,
        embed=embedder.encode if embedder else None,
        unseen_brand=unseen_brand,
        least_score=params.postprocess.min_similarity,
    )
    completions = list(read_jsonl(paths.COMPLETIONS / f"{arm}.jsonl"))
    predictions = predict(completions, repairer, neighbours_votes(params, completions), arm)
    write_table(predictions, paths.PREDICTIONS / f"{arm}.parquet")
    return {
        "rows": len(predictions),
        "repair": {str(kind): int(rows) for kind, rows in predictions["repair"].value_counts().items()},
        "out_of_tree": int((~predictions["in_tree"]).sum()),
    }


def neighbours_votes(params: Params, completions: Completions) -> dict[Key, list[tuple[LabelPath, float]]]:
    """What each row's neighbours would answer, for the rows whose own answer says nothing."""
    rows = read_table(paths.ROWS, ["id", "part", *LEVELS])
    neighbours = read_table(paths.NEIGHBOURS / f"{params.nearest.retriever}.parquet")
    asked = pd.DataFrame({name: [answer[name] for answer in completions] for name in ("split", "id")})
    training = rows[rows["part"] == "train"]
    return nearest.votes_by_key(nearest.vote(neighbours, training, asked, params.nearest.k, params.nearest.power))


def write_off(arm: str) -> None:
    write_table(no_predictions(), paths.PREDICTIONS / f"{arm}.parquet")


if __name__ == "__main__":
    run_arm(main, PARAMS, write_off)
