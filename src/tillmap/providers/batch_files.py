"""The files of a batch: downloading them unchanged, and reading the result or the error of each line."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openai.types import Batch

from tillmap.core.files import json_object, write_text
from tillmap.providers.client import Service, field_hint

logger = logging.getLogger(__name__)

_MAX_DOWNLOADS = 3  # of a file that arrives damaged


def fetch(service: Service, file_id: str, target: Path) -> None:
    """Download a JSON Lines file, and once or twice more if a line is damaged. The last download is kept as it is."""
    for _ in range(_MAX_DOWNLOADS):
        content = service.read(lambda: service.client.files.content(file_id).read(), may_lag=True)
        if all(line is not None for line in _parsed(content)):
            break
        logger.warning("a line of the file %s is damaged; fetching it again", file_id)
    write_text(content.decode(errors="replace"), target)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a batch's file, without damaged ones and those of no row. A missing file has none."""
    lines = _parsed(path.read_bytes()) if path.exists() else ()
    return [line for line in lines if line is not None and isinstance(line.get("custom_id"), str)]


def _parsed(content: bytes) -> Iterator[dict[str, Any] | None]:
    return (json_object(line) for line in content.splitlines() if line.strip())


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def is_over_limit(batch: Batch) -> bool:
    """Whether a batch failed because too many tokens were in the queue already."""
    errors = (batch.errors and batch.errors.data) or []
    return batch.status == "failed" and any(
        error.code == "token_limit_exceeded" or "enqueued token" in (error.message or "").lower() for error in errors
    )


def reasons(batch: Batch, rows: list[str]) -> dict[str, str]:
    """Why a batch failed, by the row of the faulty line. The empty name has the error that names no line."""
    errors = (batch.errors and batch.errors.data) or []
    return {
        rows[error.line - 1] if error.line and 0 < error.line <= len(rows) else "": f"{error.code}: {error.message}"
        for error in errors
    }


def failure(line: dict[str, Any]) -> str | None:
    """Why a result line has no answer, or None if it has one."""
    response, error = _object(line.get("response")), line.get("error")
    if not error and response.get("status_code") == 200:
        return None
    error = _object(error) or _object(_object(response.get("body")).get("error"))
    said = f"{error.get('code') or response.get('status_code')}: {error.get('message', 'no message')}"[:500]
    hint = field_hint(*(text if isinstance(text, str) else None for text in (error.get("code"), error.get("param"))))
    return f"{said}; {hint}" if hint else said
