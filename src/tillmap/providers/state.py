"""Which jobs and batches a run has created at a provider, in a small JSON file that outlives the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tillmap.core.errors import InputError
from tillmap.core.files import read_json, write_json
from tillmap.core.run_state import alone
from tillmap.core.services import KeyVariable

STATE = "state.json"
_CANCELLED = "cancelled"


class RunState:
    """The records of one run's jobs or batches by key, saved before and after each create.

    A record has `kind` ("job" or "batch"), `id` (None until known), `asked` (when its creation was last tried, in
    seconds since 1970, or None) and `ended` (the final status, or None).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / STATE
        self._value: dict[str, Any] = _read(path) if path.exists() else {"service": {}, "records": {}}

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """Every record by key, oldest first."""
        return self._value["records"]  # type: ignore[no-any-return]

    @property
    def service(self) -> dict[str, str]:
        """The provider's address and the name of the key's variable, for a later `cancel`."""
        return self._value["service"]  # type: ignore[no-any-return]

    def set_service(self, **values: str) -> None:
        self._value["service"] = values
        self._save()

    def update(self, key: str, **values: Any) -> None:
        """Change or add a record, and save it."""
        self.records.setdefault(key, {"kind": None, "id": None, "asked": None, "ended": None}).update(values)
        self._save()

    @property
    def is_cancelled(self) -> bool:
        return (self.folder / _CANCELLED).exists()

    def cancel(self) -> None:
        """Tell the process that follows this run to stop."""
        (self.folder / _CANCELLED).touch()

    def _save(self) -> None:
        write_json(self._value, self.folder / STATE)


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: str | None
    id: str | None
    asked: float | None
    ended: str | None
    refused: bool = False
    reasons: dict[str, str] = {}


class _Service(BaseModel):
    base_url: str
    key_variable: KeyVariable
    run: str


class _State(BaseModel):
    service: _Service
    records: dict[str, _Record]


def _read(path: Path) -> dict[str, Any]:
    written = read_json(path)
    try:
        _State.model_validate(written)
    except ValidationError:
        raise InputError(
            f"{path}: not the state of a run; delete its folder and run again: what the provider has is found"
        ) from None
    return dict(written)


@contextmanager
def own_run(folder: Path) -> Iterator[RunState]:
    """Open the state of a run, for one process at a time. Raises ResourceError if another process has it."""
    with alone(folder):
        (folder / _CANCELLED).unlink(missing_ok=True)
        yield RunState(folder)
