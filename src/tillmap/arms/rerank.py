"""The `rerank` arm: collects candidate paths for a line, and orders them by everything that is known about them."""

from collections.abc import Iterator
from dataclasses import replace
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from tillmap.arms.base import Arm, Need, answer_of
from tillmap.arms.context import Context
from tillmap.arms.linear import Linear
from tillmap.config.blocks import Section
from tillmap.core.completions import Completion
from tillmap.core.errors import InputError
from tillmap.core.files import OFF, OUT_OF_FOLD, write_table
from tillmap.core.taxonomy import LabelTree, RankedPaths

if TYPE_CHECKING:
    from tillmap.rerank.evidence import Evidence
    from tillmap.rerank.reranker import Reranker

_LEAST_SHARE = 1e-9  # of an answer, so that it has a logarithm


class RerankSettings(Section):
    candidates: Annotated[int, Field(ge=2, le=200)]
    unseen_paths: bool
    read_brand: bool | Literal["auto"]
    trees: Annotated[int, Field(ge=1, le=2000)]
    folds: Annotated[int, Field(ge=2, le=20)]
    fold_up_to: Annotated[int, Field(ge=0)]
    held_out_rows: Annotated[int, Field(ge=100)]


class Rerank(Arm):
    """The reranker. It builds on the fits of the `linear` arm, and answers as that arm does where it gains nothing."""

    name: ClassVar[str] = "rerank"
    Settings: ClassVar[type[Section]] = RerankSettings
    proposes: ClassVar[int] = 3
    reads: ClassVar[tuple[Need, ...]] = ("rows", "fits", "model")
    training_params: ClassVar[tuple[str, ...]] = ("rerank",)

    def check(self, context: Context) -> None:
        if self._reranker(context).trees is not None:
            self._evidence(context, "test")
        else:
            Linear().check(_of_linear(context))

    def known_paths(self, context: Context) -> LabelTree:
        return Linear().known_paths(_of_linear(context))

    def training_paths(self, context: Context) -> LabelTree:
        return Linear().training_paths(_of_linear(context))

    def answers_unseen(self, settings: RerankSettings) -> bool:
        return settings.unseen_paths

    def is_calibrated(self, context: Context) -> bool:
        return self._reranker(context).sure is not None

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        from tillmap.linear import fits
        from tillmap.rerank.examples import Options
        from tillmap.rerank.training import train

        if (context.linear / OFF).is_file():
            raise InputError("rerank builds on the linear model, which is off; set `run.linear: true` in params.yaml")
        rows = context.rows[context.levels.labelled(context.rows) | (context.rows["split"] == "test")]
        subsets = {name: table for name, table in rows.groupby("subset", observed=True)}
        asked = subsets.get("test", rows[rows["subset"] != "train"])
        model = fits.load(context.linear, fits.fit_for("dev"))
        settings = context.settings.model_dump()
        settings["read_brand"] = None if settings["read_brand"] == "auto" else settings["read_brand"]
        options = Options(**settings)
        reranker = train(model, subsets["train"], asked, options, context.seed)
        reranker.save(folder)
        out_of_fold = reranker.out_of_fold
        if out_of_fold is not None:
            write_table(out_of_fold, folder / OUT_OF_FOLD)
        return {
            "rows": len(subsets["train"]),
            "reranks": reranker.trees is not None,
            "trees": len(reranker.trees or ()),
            "out_of_fold": 0 if out_of_fold is None else int((out_of_fold["rank"] == 0).sum()),
            "sharpness": reranker.sharpness,
            "read_brand": reranker.read_brand,
            "trials": list(reranker.trials),
            "size_mib": round(sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20, 1),
        }

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """Answer each subset with the fit that was trained on the most rows outside it, see `linear.fits`.

        `logprob` is the log of the answer's share among the candidates.
        """
        from tillmap.linear import fits

        if self._reranker(context).trees is None:
            yield from Linear().answer(_of_linear(context), rows)
            return
        answers: dict[Any, RankedPaths] = {}
        for _, some in rows.groupby(rows["subset"].map(fits.fit_for), sort=False):
            subset = str(some["subset"].iloc[0])
            ranked = self._reranker(context).rank(self._evidence(context, subset), some)
            answers.update(zip(some.index, ranked, strict=True))
        for index, split, row_id in zip(rows.index, rows["split"], rows["id"], strict=True):
            candidates = answers[index]
            share = max(candidates[0][1], _LEAST_SHARE)
            yield Completion(
                split, row_id, answer_of(candidates[0][0], context.levels), "ok",
                logprob=round(log(share), 6), candidates=[[list(path), round(share, 6)] for path, share in candidates],
            )  # fmt: skip

    def _reranker(self, context: Context) -> "Reranker":
        from tillmap.rerank.reranker import Reranker

        return context.load_once("reranker", lambda: Reranker.load(context.model))

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
