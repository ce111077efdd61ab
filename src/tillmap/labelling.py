"""Labels new rows with a trained arm: answers, repair and confidence, from that arm's own files alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from tillmap import paths
from tillmap.arms import linear, nearest
from tillmap.asking import ask, find_model
from tillmap.confidence import FREE, Beliefs, Confidence, beliefs, make_signals
from tillmap.errors import InputError
from tillmap.labels import LabelTree
from tillmap.linear.model import LinearModel
from tillmap.params import Params
from tillmap.predictions import predict
from tillmap.repairing import ASKED, make_repairer
from tillmap.retrieval.base import Retriever
from tillmap.retrieval.dense import DenseRetriever
from tillmap.retrieval.embedding import Embedder
from tillmap.retrieval.filters import Filters
from tillmap.retrieval.lexical import LexicalRetriever
from tillmap.retrieval.neighbours import fuse, neighbours_table
from tillmap.storage import read_json, read_table
from tillmap.text import normalise

_AT_ONCE = 8192  # rows that a free arm labels at a time
_ALL = 10_000_000  # a model's rows go together: it is loaded once, and a budget is for all of them
_SPLIT = "test"  # new rows are asked about as test rows are


class Knowledge:
    """The training part and its indexes, each read when it is first needed."""

    def __init__(self, params: Params) -> None:
        self._params = params

    @cached_property
    def training(self) -> pd.DataFrame:
        rows = read_table(paths.ROWS)
        return rows[rows["part"] == "train"]

    def neighbours(self, items: pd.DataFrame, retriever: str) -> pd.DataFrame:
        """The neighbours table of new rows, as the `retrieve` stage makes it."""
        chosen = self._params.retrieval
        filters = Filters(chosen.same_retailer, chosen.price_ratio, chosen.min_kept)
        tables = [
            neighbours_table(self._retriever(name), self.training, items, chosen.k, filters=filters)
            for name in (("dense", "lexical") if retriever == "hybrid" else (retriever,))
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
        meaning = self._params.embedding
        return DenseRetriever.load(paths.INDEX, Embedder(meaning.model, meaning.revision, meaning.batch_size))


@dataclass(frozen=True)
class Labeller:
    """One trained arm. Make it with `open_arm`.

    tree: the paths that it can answer. training_tree: those of the training part, which confidences are fitted by.
    """

    arm: str
    params: Params
    tree: LabelTree
    training_tree: LabelTree
    knowledge: Knowledge
    model: LinearModel | None
    confidence: Confidence | None
    free: tuple[str, ...]

    @property
    def rows_at_once(self) -> int:
        """How many rows `label` is best given: free arms take them in pieces, a language model all at once."""
        return _ALL if self.arm in ASKED else _AT_ONCE

    def files(self) -> list[Path]:
        """The files that the answers follow from."""
        folders = files_of(self.arm)
        return [file for folder in folders for file in (folder.rglob("*") if folder.is_dir() else [folder])
                if file.is_file()]  # fmt: skip

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
        if self.arm == "nearest":
            return [answer.as_record() for answer in nearest.completions(self.knowledge.votes(items))]
        if self.model is not None:
            return [answer.as_record() for answer in linear.completions(self.model.predict(items), items)]
        chosen, module = getattr(self.params, self.arm), ASKED[self.arm]
        near = self.knowledge.neighbours(items, chosen.retriever)
        questions = list(module.write_questions(items, self.knowledge.training, near, self.tree, chosen))
        allowed = module.target_of(chosen, self.tree).allowed_to_all(chosen)
        return ask(self.params, self.arm, questions, allowed).records

    def _beliefs(self, items: pd.DataFrame) -> dict[str, Beliefs]:
        """What the free arms say of new rows."""
        said: dict[str, Beliefs] = {}
        if "nearest" in self.free:
            answers = nearest.completions(self.knowledge.votes(items))
            said["nearest"] = beliefs([answer.as_record() for answer in answers])
        if "linear" in self.free:
            answers = linear.completions(self._linear.predict(items), items)
            said["linear"] = beliefs([answer.as_record() for answer in answers])
        return said

    @cached_property
    def _linear(self) -> LinearModel:
        return linear.load(paths.MODELS / "linear", refitted=True)

    @cached_property
    def _repairer(self):  # type: ignore[no-untyped-def]
        return make_repairer(self.params, self.arm, self.tree)


# What each arm's answers follow from, beside params.yaml and its confidence.
_FILES: Mapping[str, Sequence[Path]] = {
    "nearest": [paths.SPLIT, paths.INDEX],
    "linear": [paths.MODELS / "linear"],
    "rag": [paths.SPLIT, paths.INDEX, paths.BASE / "rag"],
    "llama": [paths.SPLIT, paths.INDEX, paths.BASE / "llama", paths.MODELS / "llama"],
    "openai": [paths.SPLIT, paths.INDEX, paths.MODELS / "openai"],
}


def files_of(arm: str) -> list[Path]:
    """What an arm needs to label new rows, as `dvc pull` takes it."""
    return [*_FILES[arm], _confidence_folder(arm)]


def open_arm(arm: str, params: Params) -> Labeller:
    """Read a trained arm's files. Raises InputError that says which are missing, and what brings them."""
    if arm not in _FILES:
        raise InputError(
            f"the {arm} arm is made of others and labels in the pipeline alone; name one of {', '.join(_FILES)}"
        )
    needed = files_of(arm)
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise InputError(
            f"the {arm} arm needs {', '.join(missing)}, not here; `dvc pull {' '.join(missing)}` fetches what a "
            f"colleague pushed, `dvc repro` makes it"
        )
    off = [str(path) for path in needed if (path / "off.json").is_file() and path != _confidence_folder(arm)]
    if off:
        raise InputError(f"{', '.join(off)}: the {arm} arm was switched off; run `dvc exp run -S run.{arm}=true`")
    model = linear.load(paths.MODELS / "linear", refitted=True) if arm == "linear" else None
    if arm in ASKED and arm != "openai":
        find_model(arm)
    tree = model.tree if model is not None else LabelTree.from_table(read_table(paths.TREE))
    confidence, free = _open_confidence(arm)
    training_tree = tree if model is None else linear.training_tree(paths.MODELS / "linear")
    return Labeller(arm, params, tree, training_tree, Knowledge(params), model, confidence, free)


def _open_confidence(arm: str) -> tuple[Confidence | None, tuple[str, ...]]:
    """The arm's confidence: with the free arms where it is asked beside their files anyway, else by itself."""
    folder = _confidence_folder(arm)
    if (folder / "off.json").is_file():
        return None, ()
    together = Confidence.load(folder / "together.json")
    free = tuple(name for name in FREE if name in together.free)
    if arm in ASKED and all(path.exists() for name in free for path in _FILES[name]):
        return together, free
    return Confidence.load(folder / "alone.json"), ()


def _confidence_folder(arm: str) -> Path:
    return paths.CONFIDENCE / arm


@dataclass
class Drift:
    """How far the rows labelled are from those that training showed; filled batch by batch."""

    retailers: frozenset[str]
    words: frozenset[str]
    rows: int = 0
    new_retailers: int = 0
    new_words: int = 0

    @classmethod
    def from_file(cls, path: Path) -> Self | None:
        """A count against what the `stratify` stage saw in training; None where its file is not here."""
        if not path.is_file():
            return None
        seen = read_json(path)
        return cls(frozenset(seen["retailers"]), frozenset(seen["words"]))

    def add(self, rows: pd.DataFrame) -> None:
        """Count a batch of `Feed.batches`."""
        self.rows += len(rows)
        self.new_retailers += int((~rows["retailer"].isin(self.retailers) & rows["retailer"].ne("")).sum())
        self.new_words += sum(not self.words.issuperset(normalise(text).split()) for text in rows["description"])

    def said(self) -> str:
        """The shares of rows that training did not prepare for."""
        retailers, words = self.new_retailers / self.rows, self.new_words / self.rows
        return f"{retailers:.1%} of the rows come from retailers and {words:.1%} hold words that training never showed"
