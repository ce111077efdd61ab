"""Reads what stages hand to each other, and checks that it is what they wrote."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from tillmap.core.completions import Completion, Message, Question
from tillmap.core.errors import InputError
from tillmap.core.files import read_json, read_jsonl, read_table
from tillmap.core.taxonomy import KEY

INGESTED = (*KEY, "description", "retailer", "price")  # before the rows are split
ROWS = (*INGESTED, "subset", "product")
NEIGHBOURS = (*KEY, "rank", "neighbour", "score")
SUSPECTS = (*KEY, "description", "retailer", "price", "level", "suspicion", "confidence",
            "model_own", "model_guess", "votes_own", "votes_guess")  # fmt: skip
PREDICTIONS = (*KEY, "confidence", "repair", "in_tree", "source", "status")
_MAX_SHARE = 1.001  # sums of shares, and probabilities from logarithms, are rounded
_FULL = {*ROWS, *NEIGHBOURS, *PREDICTIONS} - {"price"}  # columns without an empty value


class _Message(TypedDict):
    role: str
    content: str


class _Question(TypedDict):
    split: str
    id: int
    messages: list[_Message]
    answers: list[str] | None
    choices: list[str] | None


_COMPLETION = TypeAdapter(Completion)
_QUESTION = TypeAdapter(_Question)
_MESSAGES = TypeAdapter(list[_Message])
_UNSAID = {each.name: each.default for each in fields(Completion) if each.default is not MISSING}


def read_rows(path: Path, columns: Sequence[str] | None = None, *, needed: Sequence[str] = ROWS) -> pd.DataFrame:
    """The table of rows, with some columns or with all, among which are those that are `needed`.

    Raises InputError if the file is missing or damaged, lacks a column, or has a row twice.
    """
    rows = read_table(path, None if columns is None else list(columns))
    _with(needed if columns is None else columns, rows, path)
    key = [name for name in KEY if name in rows]
    if len(key) == len(KEY) and rows.duplicated(key).any():
        raise InputError(f"{path}: a row is there twice; run `dvc repro` to write it again")
    return rows


def read_neighbours(path: Path) -> pd.DataFrame:
    """A table of neighbours. Raises InputError if it is missing or damaged."""
    return _with(NEIGHBOURS, read_table(path), path)


def read_paths(path: Path, levels: Iterable[str]) -> pd.DataFrame:
    """The label paths that an arm ranks first for each row, without rows that show them (`retrieval.paths`).

    Raises InputError if it is missing or damaged.
    """
    return _with([*KEY, "rank", *levels, "score"], read_table(path), path)


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions; without rows if the arm is off. Raises InputError if it is missing or damaged."""
    return _with(PREDICTIONS, read_table(path), path)


def read_suspects(path: Path, guesses: Sequence[str]) -> pd.DataFrame:
    """The table of labels that look wrong, with the columns of the likelier path.

    Raises InputError if it is missing or damaged.
    """
    return _with([*SUSPECTS, *guesses], read_table(path), path)


def read_completions(path: Path) -> Iterator[dict[str, Any]]:
    """The records of completions, one at a time. Raises InputError, with the line's number, for anything else."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            _COMPLETION.validate_python(record)
            # Half a surrogate may be in what a model says, but not in what becomes a column.
            f"{record.get('split')}{record.get('status')}".encode()
            for labels, share in record["candidates"] or ():
                float(share)
                "".join(labels).encode()
        except (ValidationError, KeyError, TypeError, ValueError):
            raise InputError(f"{path}:{number}: not an answer; run `dvc repro infer` to write the file again") from None
        yield _UNSAID | record


def read_questions(path: Path) -> Iterator[Question]:
    """The questions to a language model, one at a time. Raises InputError, with the line, for anything else."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            checked: dict[str, Any] = {**_QUESTION.validate_python(record, strict=True)}
        except ValidationError:
            raise InputError(
                f"{path}:{number}: not a question; run `dvc repro prompts` to write the file again"
            ) from None
        yield Question(**checked)


def read_conversations(path: Path) -> Iterator[list[Message]]:
    """The training examples of a tuned model, one at a time. Raises InputError, with the line, for anything else."""
    for number, record in enumerate(read_jsonl(path), 1):
        try:
            _MESSAGES.validate_python(record["messages"], strict=True)
        except (ValidationError, KeyError):
            raise InputError(
                f"{path}:{number}: not a training example; run `dvc repro prompts` to write the file again"
            ) from None
        yield record["messages"]


def read_held_out(path: Path, confidence: str) -> pd.DataFrame:
    """The calibration rows of an arm: `right`, their `product`, and the confidences in the column of that name.

    Raises InputError if the file is missing or damaged.
    """
    columns = [confidence, "right", "product"]
    table = _with(columns, read_table(path, columns), path)
    if table["right"].dtype.kind != "b" or not _are_shares(table[confidence]):
        raise InputError(f"{path}: not confidences of 0 to 1; run `dvc repro postprocess` to write the table again")
    return table


def _with(columns: Sequence[str], table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if missing := [name for name in columns if name not in table]:
        raise InputError(f"{path}: no column {', '.join(missing)}; run `dvc repro` to write the table again")
    if empty := [name for name in _FULL if name in table and table[name].isna().any()]:
        raise InputError(f"{path}: {empty[0]} has empty values; run `dvc repro` to write the table again")
    if "confidence" in table and not _are_shares(table["confidence"]):
        raise InputError(f"{path}: a confidence is not 0 to 1; run `dvc repro` to write the table again")
    return table


def _are_shares(column: pd.Series) -> bool:
    return column.empty or (column.dtype.kind == "f" and bool(column.between(0, _MAX_SHARE).all()))


class _Noted(BaseModel):
    """What a stage notes as JSON. There may be more in it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Amount = Annotated[float, Field(ge=0)]
_MAX_AMOUNT = 1e15
_MIN_RATE = 1e-9  # rows in a second; below, the hours that rows take are no number any more


class _Usage(_Noted):
    rows: Annotated[int, Field(ge=1, le=2**53)]
    test_rows: _Count
    rows_per_second: Annotated[float, Field(ge=_MIN_RATE)]
    prompt_tokens: _Count = 0
    cached_tokens: _Count = 0
    completion_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    device: str = "cpu"
    batch: bool = False
    tuned: bool = False
    estimated_usd: _Amount = 0.0


class _Trained(_Noted):
    train_seconds: _Amount
    device: str
    losses: list[Annotated[list[float], Field(min_length=3, max_length=3)]] = []


class _Job(_Noted):
    mode: str
    model: str
    trained_tokens: _Count
    usd: _Amount
    estimated_usd: _Amount


class _Wrong(_Noted):
    share: _Amount
    low: _Amount
    high: _Amount


class _Audited(_Noted):
    rows: _Count
    wrong: _Wrong


def read_audited(path: Path) -> dict[str, Any]:
    """How many rows were audited, and the estimated share of wrong labels.

    Raises InputError if the file is missing or is something else.
    """
    return _read_noted(path, _Audited)


def read_usage(path: Path) -> dict[str, Any]:
    """What the answers of an arm took. Raises InputError if the file is missing or is something else."""
    return _read_noted(path, _Usage)


def read_training(path: Path) -> dict[str, Any] | None:
    """What a training took, or the record of a job at a provider; None if nothing was trained.

    Raises InputError if the file is missing or is something else.
    """
    found = read_json(path)
    if isinstance(found, dict) and found.get("off"):
        return None
    return _read_noted(path, _Job if isinstance(found, dict) and "trained_tokens" in found else _Trained)


def read_job(path: Path) -> dict[str, Any]:
    """The record of a model at a provider. Raises InputError if the file is missing or is something else."""
    return _read_noted(path, _Job)


def read_metrics(path: Path, *keys: str) -> dict[str, Any]:
    """The block below some keys of a metrics file; empty if it is not there. Raises InputError if it is not JSON."""
    found = read_json(path) if path.is_file() else None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def amount(block: Mapping[str, Any], name: str) -> float:
    """A number of a metrics file; 0 if there is none that could be one of seconds, rows or tokens."""
    value = block.get(name)
    return value if isinstance(value, int | float) and 0 <= value <= _MAX_AMOUNT else 0


def _read_noted(path: Path, kind: type[_Noted]) -> dict[str, Any]:
    found = read_json(path)
    try:
        kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "all"
        raise InputError(f"{path}: {where}: {first['msg']}; run `dvc repro` to write the file again") from None
    return dict(found)
