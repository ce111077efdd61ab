"""Which arm is better: paired comparisons with a reference arm, and a table of all arms for the terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tillmap.core.errors import InputError, ParamsError
from tillmap.core.taxonomy import KEY
from tillmap.evaluation.bootstrap import mean_interval
from tillmap.evaluation.metrics import clusters_of

BETTER, WORSE, CANNOT_TELL = "better", "worse", "can't tell"
_SIGNIFICANCE = 0.05


def compare_arms(
    marks: Mapping[str, pd.DataFrame], reference: str, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compare each arm with the reference arm on the same rows. `marks` has a `metrics.mark` table per arm.

    Columns: arm, reference, rows, only_arm and only_reference (rows that only one of the two has right), difference (of
    item accuracy) with its 95% interval low, high (paired bootstrap by product), p_value (McNemar's exact test),
    verdict.

    The verdict is "better" or "worse" if both the interval and the test reject equality at 5%, else "can't tell". The
    interval allows for products whose rows are right or wrong together; the exact test is reliable for few rows. There
    is no correction for the number of arms.

    Raises ParamsError if the reference is unknown, InputError if two arms were marked on different rows.
    """
    if reference not in marks:
        raise ParamsError(f"reference arm {reference!r} was not scored; expected one of {', '.join(marks)}")
    base = marks[reference]
    table = []
    for arm, own in marks.items():
        if arm == reference:
            continue
        pairs = base.merge(own[[*KEY, "right"]], on=KEY, suffixes=("_base", ""), validate="one_to_one")
        if not len(pairs) == len(base) == len(own):
            raise InputError(
                f"arms {arm} and {reference} share {len(pairs):,} of their {len(own):,} and {len(base):,} rows; "
                "mark both on the same rows"
            )
        gains = pairs["right"].to_numpy(np.int64) - pairs["right_base"].to_numpy(np.int64)
        won, lost = int((gains > 0).sum()), int((gains < 0).sum())
        low, high = mean_interval(gains, clusters_of(pairs), bounds=(-1, 1), resamples=resamples, seed=seed)
        p_value = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
        verdict = _verdict(low, high, p_value)
        table.append((arm, reference, len(pairs), won, lost, gains.mean(), low, high, p_value, verdict))
    names = "arm reference rows only_arm only_reference difference low high p_value verdict"
    return pd.DataFrame(table, columns=names.split())


def comparison_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The arms as a plain text table, the most accurate first.

    `scores` has a `metrics.score_arm` result per arm, to which may be added: expected (the expected accuracy of rows
    without labels), rows_per_second, prompt_tokens and completion_tokens (per row), and verdict (against the
    reference). A column that no arm has is left out.
    """
    optional = {
        "without\nrepair": ("repair.without", ".4f"),
        "expected on\nnew rows": ("expected.accuracy", ".4f"),
        "rows/s": ("rows_per_second", ",.1f"),
        "prompt\ntokens/row": ("prompt_tokens", ",.1f"),
        "completion\ntokens/row": ("completion_tokens", ",.1f"),
        "against\nreference": ("verdict", "s"),
    }
    shown = {
        title: spec
        for title, spec in optional.items()
        if any(_find(score, spec[0]) is not None for score in scores.values())
    }
    lines = []
    for arm, score in sorted(scores.items(), key=lambda entry: (-entry[1]["item_accuracy"], entry[0])):
        line = {
            "arm": arm,
            "item\naccuracy": f"{score['item_accuracy']:.4f}",
            "95% interval": f"{score['low']:.4f} to {score['high']:.4f}",
            **{level: f"{accuracy:.4f}" for level, accuracy in score["accuracy"].items()},
            **{title: _shown(score, key, spec) for title, (key, spec) in shown.items()},
        }
        lines.append(line)
    table = pd.DataFrame(lines)
    alignment = ["left" if name in ("arm", "against\nreference") else "right" for name in table]
    return table.to_markdown(index=False, tablefmt="simple", disable_numparse=True, colalign=alignment)


def _find(score: Mapping[str, Any], key: str) -> Any:
    block, _, name = key.rpartition(".")
    return (score.get(block) or {}).get(name) if block else score.get(name)


def _shown(score: Mapping[str, Any], key: str, spec: str) -> str:
    value = _find(score, key)
    return "-" if value is None else format(value, spec)


def _verdict(low: float, high: float, p_value: float) -> str:
    if p_value >= _SIGNIFICANCE or low <= 0 <= high:
        return CANNOT_TELL
    return BETTER if low > 0 else WORSE
