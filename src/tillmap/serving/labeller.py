"""Labels new rows with a trained arm: answers, repair and confidence, from that arm's own files alone."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from tillmap.arms import linear, nearest
from tillmap.config import paths
from tillmap.config.params import Params
from tillmap.core.errors import InputError
from tillmap.core.files import read_json, read_table
from tillmap.core.taxonomy import LEVELS, LabelTree
from tillmap.linear.model import LinearModel
from tillmap.postprocessing.calibration import CandidateScores, Confidence, candidate_scores, make_signals
from tillmap.postprocessing.predictions import predict
from tillmap.postprocessing.repair import Repairer
from tillmap.postprocessing.repairing import ASKED, make_repairer
from tillmap.retrieval.base import Retriever
from tillmap.retrieval.filters import Filters
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table
from tillmap.splitting.drift import Seen

logger = logging.getLogger(__name__)

Judges = Literal["own", "all"]

_AT_ONCE = 8192  # rows that a free arm labels at a time; a multiple of what its model and index take at once
_ALL = 10_000_000  # a model's rows go together: it is loaded once, and a budget is for all of them
_SPLIT = "test"  # new rows are asked about as test rows are
_KNOWN = ["id", "subset", "split", "description", "retailer", "price", *LEVELS]

# What each arm's answers follow from, beside params.yaml. The arms that ask a model fall back on the neighbours' vote.
_FILES: Mapping[str, Sequence[Path]] = {
    "nearest": [paths.SPLIT, paths.INDEX],
    "linear": [paths.MODELS / "linear"],
    "rag": [paths.SPLIT, paths.INDEX, paths.BASE / "rag"],
    "llama": [paths.SPLIT, paths.INDEX, paths.BASE / "llama", paths.MODELS / "llama"],
    "openai": [paths.SPLIT, paths.INDEX, paths.MODELS / "openai"],
}


class Knowledge:
    """The training subset and its indexes, each read when it is first needed."""

    def __init__(self, params: Params) -> None:
        self._params = params

    @cached_property
    def training(self) -> pd.DataFrame:
        rows = read_table(paths.ROWS, _KNOWN)
        return rows[rows["subset"] == "train"]

    def neighbours(self, items: pd.DataFrame, retriever: str) -> pd.DataFrame:
        """The neighbours table of new rows, as the `retrieve` stage makes it."""
        chosen = self._params.retrieval
        filters = Filters(chosen.same_retailer, chosen.price_ratio, chosen.min_kept)
        names = ("dense", "lexical") if retriever == "hybrid" else (retriever,)
        tables = [
            neighbours_table(self._retriever(name), self.training, items, chosen.k, filters=filters) for name in names
        ]
        return fuse(tables, chosen.hybrid_weights, chosen.k) if len(tables) > 1 else tables[0]

    def votes(self, items: pd.DataFrame) -> pd.DataFrame:
        """What the `nearest` arm would answer, ranked."""
        chosen = self._params.nearest
        found = self.neighbours(items, chosen.retriever)
        return nearest.vote(found, self.training, items[["split", "id"]], chosen.k, chosen.power)

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

    tree: the paths that it can answer. training_tree: those of the training subset, which confidences are fitted by.
    confidence: None where the arm's own is not calibrated.
    """

    arm: str
    params: Params
    tree: LabelTree
    training_tree: LabelTree
    knowledge: Knowledge
    model: LinearModel | None
    confidence: Confidence | None

    @property
    def rows_at_once(self) -> int:
        """How many rows `label` is best given: free arms take them in pieces, a language model all at once."""
        return _ALL if self.arm in ASKED else _AT_ONCE

    @property
    def free(self) -> tuple[str, ...]:
        """The free arms that are asked about the answers, too."""
        return self.confidence.free if self.confidence else ()

    @cached_property
    def seen(self) -> Seen | None:
        """What training showed; None where its file is not here."""
        return Seen.from_json(read_json(paths.SEEN)) if paths.SEEN.is_file() else None

    def files(self) -> list[Path]:
        """The files that the answers follow from."""
        needed = [*_FILES[self.arm], *(path for arm in self.free for path in _FILES[arm])]
        return [file for path in dict.fromkeys(needed) for file in path.rglob("*") if file.is_file()]

    def label(self, rows: pd.DataFrame, first: int = 0) -> pd.DataFrame:
        """Answer a table of `Feed.batches`, whose first row is row `first` of the whole feed.

        Gives key, the four labels, confidence (calibrated where the arm's is), repair, in_tree, source and status, in
        order. The same rows give the same answers.
        """
        items = rows.drop(columns="key").assign(split=_SPLIT, id=range(first, first + len(rows)))
        items = items.reset_index(drop=True)
        completions = self._completions(items)
        votes = nearest.votes_by_key(self.knowledge.votes(items)) if self.arm in ASKED else {}
        answers = predict(completions, self._repairer, votes, self.arm)
        if self.confidence is not None:
            signals = make_signals(completions, answers, items, self._beliefs(items), self.training_tree)
            answers["confidence"] = self.confidence.of(signals)
        answers["confidence"] = answers["confidence"].round(6)
        return answers.drop(columns=["split", "id"]).assign(key=rows["key"].array)

    def _completions(self, items: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
        if self.arm not in ASKED:
            return self._said_by(self.arm, items)
        from tillmap.llm.asking import ask

        chosen, module = getattr(self.params, self.arm), ASKED[self.arm]
        near = self.knowledge.neighbours(items, chosen.retriever)
        questions = list(module.write_questions(items, self.knowledge.training, near, self.tree, chosen))
        allowed = module.answer_format_of(chosen, self.tree).allowed_to_all(chosen)
        return ask(self.params, self.arm, questions, allowed).records

    def _said_by(self, free_arm: str, items: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
        if free_arm == "nearest":
            answers = nearest.completions(self.knowledge.votes(items))
        else:
            answers = linear.completions(self._linear.predict(items), items)
        return [answer.as_record() for answer in answers]

    def _beliefs(self, items: pd.DataFrame) -> dict[str, CandidateScores]:
        """What the free arms say of new rows."""
        return {arm: candidate_scores(self._said_by(arm, items)) for arm in self.free}

    @cached_property
    def _linear(self) -> LinearModel:
        return self.model or linear.load(paths.MODELS / "linear")

    @cached_property
    def _repairer(self) -> Repairer:
        return make_repairer(self.params, self.arm, self.tree)


def missing_files(arm: str, root: Path = Path()) -> list[Path]:
    """What an arm needs to label new rows and `root` lacks, as `dvc pull` takes it; its confidence comes last."""
    return [path for path in (*_FILES[arm], paths.SEEN, _confidence_of(arm)) if not (root / path).exists()]


def open_arm(arm: str, params: Params, judges: Judges | None = None) -> Labeller:
    """Read a trained arm's files.

    `judges` says whose word a confidence goes by: the arm's `own`, or that of `all` free arms besides, which is slower
    and needs their files. None: all for an arm that asks a language model, where these files are here; own for others.

    Raises InputError that says which files are missing and what brings them, or that the arm was switched off; and
    ModelError where a file is not what it should be.
    """
    if arm not in _FILES:
        raise InputError(
            f"the {arm} arm is made of others and labels in the pipeline alone; name one of {', '.join(_FILES)}"
        )
    needed = _FILES[arm]
    _require(arm, needed)
    off = [str(path) for path in needed if _is_off(path)]
    if off:
        raise InputError(
            f"{', '.join(off)}: the {arm} arm was switched off when this was made; switch it on in params.yaml "
            f"(`run.{arm}: true`) and run `dvc repro`"
        )
    model = linear.load(paths.MODELS / "linear") if arm == "linear" else None
    if arm in ASKED and arm != "openai":
        from tillmap.llm.asking import find_model

        find_model(arm)
    tree = model.tree if model is not None else LabelTree.from_table(read_table(paths.TREE))
    training_tree = tree if model is None else linear.training_tree(paths.MODELS / "linear")
    return Labeller(arm, params, tree, training_tree, Knowledge(params), model, _open_confidence(arm, judges))


def _open_confidence(arm: str, judges: Judges | None) -> Confidence | None:
    folder = _confidence_of(arm)
    if not folder.is_dir():
        logger.warning("%s is not here, so confidences are not calibrated: `dvc pull %s` brings it", folder, folder)
        return None
    if (folder / "off.json").is_file():
        logger.warning(
            "%s: the arm answered no row of the calibration subset, so confidences are not calibrated", folder
        )
        return None
    alone, together = (Confidence.load(folder / f"{name}.json") for name in ("alone", "together"))
    missing = [file for free in together.free for file in _FILES[free] if not file.exists()]
    if (judges or ("all" if arm in ASKED else "own")) == "all":
        if not missing:
            return together
        if judges == "all":
            _require(f"{arm} arm's confidence with the {' and '.join(together.free)}", missing)
        said = " ".join(map(str, missing))
        logger.warning("confidences go by what %s itself says, for %s is not here (`dvc pull %s`)", arm, said, said)
    return alone


def _require(arm: str, needed: Sequence[Path]) -> None:
    missing = " ".join(str(path) for path in needed if not path.exists())
    if missing:
        raise InputError(
            f"the {arm} arm needs {missing}, not here; `dvc pull {missing}` brings what was pushed to the remote, "
            "`dvc repro` makes it"
        )


def _is_off(path: Path) -> bool:
    job = path / paths.JOB
    return (path / "off.json").is_file() or (job.is_file() and bool(read_json(job).get("off")))


def _confidence_of(arm: str) -> Path:
    return paths.CONFIDENCE / arm
