"""The cascade's trial: whether the language model improves on the free arm, measured before the routed rows are asked.

The trial rows are rows of the `calibration` subset that would be routed, so their true labels are known.
"""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tillmap.core.taxonomy import KEY, Key, LabelPath, Levels
from tillmap.evaluation.comparison import BETTER, compare_arms
from tillmap.evaluation.metrics import mark


def merge(
    free: pd.DataFrame, answered: pd.DataFrame, allowed: Mapping[Key, Container[LabelPath]] | None, levels: Levels
) -> pd.DataFrame:
    """Replace predictions of the free arm by usable ones of the language model. `source` tells which a row has.

    Not usable are failed and empty answers, answers without a label path, and answers outside the row's `allowed`
    paths. The last can happen with a server that is not told the allowed answers (`openai.constraint: off`).

    Args:
        free: the free arm's predictions table.
        answered: the language model's predictions table, of some of the same rows.
        allowed: the paths allowed to each answered row, by (split, id); None allows any.
        levels: the names of the levels.
    """
    keys = list(answered[KEY].itertuples(index=False, name=None))
    is_allowed = [
        allowed is None or path in allowed[key] for key, path in zip(keys, levels.paths(answered), strict=True)
    ]
    # The repair "vote" means that the answer named no path, so the row has its neighbours' labels.
    usable = answered[(answered["status"] == "ok") & (answered["repair"] != "vote") & np.array(is_allowed, dtype=bool)]
    merged = free.set_index(KEY)
    better = usable.set_index(KEY)
    merged.loc[better.index, better.columns] = better
    return merged.reset_index()[list(free.columns)]


@dataclass(frozen=True)
class Trial:
    """The result of the trial. The accuracies are None if no trial was run.

    Attributes:
        routes: whether the routed rows are asked, too.
        reason: why, as a sentence for the log.
        rows: how many rows were tried.
        free: item accuracy of the free arm.
        llm: item accuracy of the language model alone.
        cascade: item accuracy of the merged answers (see `merge`).
        difference: `cascade` minus `free`, with its 95% interval `low` to `high`.
        p_value: of the paired comparison.
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


def judge(
    free: pd.DataFrame, llm: pd.DataFrame, merged: pd.DataFrame, truth: pd.DataFrame, *, arm: str, levels: Levels,
    seed: int,
) -> Trial:  # fmt: skip
    """Decide from the trial rows whether the routed rows are asked.

    They are asked only if the merged answers are better than the free arm's by `compare_arms`. A difference that may
    be chance is not enough.

    Args:
        free: the free arm's predictions of the trial rows.
        llm: the language model's.
        merged: the result of `merge` for both.
        truth: the trial rows with their true labels.
        arm: the name of the free arm.
        levels: the names of the levels.
        seed: of the bootstrap.
    """
    marks = {"free": mark(free, truth, arm, levels), "cascade": mark(merged, truth, "cascade", levels)}
    found = compare_arms(marks, "free", seed=seed).iloc[0]
    gains = str(found["verdict"]) == BETTER
    right = {name: float(table["right"].mean()) for name, table in marks.items()}
    reason = (
        f"on {len(truth)} routed rows of the calibration subset the language model is right on "
        f"{right['cascade']:.3f}, {arm} on {right['free']:.3f}: {found['verdict']}"
    )
    return Trial(
        gains,
        reason if gains else f"{reason}; no gain is shown, so {arm} answers every row",
        len(truth),
        right["free"],
        float(mark(llm, truth, "llm", levels)["right"].mean()),
        right["cascade"],
        *(float(found[name]) for name in ("difference", "low", "high", "p_value")),
    )
