"""Labels new rows with a trained arm: answers, repair and confidence, from that arm's own files alone."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tillmap.arms import ARMS, proposer
from tillmap.arms.base import Arm, Need
from tillmap.arms.context import JOB, Context
from tillmap.arms.rules import AnswerRules
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.errors import InputError
from tillmap.core.files import OFF, of_this_version, read_as, read_json
from tillmap.core.stored import read_held_out
from tillmap.core.taxonomy import KEY, LabelTree
from tillmap.evaluation.promises import Threshold, promise
from tillmap.postprocessing.calibration import CandidateScores, Confidence, candidate_scores, make_signals
from tillmap.postprocessing.predictions import ALONE, HELD_OUT, TOGETHER, make_repairer, predict
from tillmap.postprocessing.repair import Repairer
from tillmap.retrieval import PATHS
from tillmap.serving.explanation import EXPLANATION, Entries, candidates_of, neighbours_of, words_of
from tillmap.serving.neighbours import NeighbourFinder
from tillmap.splitting.drift import Seen

logger = logging.getLogger(__name__)

# What a confidence is computed from: the arm's own answer alone, or the free arms' answers, too.
ConfidenceSource = Literal["own", "all"]

_FREE_ARM_ROWS = 8192  # per call of a free arm; a multiple of the batches of its model and its index
_ALL_ROWS = 10_000_000  # a language model gets all rows in one call: it is loaded once, and a budget is for all rows
_SPLIT = "test"  # new rows are handled like test rows
_OF_NEIGHBOURS = (paths.SPLIT, paths.INDEX)


def files_of(arm: str, params: Params) -> list[Path]:
    """The files and folders that an arm reads to label new rows, beside params.yaml.

    For an arm that chooses among another's paths, those of the other arm are among them.
    """
    chooser = proposer_for(arm, params)
    others = files_of(chooser, params) if chooser else []
    places: dict[Need, Path] = {
        "rows": paths.SPLIT,
        "index": paths.INDEX,
        "base": paths.BASE / arm,
        "model": paths.MODELS / arm,
        "fits": paths.LINEAR,
    }
    return list(dict.fromkeys([*(places[need] for need in ARMS[arm].reads), *others]))


def proposer_for(arm: str, params: Params) -> str | None:
    """The arm whose paths an arm chooses from; None if it finds its own answers."""
    asks = getattr(params.block(arm), "retriever", None) == PATHS
    return proposer(params.run.on) if asks else None


@dataclass(frozen=True)
class Labeller:
    """Labels rows with one trained arm. Make it with `open_arm`.

    Attributes:
        arm: the arm's name.
        params: all of params.yaml.
        confidence: computes the calibrated confidences; None if there is no such model, and the arm's own are used.
        neighbours: finds the neighbours of new rows.
    """

    arm: str
    params: Params
    confidence: Confidence | None
    neighbours: NeighbourFinder
    _contexts: dict[str, Context] = field(default_factory=dict)
    _answered: dict[str, tuple[pd.DataFrame, list[dict[str, Any]]]] = field(default_factory=dict)

    @property
    def rows_at_once(self) -> int:
        """How many rows to give to one call of `label`."""
        return _FREE_ARM_ROWS if self._own.free else _ALL_ROWS

    @property
    def free(self) -> tuple[str, ...]:
        """The free arms that also answer every row, because the confidences are computed from their answers."""
        return self.confidence.free if self.confidence else ()

    @cached_property
    def seen(self) -> Seen | None:
        """The retailers and words of the training rows; None if their file is missing."""
        if not paths.SEEN.is_file():
            return None
        return read_as(Seen, paths.SEEN, read_json(paths.SEEN))

    def promise(self, new_rows: int) -> Threshold | None:
        """The lowest confidence from which answers keep `review.target_accuracy`, see `evaluation.promises`.

        It is chosen for so many new rows, on those of the calibration subset. It is infinite, and its `why` says so, if
        none can be promised. None if the review is off, or, with a warning, if the confidences are not calibrated or
        were fitted by an earlier version. Raises InputError if a file is damaged.
        """
        target, file = self.params.review.target_accuracy, _confidence_of(self.arm) / HELD_OUT
        if target is None or self.confidence is None:
            return None
        if not file.is_file():
            logger.warning("%s is missing, so no accuracy is promised; `dvc repro postprocess` writes it", file)
            return None
        name = TOGETHER if self.free else ALONE
        known = read_held_out(file, name)
        return promise(
            known[name], known["right"], target, self.params.evaluate.promise,
            new_rows=new_rows, product=known["product"],
        )  # fmt: skip

    @cached_property
    def tree(self) -> LabelTree:
        """The label paths that the arm may answer with."""
        return self._own.known_paths(self._context(self.arm))

    @cached_property
    def knows_rows(self) -> bool:
        """Whether the labelled rows and their index are here, so that an explanation can name the nearest."""
        missing = " ".join(str(path) for path in _OF_NEIGHBOURS if not path.exists())
        if missing:
            logger.warning(
                "explanations name no nearest rows, because %s is missing; `dvc pull %s` fetches it", missing, missing
            )
        return not missing

    def files(self, *, explain: bool = False) -> list[Path]:
        """Every file that the answers, and if wanted their explanations, depend on, beside params.yaml."""
        needed = [path for arm in (self.arm, *self.free) for path in files_of(arm, self.params)]
        needed += _OF_NEIGHBOURS if explain and self.knows_rows else ()
        return [file for path in dict.fromkeys(needed) for file in path.rglob("*") if file.is_file()]

    def label(self, rows: pd.DataFrame, first: int = 0, explain: int = 0) -> pd.DataFrame:
        """Label the rows of one batch. The same rows always get the same answers.

        Args:
            rows: a table of `Feed.batches`: key, description, retailer and price.
            first: the number of the batch's first row in the whole feed, from 0.
            explain: how many candidates, nearest labelled rows and words explain an answer, 10 at most; 0: none.

        Returns one row per input row, in order: key, the levels, `code` (the user's own code of the path, "" if it has
        none) if the tree has codes, confidence, repair, in_tree, source and status. With `explain` also the lists of
        `explanation`: candidates, neighbours (by spelling; empty if the labelled rows are not here) and words (empty if
        the arm has no score for them).
        Raises what the arm raises: InputError, ModelError, ParamsError, ProviderError or ResourceError.
        """
        items = rows.drop(columns="key").assign(split=_SPLIT, subset=_SPLIT, id=range(first, first + len(rows)))
        items = items.reset_index(drop=True)
        completions = self._ask(self.arm, items)
        # The answers of free arms are always label paths, so none has to be replaced.
        votes = {} if self._own.free else self.neighbours.votes(items)
        answers = predict(completions, self._repairer, votes, self.arm)
        if self.confidence is not None:
            training = self._own.training_paths(self._context(self.arm))
            signals = make_signals(completions, answers, items, self._free_scores(items), training)
            answers["confidence"] = self.confidence.of(signals)
        answers["confidence"] = answers["confidence"].round(6)
        if self.tree.codes:
            answers["code"] = pd.Series(map(self.tree.code_of, self.tree.levels.paths(answers)), dtype="str")
        if explain:
            for name, entries in self._explain(items, completions, answers, explain).items():
                answers[name] = pd.Series(entries, index=answers.index, dtype=object)
        return answers.drop(columns=KEY).assign(key=rows["key"].array)

    def _explain(
        self, items: pd.DataFrame, completions: Sequence[Mapping[str, Any]], answers: pd.DataFrame, k: int
    ) -> dict[str, list[Entries]]:
        levels = self.tree.levels
        none: list[Entries] = [[] for _ in range(len(items))]
        words = self._own.words(self._context(self.arm), items, levels.paths(answers))
        near = self.neighbours(items, "lexical", k) if self.knows_rows else None
        found = (
            candidates_of(completions, answers, levels, k),
            none if near is None else neighbours_of(near, self.neighbours.labelled, items, levels, k),
            none if words is None else words_of(words, k),
        )
        return dict(zip(EXPLANATION, found, strict=True))

    @property
    def _own(self) -> Arm:
        return ARMS[self.arm]

    def _ask(self, arm: str, items: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
        # A free arm may be asked twice about a batch: for the paths to choose from, and for the confidence.
        asked, answers = self._answered.get(arm, (None, []))
        if asked is not items:
            answers = [answer.as_record() for answer in ARMS[arm].answer(self._context(arm), items)]
            self._answered[arm] = items, answers
        return answers

    def _find(self, rows: pd.DataFrame, retriever: str) -> pd.DataFrame:
        """A neighbours table for some rows, or for `paths` the table of their candidate paths."""
        if retriever != PATHS:
            return self.neighbours(rows, retriever)
        arm = proposer(self.params.run.on)
        ranked = candidate_scores(self._ask(arm, rows)) if arm else {}
        return self.neighbours.candidates(rows, ranked)

    def _free_scores(self, items: pd.DataFrame) -> dict[str, CandidateScores]:
        """The free arms' candidates for new rows."""
        return {arm: candidate_scores(self._ask(arm, items)) for arm in self.free}

    def _context(self, arm: str) -> Context:
        # The same context for every batch, so that a model is loaded once.
        if arm not in self._contexts:
            self._contexts[arm] = Context(
                arm=arm,
                settings=self.params.block(arm),
                seed=self.params.seed,
                model=paths.MODELS / arm,
                base=paths.BASE / arm,
                linear=paths.LINEAR,
                rows_file=paths.ROWS,
                tree_file=paths.TREE,
                neighbours=self._find,
                engine=self.params.engine,
                provider=self.params.provider,
                about_file=paths.ABOUT if paths.ABOUT.is_file() else None,
            )
        return self._contexts[arm]

    @cached_property
    def _repairer(self) -> Repairer:
        context = self._context(self.arm)
        rules = AnswerRules.of_arm(self._own, context)
        training = self._own.training_paths(context)
        return make_repairer(rules, training, self.params.postprocess, self.params.embedding)


def missing_files(arm: str, params: Params, root: Path = Path()) -> list[Path]:
    """The paths missing below `root` that an arm reads to label new rows, as arguments for `dvc pull`."""
    return [path for path in (*files_of(arm, params), paths.SEEN, _confidence_of(arm)) if not (root / path).exists()]


def open_arm(arm: str, params: Params, confidence_from: ConfidenceSource | None = None) -> Labeller:
    """Check that a trained arm's files are here, and load the model of its confidences.

    Args:
        arm: the arm's name.
        params: all of params.yaml.
        confidence_from: `own` computes confidences from the arm's answer alone. `all` also asks the free arms, which is
            slower and needs their files. None is `own` for a free arm; for the others it is `all` if the files of the
            free arms are here, else `own`.

    Raises InputError if files are missing (the message names the `dvc pull` that fetches them), if they were made while
    the arm was off, or if the arm is made of other arms; ModelError if a file is damaged.
    """
    if arm not in ARMS:
        raise InputError(
            f"the {arm} arm combines other arms and labels only in the pipeline; choose one of {', '.join(ARMS)}"
        )
    needed = files_of(arm, params)
    _require(f"the {arm} arm", needed)
    off = [str(path) for path in needed if _is_off(path)]
    if off:
        raise InputError(
            f"{', '.join(off)}: made while the {arm} arm was off; set `run.{arm}: true` in params.yaml and run "
            "`dvc repro`"
        )
    labeller = Labeller(arm, params, _open_confidence(arm, params, confidence_from), NeighbourFinder(params))
    ARMS[arm].check(labeller._context(arm))
    return labeller


def _open_confidence(arm: str, params: Params, source: ConfidenceSource | None) -> Confidence | None:
    folder = _confidence_of(arm)
    if not folder.is_dir():
        logger.warning("%s is missing, so confidences are not calibrated; `dvc pull %s` fetches it", folder, folder)
        return None
    if (folder / OFF).is_file():
        logger.warning("confidences are not calibrated: the %s arm answered no row of the calibration subset", arm)
        return None
    alone, together = (Confidence.load(folder / f"{name}.json") for name in (ALONE, TOGETHER))
    with of_this_version(folder / f"{TOGETHER}.json"):
        if unknown := set(together.free) - set(ARMS):
            raise ValueError(f"there is no arm {min(unknown)!r}")
    needed = dict.fromkeys(file for free in together.free for file in files_of(free, params))
    missing = [file for file in needed if not file.exists()]
    if (source or ("own" if ARMS[arm].free else "all")) == "own":
        return alone
    if missing and source == "all":
        _require("a confidence from all free arms", missing)
    if missing:
        names = " ".join(map(str, missing))
        logger.warning(
            "confidences are computed from the %s arm alone, because %s is missing; `dvc pull %s` fetches it",
            arm, names, names,
        )  # fmt: skip
    return alone if missing else together


def _require(what: str, needed: Iterable[Path]) -> None:
    missing = " ".join(str(path) for path in dict.fromkeys(needed) if not path.exists())
    if missing:
        raise InputError(
            f"{what} needs {missing} (missing here); `dvc pull {missing}` fetches what was pushed to the remote, "
            "`dvc repro` makes it"
        )


def _is_off(path: Path) -> bool:
    job = path / JOB
    return (path / OFF).is_file() or (job.is_file() and _says_off(job))


def _says_off(job: Path) -> bool:
    written = read_json(job)
    return isinstance(written, dict) and bool(written.get("off"))


def _confidence_of(arm: str) -> Path:
    return paths.CONFIDENCE / arm
