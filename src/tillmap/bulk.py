"""Labels a whole feed with one arm, in pieces kept outside the project, so that a killed run goes on where it was."""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tillmap import paths
from tillmap.feeds import Feed, Format, write_answers
from tillmap.journal import alone, run_key, state_folder
from tillmap.labelling import Drift, Labeller
from tillmap.storage import read_table, write_table

logger = logging.getLogger(__name__)

# Blocks of params.yaml that shape the answers of some arm.
_SHAPING = ("seed", "embedding", "retrieval", "nearest", "engine", "postprocess")


@dataclass(frozen=True)
class Summary:
    """What became of a feed: rows, how many were answered by an error's stand-in, and what speaks for the answers.

    `expected` is the accuracy that the confidences promise with its 95% interval, None where they are not calibrated;
    `drift` None where it is not known what training showed.
    """

    rows: int
    failed: int
    expected: tuple[float, float, float] | None
    drift: Drift | None


def label_feed(labeller: Labeller, feed: Feed, out: Path, format_: Format) -> Summary:
    """Label every row of a feed and write `out` in the same order; a run that was killed goes on.

    The whole feed is checked before the first row is labelled. Raises InputError for a bad row, ResourceError where
    another run is at work on the same feed, and what the arm itself raises.
    """
    rows = feed.check()
    run = state_folder() / "predict" / _key(labeller, feed)
    with alone(run):
        kept = sum(1 for _ in run.glob("*.parquet"))
        if kept:
            logger.info("predict: %d rows are there from an earlier run", min(rows, kept * labeller.rows_at_once))
        drift, numbers = Drift.from_file(paths.SEEN), True
        with tqdm(total=rows, desc=labeller.arm, unit="row", disable=None) as bar:
            for number, batch in enumerate(feed.batches(labeller.rows_at_once)):
                numbers = numbers and all(type(key) is int for key in batch["key"])
                piece = run / f"{number:06d}.parquet"
                if not piece.is_file():
                    answers = labeller.label(batch, first=number * labeller.rows_at_once)
                    write_table(answers.drop(columns="key"), piece)
                if drift is not None:
                    drift.add(batch)
                bar.update(len(batch))
        confidence, failed = 0.0, 0
        with write_answers(out, format_, feed.columns.id, numbers) as write:
            for number, batch in enumerate(feed.batches(labeller.rows_at_once)):
                answers = read_table(run / f"{number:06d}.parquet").assign(key=batch["key"].array)
                write(answers)
                confidence += float(answers["confidence"].sum())
                failed += int((answers["status"] != "ok").sum())
        shutil.rmtree(run)
    expected = None
    if labeller.confidence is not None:
        expected = labeller.confidence.expected_accuracy([confidence / rows])
    return Summary(rows, failed, expected, drift)


def _key(labeller: Labeller, feed: Feed) -> str:
    with feed.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    shaping = labeller.params.model_dump(include={*_SHAPING, labeller.arm})
    settings = {"arm": labeller.arm, "params": shaping, "columns": vars(feed.columns), "feed": digest.hexdigest()}
    return run_key(settings, labeller.files())
