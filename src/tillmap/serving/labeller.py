"""Labels new rows with a trained arm: answers, repair and confidence, from that arm's own files alone."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tillmap.arms import ARMS
from tillmap.arms.base import Arm, Need
from tillmap.arms.context import JOB, Context
from tillmap.arms.rules import AnswerRules
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.errors import InputError
from tillmap.core.files import OFF, read_json, read_table
from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.postprocessing.calibration import CandidateScores, Confidence, candidate_scores, make_signals
from tillmap.postprocessing.predictions import ALONE, TOGETHER, make_repairer, predict
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval.base import Retriever
from tillmap.retrieval.filters import Filters
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table
from tillmap.retrieval.vote import vote, votes_by_key
from tillmap.splitting.drift import Seen

logger = logging.getLogger(__name__)

Judges = Literal["own", "all"]

_AT_ONCE = 8192  # rows that a free arm labels at a time; a multiple of what its model and index take at once
_ALL = 10_000_000  # a model's rows go together: it is loaded once, and a budget is for all of them
_SPLIT = "test"  # new rows are asked about as test rows are
_KNOWN = ["id", "subset", "split", "description", "retailer", "price", *LEVELS]


def files_of(arm: str) -> list[Path]:
    """What an arm's answers follow from, beside params.yaml."""
    places: dict[Need, Path] = {
        "rows": paths.SPLIT,
        "index": paths.INDEX,
        "base": paths.BASE / arm,
        "model": paths.MODELS / arm,
    }
    return [places[need] for need in ARMS[arm].reads]


class Neighbours:
    """Finds the neighbours of new rows among the training rows; an index is read when it is first needed."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def __call__(self, rows: pd.DataFrame, retriever: str) -> pd.DataFrame:
        """The neighbours table of some rows, as the `retrieve` stage makes it."""
        chosen = self._params.retrieval
        filters = Filters(chosen.same_retailer, chosen.price_ratio, chosen.min_kept)
        names = ("dense", "lexical") if retriever == "hybrid" else (retriever,)
        tables = [
            neighbours_table(self._retriever(name), self.training, rows, chosen.k, filters=filters) for name in names
        ]
        return fuse(tables, chosen.hybrid_weights, chosen.k) if len(tables) > 1 else tables[0]

    def votes(self, rows: pd.DataFrame) -> Mapping[tuple[str, int], Any]:
        """What the neighbours of each row would answer, ranked: for rows whose own answer says nothing."""
        voting = self._params.neighbours_vote
        found = self(rows, voting.retriever)
        return votes_by_key(vote(found, self.training, rows[["split", "id"]], voting.k, voting.power))

    @cached_property
    def training(self) -> pd.DataFrame:
        rows = read_table(paths.ROWS, _KNOWN)
        return rows[rows["subset"] == "train"]

    def _retriever(self, name: str) -> Retriever:
        return self._dense if name == "dense" else self._lexical

    @cached_property
    def _lexical(self) -> Retriever:
        return LexicalRetriever.load(paths.INDEX)

    @cached_property
    def _dense(self) -> Retriever:
        from tillmap.retrieval.dense import DenseRetriever
        from tillmap.retrieval.embedding import Embedder

        meaning = self._params.embedding
        return DenseRetriever.load(paths.INDEX, Embedder(meaning.model, meaning.revision, meaning.batch_size))


@dataclass(frozen=True)
class Labeller:
    """One trained arm. Make it with `open_arm`.

    Attributes:
        arm: the arm's name.
        params: all of params.yaml.
        confidence: the model of its confidences; None where the arm's own is not calibrated.
    """

    arm: str
    params: Params
    confidence: Confidence | None
    neighbours: Neighbours
    _contexts: dict[str, Context] = field(default_factory=dict)

    @property
    def rows_at_once(self) -> int:
        """How many rows `label` is best given: free arms take them in pieces, a language model all at once."""
        return _AT_ONCE if self._own.free else _ALL

    @property
    def free(self) -> tuple[str, ...]:
        """The free arms that are asked about the answers, too."""
        return self.confidence.free if self.confidence else ()

    @cached_property
    def seen(self) -> Seen | None:
        """What training showed; None where its file is not here."""
        return Seen.from_json(read_json(paths.SEEN)) if paths.SEEN.is_file() else None

    @cached_property
    def tree(self) -> LabelTree:
        """The label paths that the arm may answer with."""
        return self._own.known_paths(self._context(self.arm))

    def files(self) -> list[Path]:
        """The files that the answers follow from."""
        needed = [*files_of(self.arm), *(path for arm in self.free for path in files_of(arm))]
        return [file for path in dict.fromkeys(needed) for file in path.rglob("*") if file.is_file()]

    def label(self, rows: pd.DataFrame, first: int = 0) -> pd.DataFrame:
        """Answer a table of `Feed.batches`, whose first row is row `first` of the whole feed.

        Gives key, the four labels, confidence (calibrated where the arm's is), repair, in_tree, source and status, in
        order. The same rows give the same answers.
        """
        items = rows.drop(columns="key").assign(split=_SPLIT, subset=_SPLIT, id=range(first, first + len(rows)))
        items = items.reset_index(drop=True)
        completions = self._ask(self.arm, items)
        votes = {} if self._own.free else self.neighbours.votes(items)
        answers = predict(completions, self._repairer, votes, self.arm)
        if self.confidence is not None:
            training = self._own.training_paths(self._context(self.arm))
            signals = make_signals(completions, answers, items, self._free_scores(items), training)
            answers["confidence"] = self.confidence.of(signals)
        answers["confidence"] = answers["confidence"].round(6)
        return answers.drop(columns=["split", "id"]).assign(key=rows["key"].array)

    @property
    def _own(self) -> Arm:
        return ARMS[self.arm]

    def _ask(self, arm: str, items: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
        return [answer.as_record() for answer in ARMS[arm].answer(self._context(arm), items)]

    def _free_scores(self, items: pd.DataFrame) -> dict[str, CandidateScores]:
        """What the free arms say of new rows."""
        return {arm: candidate_scores(self._ask(arm, items)) for arm in self.free}

    def _context(self, arm: str) -> Context:
        """The same context for every batch, so that a model is loaded once."""
        if arm not in self._contexts:
            self._contexts[arm] = Context(
                arm=arm,
                settings=self.params.block(arm),
                seed=self.params.seed,
                model=paths.MODELS / arm,
                base=paths.BASE / arm,
                rows_file=paths.ROWS,
                tree_file=paths.TREE,
                neighbours=self.neighbours,
                engine=self.params.engine,
                provider=self.params.provider,
            )
        return self._contexts[arm]

    @cached_property
    def _repairer(self) -> Repairer:
        context = self._context(self.arm)
        rules = AnswerRules.of_arm(self._own, context)
        training = self._own.training_paths(context)
        return make_repairer(rules, training, self.params.postprocess, self.params.embedding)


def missing_files(arm: str, root: Path = Path()) -> list[Path]:
    """What an arm needs to label new rows and `root` lacks, as `dvc pull` takes it; its confidence comes last."""
    return [path for path in (*files_of(arm), paths.SEEN, _confidence_of(arm)) if not (root / path).exists()]


def open_arm(arm: str, params: Params, judges: Judges | None = None) -> Labeller:
    """Check that a trained arm's files are here, and read those of its confidence.

    `judges` says what a confidence is computed from: the arm's `own` answer, or `all` free arms besides, which is
    slower and needs their files. None: all for an arm that asks a language model, where these files are here; own for
    others.

    Raises InputError that says which files are missing and what brings them, or that the arm was switched off; and
    ModelError where a file is damaged.
    """
    if arm not in ARMS:
        raise InputError(
            f"the {arm} arm is made of others and labels in the pipeline alone; name one of {', '.join(ARMS)}"
        )
    needed = files_of(arm)
    _require(arm, needed)
    off = [str(path) for path in needed if _is_off(path)]
    if off:
        raise InputError(
            f"{', '.join(off)}: the {arm} arm was switched off when this was made; switch it on in params.yaml "
            f"(`run.{arm}: true`) and run `dvc repro`"
        )
    labeller = Labeller(arm, params, _open_confidence(arm, judges), Neighbours(params))
    ARMS[arm].check(labeller._context(arm))
    return labeller


def _open_confidence(arm: str, judges: Judges | None) -> Confidence | None:
    folder = _confidence_of(arm)
    if not folder.is_dir():
        logger.warning("%s is not here, so confidences are not calibrated: `dvc pull %s` brings it", folder, folder)
        return None
    if (folder / OFF).is_file():
        logger.warning("%s: the arm answered no row of the calibration subset: confidences are not calibrated", folder)
        return None
    alone, together = (Confidence.load(folder / f"{name}.json") for name in (ALONE, TOGETHER))
    missing = [file for free in together.free for file in files_of(free) if not file.exists()]
    if (judges or ("own" if ARMS[arm].free else "all")) == "all":
        if not missing:
            return together
        if judges == "all":
            _require(f"{arm} arm's confidence with the {' and '.join(together.free)}", missing)
        said = " ".join(map(str, missing))
        logger.warning("confidences go by the answers of %s alone: %s is not here (`dvc pull %s`)", arm, said, said)
    return alone


def _require(arm: str, needed: Iterable[Path]) -> None:
    missing = " ".join(str(path) for path in needed if not path.exists())
    if missing:
        raise InputError(
            f"the {arm} arm needs {missing}, not here; `dvc pull {missing}` brings what was pushed to the remote, "
            "`dvc repro` makes it"
        )


def _is_off(path: Path) -> bool:
    job = path / JOB
    return (path / OFF).is_file() or (job.is_file() and bool(read_json(job).get("off")))


def _confidence_of(arm: str) -> Path:
    return paths.CONFIDENCE / arm
