"""The `linear` arm: scores every label by the character n-grams of the line, and answers the best label path."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field, field_validator

from tillmap.arms.base import Arm, Need, answer_of
from tillmap.arms.context import Context
from tillmap.config.blocks import Epochs, Section
from tillmap.core.completions import Completion
from tillmap.core.taxonomy import LabelPath, LabelTree


class LinearSettings(Section):
    epochs: Annotated[int, Field(ge=1), Epochs]
    ngrams: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=2, max_length=2)]
    price: bool | Literal["auto"]
    retailer: bool | Literal["auto"]
    sizes: bool | Literal["auto"]
    trial_rows: Annotated[int, Field(ge=100)]
    weights_mib: Annotated[float, Field(gt=0)]
    unseen_paths: bool
    refit_up_to: Annotated[int, Field(ge=0)]

    @field_validator("ngrams")
    @classmethod
    def _shortest_first(cls, ngrams: list[int]) -> list[int]:
        if ngrams[0] > ngrams[1]:
            raise ValueError("expected the shortest n-gram before the longest")
        return ngrams


class Linear(Arm):
    """The linear model. Its recipe is chosen on the `dev` subset, and may then be fitted on more rows, see `fits`."""

    name: ClassVar[str] = "linear"
    Settings: ClassVar[type[Section]] = LinearSettings
    proposes: ClassVar[int] = 2
    reads: ClassVar[tuple[Need, ...]] = ("model",)
    training_params: ClassVar[tuple[str, ...]] = ("linear",)

    def check(self, context: Context) -> None:
        from tillmap.linear import fits

        context.load_once(fits.fit_for("test"), lambda: fits.load(context.model))

    def known_paths(self, context: Context) -> LabelTree:
        from tillmap.linear import fits

        return fits.known_paths(context.model)

    def training_paths(self, context: Context) -> LabelTree:
        from tillmap.linear import fits

        return fits.training_tree(context.model)

    def answers_unseen(self, settings: LinearSettings) -> bool:
        return settings.unseen_paths

    def train(self, context: Context, training: Any, folder: Path) -> dict[str, Any]:
        from tillmap.linear import fits

        settings, rows = context.settings, context.rows
        chosen = settings.model_dump(exclude={"refit_up_to"}) | {"ngrams": tuple(settings.ngrams)}
        chosen |= {block: None for block in ("price", "retailer", "sizes") if chosen[block] == "auto"}
        model = fits.train(rows, context.tree, fits.Options(**chosen), context.seed)
        others = whole = None
        if (rows["split"] == "train").sum() <= settings.refit_up_to:
            others = fits.refit_for_calibration(model, rows, context.seed)
            whole = fits.refit(model, rows, context.seed)
        fits.save(model, folder, others=others, whole=whole)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return {
            "rows": len(context.training),
            "blocks": list(model.recipe.blocks),
            "siblings": model.recipe.siblings,
            "head_weights": list(model.recipe.head_weights),
            "trials": list(model.trials),
            "size_mib": round(size / 2**20, 1),
        }

    def words(self, context: Context, rows: pd.DataFrame, paths: Sequence[LabelPath]) -> list[dict[str, float]] | None:
        from tillmap.linear import fits
        from tillmap.linear.words import word_scores

        fit = fits.fit_for("test")
        return word_scores(context.load_once(fit, partial(fits.load, context.model, fit)), rows, paths)

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        """Answer each subset with the fit that was trained on the most rows outside it.

        `logprob` is the sum of the log probabilities of the levels' labels, as if they were independent.
        """
        from tillmap.linear import fits

        fit_of = rows["subset"].map(fits.fit_for)
        parts = []
        for fit, some in rows.groupby(fit_of, sort=False):
            model = context.load_once(str(fit), partial(fits.load, context.model, str(fit)))
            parts.append(model.predict(some))
        answers = pd.concat(parts).loc[rows.index]
        levels = model.tree.levels
        columns = [rows["split"], rows["id"], answers["evidence"], answers["candidates"]]
        for split, row_id, evidence, candidates in zip(*columns, strict=True):
            shown = [[list(path), round(share, 6)] for path, share in candidates]
            text = answer_of(candidates[0][0], levels)
            yield Completion(split, row_id, text, "ok", logprob=round(evidence, 6), candidates=shown)
