"""Finds the neighbours of all rows outside the training subset, with each retriever and with both combined."""

from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import write_table
from tillmap.core.stored import read_rows
from tillmap.core.writing import new_folder
from tillmap.retrieval import RETRIEVERS
from tillmap.retrieval.cross_encoder import CrossScorer
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder
from tillmap.retrieval.filters import Filters
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table

PARAMS = ("embedding", "retrieval")


def main(params: Params) -> Metrics:
    rows = read_rows(paths.ROWS, ["split", "id", "subset", "description", "retailer", "price"])
    training, asked = rows[rows["subset"] == "train"], rows[rows["subset"] != "train"]
    embedder = Embedder(params.embedding.model, params.embedding.revision, params.embedding.batch_size)
    embedder.load_vectors(paths.INDEX)
    chosen = params.retrieval
    filters = Filters(chosen.same_retailer, chosen.price_ratio, chosen.min_kept)
    retrievers = {"dense": DenseRetriever.load(paths.INDEX, embedder), "lexical": LexicalRetriever.load(paths.INDEX)}
    tables = {
        name: neighbours_table(retriever, training, asked, chosen.k, filters=filters)
        for name, retriever in retrievers.items()
    }
    tables["hybrid"] = fuse([tables["dense"], tables["lexical"]], chosen.hybrid_weights, chosen.k)
    if chosen.cross_encoder:
        scorer = CrossScorer(chosen.cross_encoder, chosen.cross_encoder_revision, params.embedding.batch_size)
        tables["hybrid"] = scorer.reorder(tables["hybrid"], training, asked)
    with new_folder(paths.NEIGHBOURS) as folder:
        for name in RETRIEVERS:
            write_table(tables[name], folder / f"{name}.parquet")
    return {"asked": len(asked)} | {f"{name}_found": len(tables[name]) for name in RETRIEVERS}


if __name__ == "__main__":
    run_stage(main, PARAMS)
