"""Where the rows to review come from: the pipeline's files, or a file that `tillmap predict` labelled."""

import math
from collections.abc import Mapping
from dataclasses import replace

from tillmap.arms import ARMS
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError, Record, read_id, read_label, read_labels, read_price, same_id
from tillmap.config import paths
from tillmap.core.csv_files import text_of
from tillmap.core.errors import InputError
from tillmap.core.files import read_table
from tillmap.core.stored import read_completions, read_rows, read_suspects
from tillmap.core.taxonomy import KEY, Key, LabelPath, LabelTree, Levels, RankedPaths
from tillmap.evaluation.review import guesses
from tillmap.postprocessing.calibration import candidate_scores
from tillmap.review.queue import Queue, ReviewRow, gains
from tillmap.serving.feed import Feed
from tillmap.serving.formats import answer_columns
from tillmap.splitting.subsets import product_key

AUDIT = "audit"  # the source of a queue of labelled rows
_SUFFIX = "_needs_review.csv"
_ROWS_AT_ONCE = 10_000
_REMEDY = "label the file again with `tillmap predict`"


def known_tree() -> LabelTree:
    """The label paths of all labelled rows. The labels of test rows are not among them.

    On a machine that only labels files, the pipeline's rows are missing: then they are those of the training subset.
    Raises InputError if the pipeline's label tree is missing.
    """
    tree = LabelTree.from_table(read_table(paths.TREE))
    if not paths.ROWS.is_file():
        return tree
    rows = read_rows(paths.ROWS, ["split", *tree.levels])
    return LabelTree.from_rows(rows[rows["split"] == "train"], tree.levels, declared=tree)


def from_pipeline(arm: str, levels: Levels) -> Queue:
    """The test rows that `evaluate` wants reviewed, with the ids of the user's files and the arm's candidates.

    Raises InputError if the arm has no such rows: it was off, or review is.
    """
    file = paths.REVIEW / f"{arm}{_SUFFIX}"
    if not file.is_file():
        there = ", ".join(sorted(path.name.removesuffix(_SUFFIX) for path in paths.REVIEW.glob(f"*{_SUFFIX}")))
        remedy = f"choose one of {there}" if there else "run `dvc repro`, with `review.target_accuracy` set"
        raise InputError(f"{file}: file not found, so there is nothing to review of the {arm} arm; {remedy}")
    candidates, given = _candidates(arm), _given_ids()
    proposed = guesses(levels)
    needed = ["split", "id", "description", "retailer", "price", "confidence", "teaches", *proposed]
    table = RowFile(file, "csv", delimiter=",")
    rows = []
    for line in table.rows(needed):
        try:
            record = line.read()
            number = same_id(read_id(record, "id"))
            if not isinstance(number, int):
                raise BadRowError("`id` is no number")
            key, gain = (record["split"], number), read_price(record, "teaches")
            answer = levels.path(text_of(record[guess]) for guess in proposed)
            rows.append(
                ReviewRow(
                    id=given.get(key, number),
                    split=record["split"],
                    text=text_of(record["description"]),
                    retailer=text_of(record["retailer"]),
                    price=record["price"],
                    answer=answer if any(answer) else None,
                    confidence=_confidence(record, "confidence"),
                    gain=0.0 if math.isnan(gain) else gain,
                    candidates=candidates.get(key, ()),
                )
            )
        except BadRowError as fault:
            raise InputError(f"{file}:{line.place}: {fault}; run `dvc repro evaluate` to write it again") from None
    held = read_table(paths.REVIEW / f"{arm}.parquet", ["split"])
    return Queue.of(rows, int((held["split"] == "test").sum()), arm)


def from_audit(levels: Levels) -> Queue:
    """The labelled rows whose label looks wrong to the `audit` stage, the most suspicious first.

    The answer is the label that the row has, its confidence the probability that this is right, and the candidate the
    path that the audit proposes. Raises InputError if the audit is off or was not run.
    """
    if not paths.SUSPECTS.is_file():
        raise InputError(f"{paths.SUSPECTS}: file not found; run `dvc repro audit`, with `audit.folds` and linear on")
    table, given = read_suspects(paths.SUSPECTS, guesses(levels)), _given_ids()
    proposed = table[guesses(levels)].set_axis(list(levels), axis=1)
    rows = [
        ReviewRow(
            id=given.get((row["split"], row["id"]), row["id"]),
            split=row["split"],
            text=row["description"],
            retailer=row["retailer"],
            price="" if math.isnan(row["price"]) else f"{row['price']:.2f}",
            answer=path,
            confidence=row["confidence"],
            gain=1 - row["confidence"],
            candidates=[(guess, row["suspicion"])],
        )
        for row, path, guess in zip(table.to_dict("records"), levels.paths(table), levels.paths(proposed), strict=True)
    ]
    labelled = read_rows(paths.ROWS, ["split"])
    return Queue.of(rows, int((labelled["split"] == "train").sum()), AUDIT)


def from_file(labelled: RowFile, lines: Feed, levels: Levels) -> Queue:
    """The rows of a file that `tillmap predict` labelled, without those that it says need no review.

    Args:
        labelled: the file: ids, the levels and `confidence`; `source` and `needs_review` may be missing.
        lines: the file that was labelled, for the lines. It may be the same, if that has them, too.
        levels: the names of the levels.

    Raises InputError for a bad row, or if a line is missing.
    """
    texts = _lines(labelled, lines)
    names = answer_columns(lines.id_name, levels, codes=False)
    columns = [names[level] for level in levels]
    file = replace(labelled, known=(lines.id_name, *columns))
    read: list[tuple[int | str, LabelPath, float, str]] = []
    total = 0
    for row in file.rows([lines.id_name, *columns, names["confidence"]], [names["source"], names["needs_review"]]):
        try:
            record = row.read()
            total += 1
            if str(record.get(names["needs_review"])).lower() == "false":
                continue
            key = read_id(record, lines.id_name)
            if same_id(key) not in texts:
                raise BadRowError(f"{lines.file.shown} has no row with the id {key}")
            path = LabelPath(*(read_label(record, column) for column in columns))
            if any(path):
                path = read_labels(record, columns, levels, ragged=True)
            read.append((key, path, _confidence(record, names["confidence"]), str(record.get(names["source"]) or "")))
        except BadRowError as fault:
            raise InputError(f"{file.shown}:{row.place}: {fault}; {_REMEDY}") from None
    found = [texts[same_id(key)] for key, *_ in read]
    worth = gains([1 - confidence for _, _, confidence, _ in read], [product_key(text) for text, *_ in found])
    rows = []
    for (key, path, confidence, _), (text, retailer, price), gain in zip(read, found, worth, strict=True):
        answer = path if any(path) else None
        rows.append(ReviewRow(key, text, answer, confidence, gain, retailer=retailer, price=price))
    sources = {source for *_, source in read}
    return Queue.of(rows, total, sources.pop() if len(sources) == 1 else "")


def _candidates(arm: str) -> Mapping[Key, RankedPaths]:
    """The arm's candidates; for rows that it has none for, those of the free arms."""
    found: dict[Key, RankedPaths] = {}
    for name in dict.fromkeys([arm, *(name for name in ARMS if ARMS[name].free)]):
        file = paths.COMPLETIONS / f"{name}.jsonl"
        if file.is_file():
            scores = candidate_scores(list(read_completions(file)))
            found = {**{key: ranked for key, ranked in scores.items() if ranked}, **found}
    return found


def _given_ids() -> dict[Key, str]:
    """The ids in the user's files, where the pipeline numbers the rows."""
    rows = read_rows(paths.ROWS)
    if "given_id" not in rows:
        return {}
    return dict(zip(rows[KEY].itertuples(index=False, name=None), rows["given_id"], strict=True))


def _lines(labelled: RowFile, lines: Feed) -> dict[int | str, tuple[str, str, str]]:
    """The text, retailer and price of each row of a file, by its id."""
    try:
        return {
            same_id(key): (text, retailer, "" if math.isnan(price) else f"{price:.2f}")
            for batch in lines.batches(_ROWS_AT_ONCE)
            for key, text, retailer, price in batch.itertuples(index=False, name=None)
        }
    except InputError as error:
        if lines.file.path != labelled.path:
            raise
        raise InputError(
            f"{error}\n{labelled.shown} must have the lines, too; if not, name the file that was labelled with --rows"
        ) from None


def _confidence(record: Record, name: str) -> float:
    try:
        confidence = float(record[name])
    except (KeyError, TypeError, ValueError):
        confidence = math.nan
    if not 0 <= confidence <= 1:
        raise BadRowError(f"`{name}` is missing or not from 0 to 1")
    return confidence
