"""Builds the retrievers' indexes of the training subset, and embeds all other texts."""

from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.stored import read_rows
from tillmap.core.writing import new_folder
from tillmap.retrieval.base import read_text
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder
from tillmap.retrieval.lexical import LexicalRetriever

PARAMS = ("embedding", "retrieval.sizes")


def main(params: Params) -> Metrics:
    rows = read_rows(paths.ROWS, ["id", "subset", "description"])
    training = rows[rows["subset"] == "train"]
    chosen, sizes = params.embedding, params.retrieval.sizes
    read = [read_text(description, sizes) for description in rows["description"]]
    asked = [text for text, subset in zip(read, rows["subset"], strict=True) if subset != "train"]
    embedder = Embedder(chosen.model, chosen.revision, chosen.batch_size)
    embedder.encode(read)  # all together, so that a text in both is embedded once
    ids, texts = training["id"].to_numpy(), training["description"].tolist()
    dense = DenseRetriever.build(ids, texts, embedder, chosen.flat_up_to, sizes=sizes)
    lexical = LexicalRetriever.build(ids, texts, sizes=sizes)
    with new_folder(paths.INDEX) as folder:
        dense.save(folder)
        lexical.save(folder)
        embedder.save_vectors(asked, folder)
    return {"rows": len(training), "texts": len(dense.texts.keys), "asked": len(asked), "dimension": embedder.dimension}


if __name__ == "__main__":
    run_stage(main, PARAMS)
