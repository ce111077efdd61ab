"""Lists the label paths to choose a row's answer from: those that the best free arm ranks, each with a row like it."""

from stages.answers import completions_of
from stages.context import neighbours
from tillmap.arms import ARMS, proposer
from tillmap.cli.stages import Metrics, run_stage
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.files import OUT_OF_FOLD, read_table, write_table
from tillmap.core.stored import read_paths, read_rows
from tillmap.core.taxonomy import KEY, LabelTree
from tillmap.core.writing import new_folder
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.retrieval import PATHS, TRAINING_PATHS
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.paths import NO_ROW, PathRows, candidate_paths

PARAMS = tuple(f"run.{name}" for name, arm in ARMS.items() if arm.proposes)


def main(params: Params) -> Metrics:
    rows, levels = read_rows(paths.ROWS), LabelTree.from_table(read_table(paths.TREE)).levels
    training, asked = rows[rows["subset"] == "train"], rows[rows["subset"] != "train"]
    arm = proposer([name for name in ARMS if ARMS[name].proposes and params.is_on(name)])
    ranked = candidate_scores(completions_of(arm)) if arm else {}
    shown = PathRows(training, levels, LexicalRetriever.load(paths.INDEX))
    table = candidate_paths(ranked, neighbours("lexical"), asked, training=training, levels=levels, rows=shown)
    with new_folder(paths.CANDIDATES) as folder:
        write_table(table, folder / f"{PATHS}.parquet")
        out_of_fold = paths.MODELS / str(arm) / OUT_OF_FOLD
        of_training = read_paths(out_of_fold, levels) if out_of_fold.is_file() else table.head(0)
        write_table(of_training.assign(neighbour=NO_ROW), folder / f"{TRAINING_PATHS}.parquet")
    return {
        "of": arm or "neighbours",
        "rows": len(asked),
        "paths": len(table),
        "without_row": int((table["neighbour"] == NO_ROW).sum()),
        "training_rows": len(of_training[KEY].drop_duplicates()),
    }


if __name__ == "__main__":
    run_stage(main, PARAMS)
