"""The `cascade` arm: `linear` answers what it is sure of, a language model the rest, where that is known to help.

Whether it helps is tried first, on rows of the `calibration` subset that would be routed. Nothing else is asked before.
"""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tillmap.core.completions import Question
from tillmap.core.taxonomy import KEY, LEVELS, LabelPath
from tillmap.evaluation.comparison import BETTER, compare_arms
from tillmap.evaluation.metrics import mark
from tillmap.llm.interface.few_shot import ITEM_COLUMNS, FewShotExamples, make_item
from tillmap.llm.interface.prompting import Renderer

Key = tuple[str, int]
Ranked = Sequence[tuple[LabelPath, float]]

_NEIGHBOURS_WEIGH = 0.5  # beside linear's shares; the neighbours alone find the true path less often


def fuse(linear: Ranked, neighbours: Ranked, k: int) -> list[LabelPath]:
    """The k likeliest paths by the shares that linear and, counting half, the neighbours' vote give them."""
    shares: defaultdict[LabelPath, float] = defaultdict(float)
    for weight, ranked in ((1.0, linear), (_NEIGHBOURS_WEIGH, neighbours)):
        for path, share in ranked:
            shares[path] += weight * share
    return sorted(shares, key=lambda path: (-shares[path], path))[:k]


def write_questions(
    asked: pd.DataFrame,
    evidence: FewShotExamples | None,
    candidates: Mapping[Key, Sequence[LabelPath]],
    renderer: Renderer,
    *,
    examples: int,
    show: bool,
    constrain: bool,
) -> Iterator[Question]:
    """One question for each row of `asked`, in order, as the language model's own arm asks it, and the candidates.

    Args:
        asked: split, id and what an item has.
        evidence: the neighbours, of whom the nearest `examples` are shown; None for a model that sees none.
        candidates: each row's likeliest paths; they are listed in the question with `show`, and with `constrain` they
            are the only answers allowed.
    """
    for split, row_id, *shown in asked[[*KEY, *ITEM_COLUMNS]].itertuples(index=False, name=None):
        near = evidence.examples(split, row_id)[:examples] if evidence else []
        likely = candidates[split, row_id]
        messages = renderer.question(make_item(*shown), near, likely if show else ())
        answers = [renderer.answer_format.encode(path) for path in likely] if constrain else None
        yield Question(split, row_id, messages, answers)


def merge(
    free: pd.DataFrame, answered: pd.DataFrame, allowed: Mapping[Key, Container[LabelPath]] | None
) -> pd.DataFrame:
    """The free arm's predictions with the language model's in place of its own, where it said something usable.

    An answer that failed, was empty or said nothing is none, and neither is one that is not of the row's `allowed`
    paths (None: any will do): a server need not have been told them. `source` says whose answer a row has.
    """
    keys = list(answered[KEY].itertuples(index=False, name=None))
    paths = [LabelPath(*labels) for labels in answered[list(LEVELS)].itertuples(index=False, name=None)]
    among = [allowed is None or path in allowed[key] for key, path in zip(keys, paths, strict=True)]
    usable = answered[(answered["status"] == "ok") & (answered["repair"] != "vote") & np.array(among, dtype=bool)]
    merged = free.set_index(KEY)
    better = usable.set_index(KEY)
    merged.loc[better.index, better.columns] = better
    return merged.reset_index()[list(free.columns)]


@dataclass(frozen=True)
class Trial:
    """What asking the language model changed on routed rows with known labels, and whether more rows are asked.

    `free`, `llm` and `cascade` are item accuracies: of the free arm, of the model's own answers, and of these with the
    free arm's where it gave none. `difference` is of the last to the first, with its 95% interval `low` to `high`.
    """

    routes: bool
    reason: str
    rows: int
    free: float | None = None
    llm: float | None = None
    cascade: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None

    def report(self) -> dict[str, Any]:
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def judge(free: pd.DataFrame, llm: pd.DataFrame, merged: pd.DataFrame, truth: pd.DataFrame, seed: int) -> Trial:
    """Compare three predictions tables of the rows of `truth`: routed, held out, labelled.

    More rows are asked only where the merged answers are better than the free arm's, by `compare_arms`: a difference
    that may be chance is no gain.
    """
    marks = {"free": mark(free, truth, "linear"), "cascade": mark(merged, truth, "cascade")}
    found = compare_arms(marks, "free", seed=seed).iloc[0]
    gains = str(found["verdict"]) == BETTER
    right = {name: float(table["right"].mean()) for name, table in marks.items()}
    reason = (
        f"on {len(truth)} routed rows of the calibration subset the language model is right on "
        f"{right['cascade']:.3f}, linear on {right['free']:.3f}: {found['verdict']}"
    )
    return Trial(
        gains,
        reason if gains else f"{reason}; no gain is shown, so linear answers every row",
        len(truth),
        right["free"],
        float(mark(llm, truth, "llm")["right"].mean()),
        right["cascade"],
        *(float(found[name]) for name in ("difference", "low", "high", "p_value")),
    )
