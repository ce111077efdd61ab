"""The rows that the report shows, with every arm's answer and what it was made of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tillmap.core.taxonomy import KEY, Key, LabelPath, Levels, right_labels

ROWS = 800  # shown, at most
_WRONG = 600  # of them wrong
_NEIGHBOURS, _CANDIDATES = 5, 5  # of a row
_PROMPT_CHARACTERS = 1_500_000  # of all rows: prompts are most of the file
Records = Iterable[Mapping[str, Any]]
Tables = Mapping[str, pd.DataFrame]


class Numbered:
    """Distinct values, each with its number: what many rows share is written once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def values(self) -> list[Any]:
        return list(self._numbers)


def choose_rows(predictions: Tables, rows: pd.DataFrame, truth: pd.DataFrame, levels: Levels) -> pd.DataFrame:
    """The rows to show: at most 800, the wrong ones first, then those that the arms are least sure of.

    A row is wrong or not by the first arm that answered it. Of the wrong rows, the surest come first, and at most 600
    are shown. Scored rows are taken before others.

    Args:
        predictions: each arm's predictions table, the most accurate arm first.
        rows: all rows of the split. Those of the training subset are not shown.
        truth: the scored rows.
        levels: the names of the levels.

    Returns rows of `rows`.
    """
    best = pd.concat([table[[*KEY, *levels, "confidence"]] for table in predictions.values()]).drop_duplicates(KEY)
    asked = rows[rows["subset"] != "train"].merge(best[KEY], on=KEY)
    answers = asked[KEY].merge(best, on=KEY, how="left")
    labelled = levels.labelled(asked).to_numpy(bool)
    wrong = labelled & ~right_labels(answers, asked, levels).all(axis=1)
    scored = _are_in(asked, truth)
    sure = answers["confidence"].to_numpy(np.float64)
    order = np.lexsort((np.where(wrong, -sure, sure), ~wrong, np.logical_not(scored)))
    failed, others = order[wrong[order]][:_WRONG], order[~wrong[order]]
    kept = np.concatenate([failed, others[: ROWS - len(failed)]])
    kept = kept[np.lexsort((np.where(wrong, -sure, sure)[kept], ~wrong[kept]))]
    return pd.DataFrame(asked.iloc[kept]).reset_index(drop=True)


def rows_shown(
    chosen: pd.DataFrame,
    predictions: Tables,
    levels: Levels,
    *,
    truth: pd.DataFrame,
    completions: Mapping[str, Records],
    questions: Mapping[str, Records],
    neighbours: pd.DataFrame,
    training: pd.DataFrame,
) -> dict[str, Any]:
    """The chosen rows as one JSON value.

    Args:
        chosen: the result of `choose_rows`.
        predictions: each arm's predictions table, the most accurate arm first.
        levels: the names of the levels.
        truth: the scored rows.
        completions: each arm's completions, as records.
        questions: the questions of each arm that asks a model, as records.
        neighbours: the neighbours table of the rows.
        training: the rows that the neighbours are from.

    Keys: levels; arms; asks_model, the arms that ask a model; paths, lists of labels; texts; and rows. A row has:
        id, split, text, retailer, price (null if unknown), scored.
        truth: the number of its path in `paths`; null if it has no labels.
        corrected: how a person made it so, "changed", "confirmed" or "added"; null for most rows.
        near: for each of its nearest training rows the id, text, number of the path, and similarity.
        answers: by arm, the `path` (a number), `confidence`, `right` (a flag per level; null without truth), `repair`,
            `status`, `candidates` (path number or text, share), and for an arm that asks a model `raw`, its answer,
            and `prompt`, the role and the number of the text of each message. There is no prompt once those of the rows
            before have filled their share of the file.
    """
    keys: list[Key] = list(chosen[KEY].itertuples(index=False, name=None))
    wanted, paths, texts = set(keys), Numbered(), Numbered()
    true = levels.paths(chosen)
    found: dict[Key, list[list[Any]]] = {key: [] for key in keys}
    for split, row_id, neighbour, text, score, path in nearest_rows(neighbours, training, chosen, levels):
        found[split, row_id].append([neighbour, text, paths(path), round(score, 3)])
    answers: dict[Key, dict[str, Any]] = {key: {} for key in keys}
    for arm, table in predictions.items():
        own = chosen[KEY].merge(table, on=KEY)
        labels = own[KEY].merge(chosen[[*KEY, *levels]], on=KEY)
        correct, known = right_labels(own, labels, levels).tolist(), levels.labelled(labels)
        columns = own[[*KEY, "confidence", "repair", "status"]].itertuples(index=False, name=None)
        for values, path, right, labelled in zip(columns, levels.paths(own), correct, known, strict=True):
            split, row_id, confidence, repair, status = values
            answers[split, row_id][arm] = {
                "path": paths(path),
                "confidence": round(confidence, 4),
                "right": right if labelled else None,
                "repair": repair,
                "status": status,
            }
        for record in completions.get(arm, ()):
            key = record["split"], record["id"]
            if key in wanted and arm in answers[key]:
                answers[key][arm] |= _said(record, paths, raw=arm in questions)
    room = _PROMPT_CHARACTERS
    for arm, asked in questions.items():
        prompts = {(record["split"], record["id"]): record["messages"] for record in _of(asked, wanted)}
        for key in keys:
            if arm in answers[key] and key in prompts:
                room -= sum(len(message["content"]) for message in prompts[key])
                if room >= 0:
                    prompt = [[message["role"], texts(message["content"])] for message in prompts[key]]
                    answers[key][arm]["prompt"] = prompt
    shown = chosen["given_id"] if "given_id" in chosen else chosen["id"]
    facts = chosen[["description", "retailer", "price"]].astype(object)
    facts = facts.where(facts.notna(), None)
    has_truth = levels.labelled(chosen)
    corrected = chosen.get("corrected", pd.Series(None, index=chosen.index, dtype=object)).astype(object)
    return {
        "levels": list(levels),
        "arms": list(predictions),
        "asks_model": [arm for arm in predictions if arm in questions],
        "rows": [
            {
                "id": str(given),
                "split": key[0],
                "text": text,
                "retailer": retailer or "",
                "price": price,
                "scored": scored,
                "truth": paths(path) if labelled else None,
                "corrected": by if isinstance(by, str) else None,
                "near": found[key],
                "answers": answers[key],
            }
            for key, given, path, labelled, by, scored, (text, retailer, price) in zip(
                keys,
                shown,
                true,
                has_truth,
                corrected,
                _are_in(chosen, truth),
                facts.itertuples(index=False, name=None),
                strict=True,
            )
        ],
        "paths": paths.values(),
        "texts": texts.values(),
    }


def _are_in(rows: pd.DataFrame, others: pd.DataFrame) -> list[bool]:
    """Whether each of `rows` is one of the others, by its key."""
    flags: list[bool] = pd.MultiIndex.from_frame(rows[KEY]).isin(pd.MultiIndex.from_frame(others[KEY])).tolist()
    return flags


def nearest_rows(
    neighbours: pd.DataFrame, training: pd.DataFrame, chosen: pd.DataFrame, levels: Levels
) -> Iterable[tuple[str, int, str, str, float, LabelPath]]:
    """The nearest training rows of some rows, in order: split, id, and the neighbour's id, text, score, path."""
    near = neighbours[neighbours["rank"] < _NEIGHBOURS].merge(chosen[KEY], on=KEY).sort_values([*KEY, "rank"])
    labels = training.rename(columns={"id": "neighbour"}).drop(columns="split")
    near = near.merge(labels, on="neighbour", how="left").sort_values([*KEY, "rank"])
    given = near["given_id"] if "given_id" in near else near["neighbour"]
    columns = (near["split"], near["id"], given.astype("str"), near["description"], near["score"].astype(float))
    return zip(*columns, levels.paths(near), strict=True)


def _of(records: Records, wanted: set[Key]) -> Records:
    return (record for record in records if (record["split"], record["id"]) in wanted)


def _said(record: Mapping[str, Any], paths: Numbered, *, raw: bool) -> dict[str, Any]:
    """What a completion adds to the answer that was made of it."""
    candidates: Sequence[Any] = (record.get("candidates") or [])[:_CANDIDATES]
    said: dict[str, Any] = {
        "candidates": [
            [paths(LabelPath(*named)) if isinstance(named, list) else named, round(share, 4)]
            for named, share in candidates
        ]
    }
    if raw:
        said["raw"] = record["text"]
        if record.get("error"):
            said["error"] = record["error"]
    return said
