"""Labels a whole feed with one arm, batch by batch. Finished batches are saved, so that a killed run can resume."""

import hashlib
import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import orjson
import pandas as pd
from tqdm import tqdm

from tillmap.catalogue.reading import Format
from tillmap.core.errors import LostRowsError
from tillmap.core.files import read_table, write_table, write_text
from tillmap.core.inputs import watch
from tillmap.core.run_state import alone, run_key, state_folder
from tillmap.evaluation.promises import Threshold
from tillmap.serving.explanation import EXPLANATION
from tillmap.serving.feed import Feed
from tillmap.serving.formats import write_answers
from tillmap.serving.labeller import Labeller
from tillmap.splitting.drift import Drift

logger = logging.getLogger(__name__)

# Blocks of params.yaml that change the answers of some arm. A saved batch is used again only if they are the same.
_SHAPING = ("seed", "embedding", "retrieval", "engine", "postprocess")


@dataclass(frozen=True)
class Summary:
    """The result of labelling a feed.

    Attributes:
        rows: the number of rows.
        failed: rows that the arm did not answer, which got their neighbours' labels.
        expected: the expected accuracy with its 95% interval; None if the confidences are not calibrated.
        drift: how far the rows are from the training rows; None if models/seen.json is missing.
        reviewed: how many rows need a look; None if the review is off.
        threshold: the confidence from which answers keep their promised accuracy; None if there is no promise.
    """

    rows: int
    failed: int
    expected: tuple[float, float, float] | None
    drift: Drift | None
    reviewed: int | None = None
    threshold: Threshold | None = None

    @property
    def review(self) -> str:
        """How many rows need a look, and what is promised about the others, in one line; empty if the review is off."""
        if self.reviewed is None:
            return ""
        if self.threshold is None:
            return "needs review: all rows, because no accuracy is promised"
        if self.threshold.why:
            return f"needs review: all rows, because {self.threshold.why}"
        return (
            f"needs review: {self.reviewed:,} of {self.rows:,} rows, those with a confidence below "
            f"{self.threshold.value:.3f}; of the others at least {self.threshold.target:.0%} are right, with a "
            f"probability of {self.threshold.probability:.0%}, if they are like the calibration rows"
        )

    def __str__(self) -> str:
        """The drift and the expected accuracy, in one line."""
        drift = str(self.drift) if self.drift else "not known (`dvc pull models/seen.json`)"
        if self.expected is None:
            return f"drift: {drift}; expected accuracy: not known, because the confidences are not calibrated"
        mean, low, high = self.expected
        return f"drift: {drift}; expected accuracy {mean:.3f} (95% interval {low:.3f} to {high:.3f})"


def label_feed(labeller: Labeller, feed: Feed, out: Path, format_: Format, explain: int = 0) -> Summary:
    """Label every row of a feed and write them to `out`, in the same order. A killed run resumes with the next batch.

    The whole feed is checked before the first row is labelled, and `out` is written after the last one. The feed is
    read several times, so a change of its file in between is an error.

    Args:
        labeller: labels the rows.
        feed: the rows.
        out: the file to write; an existing one is replaced.
        format_: the format of `out`.
        explain: see `Labeller.label`.

    Raises InputError for a bad row or a feed that changes, ResourceError if another process labels the same feed or
    writes the same file, LostRowsError if a row would be missing, and what the arm raises.
    """
    unchanged = watch(feed.file.path)
    checked, size = feed.check(), labeller.rows_at_once
    threshold = labeller.promise(checked.rows)
    run = state_folder() / "predict" / _key(labeller, feed, explain)
    with alone(run):
        kept = sum(1 for _ in run.glob("[0-9]*.sha256"))
        if kept:
            logger.info("%d of %d rows were labelled by an earlier run", min(checked.rows, kept * size), checked.rows)
        drift = Drift(labeller.seen) if labeller.seen else None
        with tqdm(total=checked.rows, desc=labeller.arm, unit="row", disable=None) as bar:
            for number, batch in enumerate(feed.batches(size)):
                unchanged()  # else the answers of other rows would be saved as those of this feed
                piece = run / f"{number:06d}.parquet"
                if not _is_whole(piece):
                    answers = labeller.label(batch, first=number * size, explain=explain).drop(columns="key")
                    _require_all(answers, batch, labeller.arm)
                    for name in EXPLANATION if explain else ():
                        answers[name] = answers[name].map(orjson.dumps).map(bytes.decode).astype("str")
                    write_table(answers, piece)
                    write_text(_digest_of(piece), _sum_of(piece))
                if drift is not None:
                    drift.add(batch)
                bar.update(len(batch))
        confidence, failed, reviewed = 0.0, 0, 0
        wanted = labeller.params.review.target_accuracy is not None
        # Confidences are rounded, too: one that equals the threshold must not fall below it.
        lowest = round(threshold.value, 6) if threshold else math.inf
        levels, codes = labeller.tree.levels, bool(labeller.tree.codes)
        with write_answers(
            out,
            format_,
            feed.id_name,
            rows=checked.rows,
            numbers=checked.numbers,
            levels=levels,
            codes=codes,
            reviewed=wanted,
            explained=explain > 0,
        ) as write:
            for number, batch in enumerate(feed.batches(size)):
                unchanged()
                answers = read_table(run / f"{number:06d}.parquet")
                _require_all(answers, batch, f"{run}: delete this folder; it")
                look = answers["confidence"] < lowest
                write(answers.assign(key=batch["key"].array, needs_review=look))
                reviewed += int(look.sum())
                confidence += float(answers["confidence"].sum())
                failed += int((answers["status"] != "ok").sum())
            unchanged()
        shutil.rmtree(run)
    model = labeller.confidence
    expected = model.expected_accuracy([confidence / checked.rows]) if model else None
    return Summary(checked.rows, failed, expected, drift, reviewed if wanted else None, threshold)


def _is_whole(piece: Path) -> bool:
    """Whether a batch was saved, and is still what was saved. Says so if it is not."""
    if not piece.is_file() or not _sum_of(piece).is_file():
        return False
    whole = _sum_of(piece).read_bytes() == _digest_of(piece).encode()
    if not whole:
        logger.warning("%s: damaged, so its rows are labelled again", piece)
    return whole


def _sum_of(piece: Path) -> Path:
    return piece.with_suffix(".sha256")


def _digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _require_all(answers: pd.DataFrame, batch: pd.DataFrame, what: str) -> None:
    """Raise LostRowsError unless each row of a batch has one answer."""
    if len(answers) != len(batch):
        raise LostRowsError(f"{what} gave {len(answers):,} answers to {len(batch):,} rows; nothing was written")


def _key(labeller: Labeller, feed: Feed, explain: int) -> str:
    """A hash of everything that the labels depend on."""
    digest = hashlib.sha256()
    for part in feed.file.parts():
        digest.update(bytes.fromhex(_digest_of(part.path)) + repr(part.fixed or "").encode())
    settings = {
        "arm": labeller.arm,
        "params": labeller.params.model_dump(include={*_SHAPING, *labeller.free, labeller.arm}),
        "neighbours_vote": labeller.params.neighbours_vote.model_dump(),
        "confidence": labeller.confidence and vars(labeller.confidence),
        "reading": feed.reading,
        "feed": digest.hexdigest(),
        **({"explain": explain} if explain else {}),
    }
    return run_key(settings, labeller.files(explain=explain > 0))
