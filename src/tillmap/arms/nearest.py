"""The `nearest` arm: the most similar training rows vote for whole label paths."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import pandas as pd
from pydantic import Field

from tillmap.arms.base import Arm, Need, answer_of
from tillmap.arms.context import Context
from tillmap.config.blocks import RetrieverName, Section
from tillmap.core.completions import Completion
from tillmap.core.taxonomy import KEY
from tillmap.retrieval.vote import vote, votes_by_key

MAX_CANDIDATES = 10


class NearestSettings(Section):
    retriever: RetrieverName
    k: Annotated[int, Field(ge=1, le=1000)]
    power: Annotated[float, Field(ge=0)]


class Nearest(Arm):
    """The neighbours' vote, see `retrieval.vote`. The winner's share of the votes is the confidence."""

    name: ClassVar[str] = "nearest"
    Settings: ClassVar[type[Section]] = NearestSettings
    proposes: ClassVar[int] = 1
    reads: ClassVar[tuple[Need, ...]] = ("rows", "index")

    def answer(self, context: Context, rows: pd.DataFrame) -> Iterator[Completion]:
        settings, levels = context.settings, context.levels
        neighbours = context.neighbours(rows, settings.retriever)
        votes = vote(neighbours, context.training, rows[KEY], levels, settings.k, settings.power)
        for (split, row_id), ranked in votes_by_key(votes, levels).items():
            candidates = [[list(path), round(share, 6)] for path, share in ranked[:MAX_CANDIDATES]]
            yield Completion(split, row_id, answer_of(ranked[0][0], levels), "ok", candidates=candidates)
