"""Reads the labels of a row: from a column for each level, or from one column with a code or a path."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tillmap.catalogue.codelist import CodeList
from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError, Record, missing_label, read_label, read_labels, show
from tillmap.catalogue.separators import LabelsOf, are_short_codes, find_separator, read_path
from tillmap.config.blocks import Taxonomy
from tillmap.core.errors import ParamsError
from tillmap.core.taxonomy import MAX_LEVELS, LabelPath, Levels, trim

_RAGGED = " (with `taxonomy.ragged: true` a path may end early)"
_DISTINCT = 100_000  # codes that are looked at, to recognise how they are written


@dataclass(frozen=True)
class LabelReader:
    """Reads the path of a row.

    Attributes:
        levels: the names of the levels.
        columns: the fields with a label of each level; or one field with a code or path.
        in_one: whether one field has the whole chain.
        ragged: whether a path may end early where the fields are blank. A code may always end early.
        separator: what is between the parts of a code or path; None if nothing is.
        labels: what the parts of a code give, see `read_path`.
        short: whether the parts are short codes.
        codes: the taxonomy file, whose names are the labels; None if there is none.
    """

    levels: Levels
    columns: tuple[str, ...]
    in_one: bool = False
    ragged: bool = False
    separator: str | None = None
    labels: LabelsOf = "parts"
    short: bool = False
    codes: CodeList | None = None

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields that a file need not have: the brand beside a code."""
        return (self.levels.brand,) if self.in_one and self.levels.brand else ()

    def is_labelled(self, record: Record) -> bool:
        """Whether a row has any label."""
        return any(record.get(name) is not None and read_label(record, name) for name in self.columns)

    def read(self, record: Record) -> LabelPath:
        """The row's path. Raises BadRowError if there is none, or it is not one of the taxonomy."""
        if not self.in_one:
            path = read_labels(record, self.columns, self.levels, ragged=self.ragged, hint=_RAGGED)
            if self.codes is None:
                return path
            chain = trim(self.levels.chain_of(path))
            names = self.codes.named(chain) or self.codes.names.get(chain[-1])
            shown = " > ".join(chain)
            return self._path(self._known(names, "the path", shown), path[self.levels.depth :])
        column = self.columns[0]
        value = read_label(record, column).strip()
        if not value:
            raise missing_label(record, column)
        if self.codes is not None:
            chain = self._known(self.codes.find(value), f"`{column}`", value)
        else:
            chain = read_path(column, value, self.separator, self.labels, short=self.short)
        if len(chain) > self.levels.depth:
            raise BadRowError(
                f"`{column}` is {show(value)}, which has {len(chain)} levels, expected at most {self.levels.depth} "
                "(`taxonomy.levels`)"
            )
        return self._path(chain, [read_label({name: None, **record}, name) for name in self.optional])

    @staticmethod
    def _known(names: tuple[str, ...] | None, what: str, value: str) -> tuple[str, ...]:
        if names is None:
            raise BadRowError(f"{what} is {show(value)}, expected one of the taxonomy file (`taxonomy.file`)")
        return names

    def _path(self, chain: Sequence[str], brand: Sequence[str]) -> LabelPath:
        return LabelPath(*chain, *[""] * (self.levels.depth - len(chain)), *brand)


def make_label_reader(
    taxonomy: Taxonomy,
    columns: str | Sequence[str] | None,
    files: Iterable[RowFile],
    codes: CodeList | None,
) -> LabelReader:
    """A reader of the labels in some files.

    Args:
        taxonomy: the block of params.yaml.
        columns: `data.columns.levels`: a field for each level; one field with a code or path; None for fields named as
            the levels are.
        files: the files with labels, to recognise how codes are written.
        codes: the taxonomy file, if there is one.

    Raises ParamsError if the two blocks do not fit, InputError if the levels are not as they must be.
    """
    if isinstance(columns, str):
        return _code_reader(taxonomy, columns, files, codes)
    names = taxonomy.levels or columns
    if names is None:
        raise ParamsError(
            "taxonomy.levels is null, which counts the levels in a code or path; name its column in "
            "`data.columns.levels`, or name the levels"
        )
    levels = Levels(tuple(names), taxonomy.brand)
    columns = tuple(columns or names)
    if len(columns) != len(levels):
        raise ParamsError(
            f"data.columns.levels has {len(columns)} columns for the {len(levels)} levels {', '.join(levels)}; "
            "expected one for each, in the same order"
        )
    _check_depth(codes, levels)
    return LabelReader(levels, columns, ragged=taxonomy.ragged, codes=codes)


def _code_reader(taxonomy: Taxonomy, column: str, files: Iterable[RowFile], codes: CodeList | None) -> LabelReader:
    levels = None if taxonomy.levels is None else Levels(tuple(taxonomy.levels), taxonomy.brand)
    if codes is not None:
        levels = levels or _counted(codes.depth, taxonomy.brand)
        _check_depth(codes, levels)
        return LabelReader(levels, (column,), in_one=True, codes=codes)
    found = list(_values(files, column))
    separator = taxonomy.separator
    if separator is None and (levels is None or levels.depth > 1):
        separator = find_separator(found)
    short = are_short_codes(found, separator)
    labels: LabelsOf = taxonomy.labels if taxonomy.labels != "auto" else "prefixes" if short else "parts"
    if levels is None:
        depths = set()
        for value in found:
            with suppress(BadRowError):
                depths.add(len(read_path(column, value, separator, labels, short=short)))
        levels = _counted(max((depth for depth in depths if depth <= MAX_LEVELS), default=MAX_LEVELS), taxonomy.brand)
    return LabelReader(levels, (column,), True, False, separator, labels, short)


def _values(files: Iterable[RowFile], column: str) -> Iterator[str]:
    """The codes of some files, each once."""
    seen: set[str] = set()
    for file in files:
        for row in file.rows([], [column]):
            with suppress(BadRowError):
                value = read_label(row.read(), column).strip()
                if value and value not in seen:
                    seen.add(value)
                    yield value
                if len(seen) >= _DISTINCT:
                    return


def _counted(depth: int, brand: str | None) -> Levels:
    names = [f"level_{number}" for number in range(1, depth + 1)]
    return Levels((*names, brand) if brand else tuple(names), brand)


def _check_depth(codes: CodeList | None, levels: Levels) -> None:
    if codes is not None and codes.depth > levels.depth:
        raise ParamsError(
            f"taxonomy.levels names {levels.depth} levels ({', '.join(levels.chain)}), but {codes.file.shown} has "
            f"{codes.depth}; name all, or set taxonomy.levels to null"
        )
