"""What the page shows and does: a queue, a log and a search, as JSON values."""

from typing import Any

from tillmap.core.errors import InputError
from tillmap.core.taxonomy import LabelPath, LabelTree
from tillmap.review.decisions import Decision, DecisionLog
from tillmap.review.queue import USUAL_PACE, Item, Queue, ReviewRow, hourly_gains, pace
from tillmap.review.search import PathSearch

Json = dict[str, Any]

_CANDIDATES = 9  # one for each digit
_TWINS = 8  # that are shown; the others are counted
_FOUND = 20


class Page:
    """The state of the page. Positions are those of the queue's items, from 0."""

    def __init__(self, queue: Queue, log: DecisionLog, tree: LabelTree) -> None:
        """The page of a queue. Raises InputError if the queue is empty."""
        if not queue.items:
            raise InputError("there is no row to review: every answer is sure enough")
        self._queue, self._log, self._tree = queue, log, tree
        self._search = PathSearch(tree)
        self._places = {row.key: place for place, item in enumerate(queue.items) for row in item}
        self._rows = sum(map(len, queue.items))
        self._open: list[int] = []  # of each item, its undecided rows
        self._doubts: list[float] = []  # and the sum of their doubts
        for item in queue.items:
            rows = self._undecided(item)
            self._open.append(len(rows))
            self._doubts.append(sum(row.doubt for row in rows))

    def start(self) -> Json:
        """What the page needs once, and the first open item."""
        about = {
            "levels": list(self._tree.levels),
            "brand": self._tree.levels.brand,
            "file": str(self._log.path),
            "source": self._queue.source,
        }
        return {"about": about, **self.show(self._next_open(-1) or 0)}

    def show(self, place: int) -> Json:
        """The item at a position, and the progress."""
        return {"place": place, "item": self._item(place), "progress": self._progress()}

    def decide(self, place: int, labels: list[str] | None, twins: bool) -> Json:
        """Save a decision, and show the next open item, or the same one if none is open.

        Args:
            place: the position of the item.
            labels: one label a level, "" where the path has none; None for "can't tell".
            twins: whether all rows of the item are decided, or only the one that is shown.

        Raises InputError for a path that is neither known nor an answer to this item, and what `DecisionLog.decide`
        raises.
        """
        item = self._queue.items[place]
        path = None if labels is None else LabelPath(*labels)
        offered = {path for row in item for path in (row.answer, *(path for path, _ in row.candidates))}
        if path is not None and path not in self._tree and path not in offered:
            raise InputError(f"{' > '.join(filter(None, path))}: not a path of the taxonomy; search for one")
        rows = self._shown_rows(item)
        decision = self._log.decide(rows if twins else rows[:1], path, self._queue.source)
        self._refresh(place)
        after = self._next_open(place)
        return {"saved": self._decision(decision), **self.show(place if after is None else after)}

    def undo(self, number: int) -> Json:
        """Take a decision back, and show its item. Raises what `DecisionLog.undo` raises."""
        undone = self._log.undo(number)
        touched = [self._places[row.key] for row in undone.rows if row.key in self._places] if undone else []
        for place in set(touched):
            self._refresh(place)
        undone_view = self._decision(undone) if undone else None
        return {"undone": undone_view, **self.show(touched[0] if touched else self._next_open(-1) or 0)}

    def find(self, query: str) -> Json:
        """The paths that a query finds."""
        found, total = self._search.find(query, _FOUND)
        return {"paths": [self._path(path) for path in found], "total": total}

    def __len__(self) -> int:
        return len(self._queue.items)

    def _refresh(self, place: int) -> None:
        rows = self._undecided(self._queue.items[place])
        self._open[place], self._doubts[place] = len(rows), sum(row.doubt for row in rows)

    def _undecided(self, item: Item) -> Item:
        return tuple(row for row in item if self._log.of(row.key) is None)

    def _shown_rows(self, item: Item) -> Item:
        """The rows that a decision is about: those that are open, or all if none is. The first one is shown large."""
        return self._undecided(item) or item

    def _next_open(self, place: int) -> int | None:
        """The first open item after a position, else the first of all; None if there is none."""
        places = (*range(place + 1, len(self._open)), *range(place + 1))
        return next((each for each in places if self._open[each]), None)

    def _item(self, place: int) -> Json:
        row, *twins = self._shown_rows(self._queue.items[place])
        decision = self._log.of(row.key)
        return {
            **_line(row),
            "answer": None if row.answer is None else self._path(row.answer),
            "confidence": row.confidence,
            "candidates": self._candidates(row),
            "twins": [_line(twin) for twin in twins[:_TWINS]],
            "twins_total": len(twins),
            "decision": None if decision is None else self._decision(decision),
        }

    def _candidates(self, row: ReviewRow) -> list[Json]:
        """The arm's other candidates. Where it has none, paths near its answer, without a share."""
        others = [{**self._path(path), "share": share} for path, share in row.candidates if path != row.answer]
        if not others and row.answer is not None:
            others = [self._path(path) for path in self._search.near(row.answer, _CANDIDATES)]
        return others[:_CANDIDATES]

    def _path(self, path: LabelPath) -> Json:
        return {"labels": list(path), "code": self._tree.code_of(path), "known": path in self._tree}

    def _decision(self, decision: Decision) -> Json:
        labels = None if decision.labels is None else [decision.labels.get(level, "") for level in self._tree.levels]
        return {
            "number": decision.number,
            "labels": labels,
            "rows": len(decision.rows),
            "who": decision.who,
            "when": decision.when.isoformat(),
        }

    def _progress(self) -> Json:
        left = sum(self._open)
        valid = self._log.valid
        measured = pace([decision.when for decision in valid])
        an_hour = measured or USUAL_PACE
        doubts = [doubt for doubt, rows in zip(self._doubts, self._open, strict=True) if rows]
        # The log may have decisions about other rows, too: who cannot see them must not undo them.
        mine = (each for each in reversed(valid) if any(row.key in self._places for row in each.rows))
        last = next(mine, None)
        return {
            "items": len(self._queue.items),
            "rows": self._rows,
            "decided": self._rows - left,
            "pace": measured,
            "usual": USUAL_PACE,
            "gains": hourly_gains(doubts, an_hour, self._queue.total),
            "total": self._queue.total,
            "last": None if last is None else last.number,
        }


def _line(row: ReviewRow) -> Json:
    return {"text": row.text, "retailer": row.retailer, "price": row.price}
