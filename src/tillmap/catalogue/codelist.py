"""Reads a taxonomy file: the codes, names and notes of a user's own classification."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tillmap.catalogue.formats import RowFile
from tillmap.catalogue.rows import BadRowError, Record, read_label, show
from tillmap.catalogue.separators import find_separator, split_path
from tillmap.core.errors import InputError
from tillmap.core.taxonomy import MAX_LEVELS, LabelPath, LabelTree, Levels, trim
from tillmap.core.text import normalise

Names = tuple[str, ...]  # of a node: the names from the first level down to its own

# What each column may be called, after `normalise`.
_HEADERS = {
    "code": ("code", "id", "key", "class code", "category code", "category id", "class id", "node id", "node"),
    "parent": ("parent", "parent code", "parent id", "parentcode", "parentid", "broader"),
    "path": ("path", "full path", "category path", "breadcrumb", "breadcrumbs", "hierarchy"),
    "label": ("label", "name", "title", "heading", "term", "category name", "class name"),
    "description": ("description", "definition", "explanation", "note", "notes", "comment", "comments", "scope note"),
    "includes": ("includes", "include", "inclusions", "this item includes", "this item also includes", "examples"),
    "excludes": ("excludes", "exclude", "exclusions", "this item excludes", "does not include"),
}


@dataclass(frozen=True)
class CodeList:
    """A classification, as its file has it.

    Attributes:
        file: the file.
        names: the names of each node by its key, which is its code, or its path in a file without codes.
        definitions: what belongs to each node, in words, by its key; "" where nothing is known.
        coded: whether the keys are codes.
        separator: what is between the parts of a key; None if nothing is.
    """

    file: RowFile
    names: Mapping[str, Names]
    definitions: Mapping[str, str]
    coded: bool
    separator: str | None

    @property
    def depth(self) -> int:
        """The number of levels."""
        return max(map(len, self.names.values()))

    def find(self, value: str) -> Names | None:
        """The names of the node that a code or a path of names means; None if the file does not have it."""
        names = self.names.get(value)
        return self.named(split_path(value, self.separator)) if names is None else names

    def named(self, names: Sequence[str]) -> Names | None:
        """The names, if they are those of a node; None if the file does not have it."""
        return tuple(names) if tuple(names) in self._keys else None

    def declare(self, levels: Levels, labelled: Iterable[LabelPath]) -> LabelTree:
        """The tree of the paths that may be answered, with no rows: the leaves, and the nodes of labelled rows."""
        inner = {names[:depth] for names in self._keys for depth in range(1, len(names))}
        used = {trim(levels.chain_of(path)) for path in labelled}
        known = sorted(names for names in self._keys if names not in inner or names in used)
        keys = [self._keys[names] for names in known]
        definitions = tuple(self.definitions[key] for key in keys)
        return LabelTree(
            levels,
            tuple(LabelPath(*names, *[""] * (len(levels) - len(names))) for names in known),
            (0,) * len(known),
            tuple(keys) if self.coded else (),
            definitions if any(definitions) else (),
        )

    @cached_property
    def _keys(self) -> Mapping[Names, str]:
        return {names: key for key, names in self.names.items()}


class _Entry(NamedTuple):
    """A row of the file."""

    place: int
    code: str
    parent: str
    path: str
    label: str
    definition: str


def read_code_list(file: RowFile, code: str | None = None, separator: str | None = None) -> CodeList:
    """Read a taxonomy file.

    Its columns are recognised by their names: a code, its parent or path, a label, and notes of what belongs to it and
    what does not. Without a parent and a path, the parent of a code is the code without its last part. A node without a
    label is named by its code, and its code is added to a label that a sibling has, too.

    Args:
        file: the file.
        code: the name of the column with the codes, if it is not one of the usual ones.
        separator: what is between the parts of a code or path; None to recognise it.

    Raises InputError, which names the line, for a row that cannot be read, and if a code or path comes twice, if a
    parent is missing, if nodes are above each other in a circle, or if there are more levels than tillmap has.
    """
    entries, kinds = _read_entries(file, code)
    coded, by_path = "code" in kinds, "path" in kinds
    keys: dict[str, _Entry] = {}
    for entry in entries:
        key = entry.code if coded else entry.path
        first = keys.setdefault(key, entry)
        if first is not entry:
            found = f"the {'code' if coded else 'path'} {show(key)} again (first in {file.unit} {first.place})"
            raise _fault(file, entry, found, "expected each once; remove one of the two")
    written = [entry.path for entry in entries] if by_path else list(keys)
    inside = separator is not None and any(separator in text for text in written)
    separator = separator if inside else find_separator(written)
    parents = _parents(file, keys, kinds, separator)
    names = _names_by_path(file, keys, separator) if parents is None else _names_by_parent(file, keys, parents)
    for key, entry in keys.items():
        if len(names[key]) > MAX_LEVELS:
            raise _fault(file, entry, f"{show(key)} is {len(names[key])} levels deep", f"expected at most {MAX_LEVELS}")
    return CodeList(file, names, {key: entry.definition for key, entry in keys.items()}, coded, separator)


def _read_entries(file: RowFile, code: str | None) -> tuple[list[_Entry], set[str]]:
    """The rows of the file, and which kinds of columns it has."""
    rows: list[tuple[int, Record]] = []
    header = file.header()
    for row in file.rows([], header or ()):
        try:
            rows.append((row.place, row.read()))
        except BadRowError as fault:
            raise InputError(f"{file.shown}:{row.place}: {fault}; correct the line") from None
    columns = header or tuple(dict.fromkeys(name for _, record in rows for name in record))
    kinds = {kind: found for kind, names in _HEADERS.items() if (found := [*_called(columns, names)])}
    if code in columns and code is not None:
        kinds["code"] = [code]
    if not rows or not ("code" in kinds or "path" in kinds):
        raise InputError(
            f"{file.shown}: no column code or path in this taxonomy file; there are: "
            f"{', '.join(columns)[:200] or 'none'}; expected code, parent or path, label, "
            "description, includes and excludes; rename the columns"
        )
    entries = []
    for place, record in rows:
        try:
            cells = {kind: [_cell(record, name) for name in names] for kind, names in kinds.items()}
        except BadRowError as fault:
            raise InputError(f"{file.shown}:{place}: {fault}; correct the line") from None
        code_, parent, path, label = (cells.get(kind, [""])[0] for kind in ("code", "parent", "path", "label"))
        key = "code" if "code" in kinds else "path"
        if not (code_ or (path and key == "path")):
            raise InputError(f"{file.shown}:{place}: the {key} is empty, expected text; correct the line")
        notes = {kind: " ".join(filter(None, cells.get(kind, []))) for kind in ("description", "includes", "excludes")}
        definition = [
            notes["description"],
            *(f"{kind.title()}: {notes[kind]}" for kind in ("includes", "excludes") if notes[kind]),
        ]
        entries.append(_Entry(place, code_, parent, path, label, " ".join(filter(None, definition))))
    return entries, {*kinds}


def _called(columns: Sequence[str], names: Sequence[str]) -> Iterable[str]:
    """The columns with one of the names, in the order of the names."""
    for name in names:
        yield from (column for column in columns if normalise(column) == name)


def _cell(record: Record, name: str) -> str:
    """A cell's text with plain spaces."""
    return " ".join(read_label({name: None, **record}, name).split())


def _parents(
    file: RowFile, keys: Mapping[str, _Entry], kinds: set[str], separator: str | None
) -> dict[str, str] | None:
    """The key of each node's parent, "" for none; None if the paths are names, which say all by themselves."""
    if "path" in kinds and "parent" not in kinds:
        paths = {key: split_path(entry.path, separator) for key, entry in keys.items()}
        if "code" not in kinds or not all(part in keys for path in paths.values() for part in path):
            return None
        return {key: path[-2] if path[-1] == key and len(path) > 1 else "" if path[-1] == key else path[-1]
                for key, path in paths.items()}  # fmt: skip
    if "parent" in kinds:
        parents = {key: entry.parent for key, entry in keys.items()}
    else:
        parents = {key: key.rpartition(separator)[0].strip() if separator else "" for key in keys}
    for key, parent in parents.items():
        if parent and parent not in keys:
            raise _fault(file, keys[key], f"{show(key)} is below {show(parent)}, which is not in the file",
                         "expected a row for it; add one, or correct the code")  # fmt: skip
    return parents


def _names_by_parent(file: RowFile, keys: Mapping[str, _Entry], parents: Mapping[str, str]) -> dict[str, Names]:
    own = {key: entry.label if normalise(entry.label) else key for key, entry in keys.items()}
    same = Counter((parents[key], normalise(name, keep_accents=True)) for key, name in own.items())
    for key, name in own.items():
        if same[parents[key], normalise(name, keep_accents=True)] > 1 and name != key:
            own[key] = f"{name} ({key})"
    names: dict[str, Names] = {}
    for key in keys:
        above = [key]
        while (parent := parents[above[-1]]) and parent not in names:
            if parent in above:
                raise _fault(file, keys[key], f"{show(key)} is below itself ({' below '.join([*above, parent])[:200]})",
                             "expected no circle; correct the parent")  # fmt: skip
            above.append(parent)
        for each in reversed(above):
            names[each] = (*names.get(parents[each], ()), own[each])
    return names


def _names_by_path(file: RowFile, keys: Mapping[str, _Entry], separator: str | None) -> dict[str, Names]:
    names: dict[str, Names] = {}
    first: dict[Names, int] = {}
    for key, entry in keys.items():
        parts = tuple(split_path(entry.path, separator))
        if not all(parts):
            raise _fault(
                file, entry, f"the path {show(entry.path)} has an empty part", "expected text in each; correct it"
            )
        if first.setdefault(parts, entry.place) != entry.place:
            raise _fault(file, entry, f"the path {show(entry.path)} again (first in {file.unit} {first[parts]})",
                         "expected each once; remove one of the two")  # fmt: skip
        names[key] = parts
    return names


def _fault(file: RowFile, entry: _Entry, found: str, expected: str) -> InputError:
    return InputError(f"{file.shown}:{entry.place}: {found}, {expected}")
