"""The `rerank` arm: collects candidate paths for a line, and orders them by everything that is known about them."""

from collections.abc import Iterator
from dataclasses import replace
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pandas as pd
from pydantic import Field

from tillmap.arms.base import Arm, Need, answer_of
from tillmap.arms.context import Context
from tillmap.arms.linear import Linear
from tillmap.config.blocks import Section
from tillmap.core.completions import Completion
from tillmap.core.errors import InputError
from tillmap.core.files import OFF
from tillmap.core.taxonomy import LabelTree, RankedPaths

if TYPE_CHECKING:
    from tillmap.rerank.evidence import Evidence
    from tillmap.rerank.reranker import Reranker

_TRAIN, _ALL = "train", "all"  # folders of the rerankers of the training subset and of all labelled rows
_LEAST_SHARE = 1e-9  # of an answer, so that it has a logarithm


class RerankSettings(Section):
    candidates: Annotated[int, Field(ge=2, le=200)]
    unseen_paths: bool
    trees: Annotated[int, Field(ge=1, le=2000)]
    folds: Annotated[int, Field(ge=2, le=20)]
    fold_up_to: Annotated[int, Field(ge=0)]
    held_out_rows: Annotated[int, Field(ge=100)]
    refit_up_to: Annotated[int, Field(ge=0)]


class Rerank(Arm):
    """The reranker. It builds on the fits of the `linear` arm, and answers as that arm does where it gains nothing."""

    name: ClassVar[str] = "rerank"
    Settings: ClassVar[type[Section]] = RerankSettings
    proposes: ClassVar[int] = 3
    reads: ClassVar[tuple[Need, ...]] = ("rows", "fits", "model")
    training_params: ClassVar[tuple[str, ...]] = ("rerank",)

    def check(self, context: Context) -> None:
        if self._reranker(context, "test").trees is not None:
            self._evidence(context, "test")
        else:
            Linear().check(_of_linear(context))

    def known_paths(self, context: Context) -> LabelTree:
        return Linear().known_paths(_of_linear(context))

    def training_paths(self, context: Context) -> LabelTree:
        return Linear().training_paths(_of_linear(context))

    def answers_unseen(self, settings: RerankSettings) -> bool:
        return settings.unseen_paths

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        from tillmap.linear import fits
        from tillmap.rerank import training as reranking

        if (context.linear / OFF).is_file():
            raise InputError("rerank builds on the linear model, which is off; set `run.linear: true` in params.yaml")
        rows = context.rows[context.levels.labelled(context.rows) | (context.rows["split"] == "test")]
        subsets = {name: table for name, table in rows.groupby("subset", observed=True)}
        asked = subsets.get("test", rows[rows["subset"] != "train"])
        model = fits.load(context.linear, fits.fit_for("dev"))
        options = reranking.Options(**context.settings.model_dump(exclude={"refit_up_to"}))
        dev = subsets.get("dev", rows.head(0))
        reranker = reranking.train(model, subsets["train"], dev, asked, options, context.seed)
        kept = {_TRAIN: reranker}
        labelled = rows[rows["split"] == "train"]
        few = len(labelled) <= context.settings.refit_up_to
        if reranker.trees is not None and few and fits.is_refitted(context.linear):
            whole = fits.load(context.linear)
            kept[_ALL] = reranking.refit(reranker, whole, labelled, asked, options, context.seed)
        for name, each in kept.items():
            (folder / name).mkdir()
            each.save(folder / name)
        return {
            "rows": len(subsets["train"]),
            "reranks": reranker.trees is not None,
            "trees": len(reranker.trees or ()),
            "sharpness": reranker.sharpness,
            "trials": list(reranker.trials),
            "size_mib": round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20, 1),
        }

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """Answer each subset with the fit that was trained on the most rows outside it, see `linear.fits`.

        `logprob` is the log of the answer's share among the candidates.
        """
        from tillmap.linear import fits

        if self._reranker(context, "dev").trees is None:
            yield from Linear().answer(_of_linear(context), rows)
            return
        answers: dict[Any, RankedPaths] = {}
        for _, some in rows.groupby(rows["subset"].map(fits.fit_for), sort=False):
            subset = str(some["subset"].iloc[0])
            ranked = self._reranker(context, subset).rank(self._evidence(context, subset), some)
            answers.update(zip(some.index, ranked, strict=True))
        for index, split, row_id in zip(rows.index, rows["split"], rows["id"], strict=True):
            candidates = answers[index]
            share = max(candidates[0][1], _LEAST_SHARE)
            yield Completion(
                split, row_id, answer_of(candidates[0][0], context.levels), "ok",
                logprob=round(log(share), 6), candidates=[[list(path), round(share, 6)] for path, share in candidates],
            )  # fmt: skip

    def _reranker(self, context: Context, subset: str) -> "Reranker":
        """The reranker for the rows of a subset: for new rows the one of all labelled rows, if there is one."""
        from tillmap.rerank.reranker import Reranker

        name = _ALL if subset == "test" and (context.model / _ALL).is_dir() else _TRAIN
        return context.load_once(f"reranker {name}", lambda: Reranker.load(context.model / name))

    def _evidence(self, context: Context, subset: str) -> "Evidence":
        """The evidence for the rows of a subset."""
        from tillmap.linear import fits
        from tillmap.rerank.evidence import Evidence

        fit = fits.fit_for(subset)

        def load() -> Evidence:
            model = fits.load(context.linear, fit)
            return Evidence.of(model, fits.rows_of(context.linear, fit, context.rows, model.tree))

        return context.load_once(fit, load)


def _of_linear(context: Context) -> Context:
    """The context of the linear arm. What it loads is kept with the rest."""
    return context.load_once("linear", lambda: replace(context, model=context.linear, _loaded={}))
