"""Reads a user's files in tests: the contest's params with some values changed."""

from project import ROOT

from tillmap.arms import schema
from tillmap.catalogue.source import Source
from tillmap.catalogue.source import read_source as read
from tillmap.config.params import read_params

PARAMS = read_params(ROOT / "params.yaml", schema(), ["data", "taxonomy"])


def data(source="", columns=None, **values):
    """The data block, with some values changed."""
    block = PARAMS.data
    columns = block.columns.model_copy(update=columns or {})
    return block.model_copy(update={"source": str(source), "columns": columns, **values})


def taxonomy(**values):
    return PARAMS.taxonomy.model_copy(update=values)


def read_source(source, on_bad_row="stop", columns=None, tax=None, **values) -> Source:
    """Read a folder or file; `values` are those of the data block, `tax` those of the taxonomy block."""
    return read(data(source, columns, on_bad_row=on_bad_row, **values), taxonomy(**(tax or {})))
