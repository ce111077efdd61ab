"""The rows to review in the order of what their labels teach, and what each further hour is expected to gain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from tillmap.core.taxonomy import LabelPath, RankedPaths
from tillmap.core.text import line_key

Key = tuple[str, int | str, str]  # split, id and text: the ids of two files may be the same, their lines are not

USUAL_PACE = 240.0  # decisions an hour before there is a pace to measure: 15 seconds each
_BREAK = timedelta(minutes=2)
_MEASURED = 100  # the pace is that of the last decisions
_ENOUGH = 5  # intervals that make a pace


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A row whose answer a person can accept or correct.

    Attributes:
        id: its id.
        text: the line.
        answer: the label path that was answered; None if there is no answer.
        confidence: the probability that the whole answer is right, 0 to 1.
        gain: how many rows its label is expected to correct, see `gains`.
        split: "train" or "test" for a row of the pipeline, "" for a row of another file.
        retailer: "" if it is not known.
        price: as it is shown, "" if it is not known.
        candidates: label paths that may be right, with their shares, best first.
    """

    id: int | str
    text: str
    answer: LabelPath | None
    confidence: float
    gain: float
    split: str = ""
    retailer: str = ""
    price: str = ""
    candidates: RankedPaths = ()

    @property
    def key(self) -> Key:
        """What tells this row from all others."""
        return self.split, self.id, self.text

    @property
    def doubt(self) -> float:
        """The probability that the answer is wrong."""
        return 1.0 - self.confidence


Item = tuple[ReviewRow, ...]  # twins: rows whose lines are the same but for case, accents and punctuation


@dataclass(frozen=True)
class Queue:
    """Rows to review. Make it with `of`.

    Attributes:
        items: twins together, in the order in which to decide them.
        total: the number of rows whose accuracy the review improves, those that need no review included.
        source: the arm that answered, or "" if it is not known.
    """

    items: tuple[Item, ...]
    total: int
    source: str = ""

    @classmethod
    def of(cls, rows: Iterable[ReviewRow], total: int | None = None, source: str = "") -> "Queue":
        """The queue of some rows. An item comes where its first row comes when the rows are sorted by gain."""
        twins: dict[str, list[ReviewRow]] = {}
        for row in sorted(rows, key=lambda row: -row.gain):
            twins.setdefault(line_key(row.text), []).append(row)
        items = tuple(map(tuple, twins.values()))
        queued = sum(map(len, items))
        return cls(items, max(queued, total or 0), source)  # a damaged count must not be below the rows themselves


def gains(doubts: Sequence[float], products: Sequence[str]) -> list[float]:
    """How many rows the label of each row is expected to correct, if rows of the same product need the same label.

    The most doubtful row of a product gets the sum of the product's doubts; each other row its own doubt divided by the
    number of the product's rows. `needs_review` sorts the pipeline's rows in the same way.

    Args:
        doubts: of each row, the probability that its answer is wrong.
        products: of each row, the key of its product.

    >>> [round(gain, 2) for gain in gains([0.4, 0.5, 0.3], ["tea", "tea", "tea"])]
    [0.13, 1.2, 0.1]
    """
    members: dict[str, list[int]] = {}
    for place, product in enumerate(products):
        members.setdefault(product, []).append(place)
    found = [0.0] * len(doubts)
    for places in members.values():
        for place in places:
            found[place] = doubts[place] / len(places)
        first = max(places, key=lambda place: doubts[place])
        found[first] = sum(doubts[place] for place in places)
    return found


def pace(times: Sequence[datetime]) -> float | None:
    """Decisions an hour, from when the last 100 were made, in order; None before there are enough of them.

    Intervals of more than two minutes are breaks and do not count, nor do those in which the clock was put back.
    """
    intervals = [after - before for before, after in pairwise(times[-_MEASURED:])]
    intervals = [each for each in intervals if timedelta() <= each <= _BREAK]
    spent = sum(intervals, timedelta()).total_seconds()
    return len(intervals) / spent * 3600 if len(intervals) >= _ENOUGH and spent > 0 else None


def hourly_gains(doubts: Sequence[float], an_hour: float, total: int, hours: int = 3) -> list[float]:
    """How much each further hour is expected to add to the accuracy of all rows, 0 to 1.

    A decision makes its rows right, so it is expected to correct as many as the sum of their doubts. What other rows
    learn from it, once the arm is trained again, comes on top and is not counted here.

    Args:
        doubts: of each open item in the order of the queue, the sum of its rows' doubts.
        an_hour: decisions an hour.
        total: the number of rows whose accuracy is meant.
        hours: how many hours to look ahead. Hours in which nothing is left to decide are left out.

    >>> hourly_gains([0.75, 0.5, 0.25], an_hour=2, total=10)
    [0.125, 0.025]
    """
    each = max(1, round(an_hour))
    starts = range(0, min(len(doubts), each * hours), each)
    return [sum(doubts[start : start + each]) / total for start in starts]
