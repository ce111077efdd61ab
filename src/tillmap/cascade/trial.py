"""The cascade's trial: whether the language model improves on the free arm, measured before the routed rows are asked.

The trial rows are rows of the `calibration` subset that would be routed, so their true labels are known.
"""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tillmap.cascade.judge import show_opinions
from tillmap.cascade.roles import FREE_ARM
from tillmap.core.completions import Question
from tillmap.core.taxonomy import KEY, Key, LabelPath, Levels, RankedPaths
from tillmap.evaluation.comparison import BETTER, compare_arms
from tillmap.evaluation.metrics import mark
from tillmap.llm.interface.few_shot import ITEM_COLUMNS, FewShotExamples, described, make_item
from tillmap.llm.interface.prompting import Renderer
from tillmap.postprocessing.calibration import CandidateScores

_NEIGHBOURS_WEIGHT = 0.5  # of the neighbours' shares; linear's count 1, because it finds the true path more often


def fuse(linear: RankedPaths, neighbours: RankedPaths, k: int) -> list[LabelPath]:
    """The k paths with the highest sum of shares from linear and, counted half, from the neighbours' vote."""
    shares: defaultdict[LabelPath, float] = defaultdict(float)
    for weight, ranked in ((1.0, linear), (_NEIGHBOURS_WEIGHT, neighbours)):
        for path, share in ranked:
            shares[path] += weight * share
    return sorted(shares, key=lambda path: (-shares[path], path))[:k]


def write_questions(
    asked: pd.DataFrame,
    few_shot: FewShotExamples | None,
    candidates: Mapping[Key, Sequence[LabelPath]],
    renderer: Renderer,
    *,
    examples: int,
    show: bool,
    constrain: bool,
    opinions: Mapping[str, CandidateScores] | None = None,
    about: Mapping[str, str] | None = None,
) -> Iterator[Question]:
    """Write one question per row of `asked`, in order: the question of the language model's own arm, with candidates.

    Args:
        asked: split, id, description, retailer and price.
        few_shot: looks up the examples of a row; None for a model that is asked without examples.
        candidates: the most probable label paths of each row, by (split, id).
        renderer: makes the messages.
        about: descriptions from outside, by normalised text.
        examples: how many examples a question shows.
        show: whether the question lists the candidates.
        constrain: whether the candidates are the only answers allowed.
        opinions: the free arms' candidate scores; the question then shows them, whatever `show` says (see `judge`).
    """
    for split, row_id, *shown in asked[[*KEY, *ITEM_COLUMNS]].itertuples(index=False, name=None):
        known = few_shot.examples(split, row_id) if few_shot else []
        paths = candidates[split, row_id]
        item = described(make_item(*shown), about or {})
        messages = renderer.question(item, known[:examples], paths if show and opinions is None else ())
        if opinions is not None:
            messages = show_opinions(
                messages, opinions, (split, row_id),
                candidates=paths, examples=known, answer_format=renderer.answer_format,
            )  # fmt: skip
        answers = [renderer.answer_format.encode(path) for path in paths] if constrain else None
        yield Question(split, row_id, messages, answers)


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
    free: pd.DataFrame, llm: pd.DataFrame, merged: pd.DataFrame, truth: pd.DataFrame, *, levels: Levels, seed: int
) -> Trial:
    """Decide from the trial rows whether the routed rows are asked.

    They are asked only if the merged answers are better than the free arm's by `compare_arms`. A difference that may
    be chance is not enough.

    Args:
        free: the free arm's predictions of the trial rows.
        llm: the language model's.
        merged: the result of `merge` for both.
        truth: the trial rows with their true labels.
        levels: the names of the levels.
        seed: of the bootstrap.
    """
    marks = {"free": mark(free, truth, FREE_ARM, levels), "cascade": mark(merged, truth, "cascade", levels)}
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
        float(mark(llm, truth, "llm", levels)["right"].mean()),
        right["cascade"],
        *(float(found[name]) for name in ("difference", "low", "high", "p_value")),
    )
