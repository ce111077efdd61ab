"""Proposes which column of a user's file has what: the text, the price, the levels. `tillmap init` shows it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tillmap.catalogue.amounts import parse_amount
from tillmap.catalogue.formats import ENDINGS, RowFile, unpacked
from tillmap.catalogue.rows import BadRowError
from tillmap.catalogue.separators import find_separator
from tillmap.core.errors import InputError
from tillmap.core.text import normalise

# Words of column names in the languages of the files that we have seen, after `normalise`.
_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "key", "nr", "no", "number", "sku", "ean", "gtin", "ligne", "line", "row", "zeile", "nummer", "lp"),
    "text": (
        "description", "text", "title", "item", "product", "label", "libelle", "produit", "artikel", "bezeichnung",
        "omschrijving", "nazwa", "name", "designation", "descripcion", "descrizione", "line",
    ),
    "retailer": (
        "retailer", "shop", "store", "magasin", "enseigne", "winkel", "laden", "markt", "sklep", "merchant", "tienda",
        "negozio", "chain", "outlet",
    ),
    "price": (
        "price", "amount", "prix", "montant", "preis", "betrag", "prijs", "bedrag", "cena", "kwota", "value", "total",
        "precio", "prezzo", "importe",
    ),
    "level": (
        "level", "subgroup", "class", "subclass", "category", "subcategory",
        "department", "division", "section", "sector", "segment", "family", "subfamily", "type", "kind", "aisle",
        "gruppe", "warengruppe", "kategorie", "klasse", "abteilung", "famille", "categorie", "groupe", "rayon",
        "classe", "groep", "afdeling", "grupa", "kategoria", "klasa", "categoria", "familia", "grupo",
        "reparto", "gruppo",
    ),
    "brand": ("brand", "marque", "marke", "merk", "marka", "marca", "brandname"),
    "code": ("code", "category", "class", "coicop", "cpa", "gpc", "taxonomy", "kategorie", "categorie", "kod"),
}  # fmt: skip
_DATE = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?.*|\d\d?[-/.]\d\d?[-/.]\d{2,4}.*")
_MAX_ROWS = 20_000  # that are looked at
_MOST = 0.8  # the share of the filled cells that must look alike for a column to be of a kind
_SMALL = 100  # rows, of a file in which few labels come often
_NESTED = 0.95  # the share of rows whose label decides its parent, for two columns to be neighbouring levels
_MIN_LETTERS = 3  # of a cell on average, for a column to be text


@dataclass
class Proposal:
    """What the columns of a file seem to be.

    Attributes:
        columns: the values of `data.columns`; None where nothing fits.
        taxonomy: values for the block `taxonomy`.
        notes: sentences for the user about what could not be told, or could be done in another way.
    """

    columns: dict[str, Any]
    taxonomy: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def sample_of(file: RowFile) -> pd.DataFrame:
    """The first 20,000 sound rows of a file as text, "" where a cell is empty. Raises InputError if there is none."""
    header = file.header() or ()
    records = []
    for _, row in zip(range(_MAX_ROWS), file.rows(header), strict=False):
        try:
            records.append(row.read())
        except BadRowError:
            continue  # `ingest` names it
    if not records:
        raise InputError(f"{file.shown}: there is no row in it; expected at least one")
    return pd.DataFrame(records, dtype=object).map(_shown)


def _shown(cell: Any) -> str:
    """A cell as text. A list or object of JSON is one, too."""
    return "" if cell is None or cell != cell else str(cell).strip()  # noqa: PLR0124 - NaN alone differs from itself


def files_in(folder: Path) -> list[Path]:
    """The files of a folder that tillmap can read, by name."""
    return [file for file in sorted(folder.iterdir()) if file.is_file() and unpacked(file).suffix.lower() in ENDINGS]


def is_taxonomy(table: pd.DataFrame, rows: pd.DataFrame, levels: Any) -> bool:
    """Whether a table lists the codes of the `levels` column of `rows`, each once."""
    if not isinstance(levels, str):
        return False
    used = rows.loc[rows[levels] != "", levels]
    return any(table[name].is_unique and used.isin(table[name]).mean() >= _MOST for name in table.columns)


def propose(table: pd.DataFrame, level_words: Sequence[str] = ()) -> Proposal:
    """Propose a mapping for a table whose cells are text, "" where empty.

    A name that says what a column is wins over what its cells look like. A column is used once. `level_words` are more
    words that say that a column has labels.
    """
    of_levels = {*_NAMES["level"], *level_words}
    free = [str(name) for name in table.columns]
    notes: list[str] = []

    def take(names: Sequence[str | None]) -> str | None:
        """The first of some columns, which is then no longer free."""
        found = next((name for name in names if name in free), None)
        if found is not None:
            free.remove(found)
        return found

    def named(kind: str, fits: Callable[[str], bool]) -> list[str]:
        return [name for name in free if _is_named(name, kind) and fits(name)]

    levels: str | list[str] | None = take([_code_column(table, free)])
    if levels is None:
        sure = [name for name in free if _words(name) & of_levels and not _is_named(name, "retailer")]
        others = [name for name in free if not any(_is_named(name, kind) for kind in ("text", "retailer", "brand"))]
        levels = _level_columns(table, [name for name in free if name in {*sure, *others}], sure) or None
        for level in levels or ():
            free.remove(level)
    brand = take(named("brand", lambda name: _has_letters(table[name])))
    prices = [name for name in free if _share(table[name], lambda cell: parse_amount(cell) is not None) >= _MOST]
    with_cents = [
        name for name in prices if _share(table[name], lambda cell: re.search(r"\d[.,]\d\d?\b", cell)) > 1 - _MOST
    ]
    price = take([*(name for name in prices if _is_named(name, "price")), *with_cents])
    row_id = take(named("id", lambda name: _is_key(table[name])))
    varied = [name for name in free if table[name].nunique() > 1]
    texts = [name for name in varied if _mean_letters(table[name]) >= _MIN_LETTERS]
    by_name = [name for word in _NAMES["text"] for name in texts if word in _words(name)]
    text = take([*by_name, *sorted(texts, key=lambda name: -table[name].nunique())])
    retailer = take(named("retailer", lambda name: table[name].nunique() > 1))

    if text is None:
        notes.append("no column looks like the text of a line: set data.columns.text")
    if levels is None:
        notes.append("no column looks like a label, code or path: such rows can be labelled, but not trained on")
    if brand is not None:
        notes.append(
            f"{brand} looks like a brand: to predict it, name the last level {brand} and set taxonomy.brand; if new "
            "rows have it too, add it to data.columns.text"
        )
    if free:
        notes.append(f"not used: {', '.join(free)}")
    own = levels if isinstance(levels, list) else None
    taxonomy = {
        "levels": own,
        "brand": None,
        "ragged": own is not None and bool((table[own] == "").any(axis=None)),
        "separator": find_separator([cell for cell in table[levels] if cell]) if isinstance(levels, str) else None,
        "file": None,
    }
    columns = {"id": row_id, "text": text, "retailer": retailer, "price": price}
    return Proposal(columns | {"levels": levels if own is None else None}, taxonomy, notes)


def _words(name: str) -> set[str]:
    """The words of a column's name: "brandName" has brand and name, and "level2" has level."""
    return set(normalise(re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)", " ", name)).split())


def _is_named(name: str, kind: str) -> bool:
    return not _words(name).isdisjoint(_NAMES[kind])


def _share(cells: "pd.Series[str]", fits: Callable[[str], object]) -> float:
    """The share of the filled cells that fit; 0 if none is filled."""
    filled = cells[cells != ""]
    return sum(bool(fits(cell)) for cell in filled) / len(filled) if len(filled) else 0.0


def _is_key(cells: "pd.Series[str]") -> bool:
    """Whether each row has its own value, in one word."""
    return bool(cells.is_unique and (cells != "").all()) and _share(cells, lambda cell: " " in cell) < 1 - _MOST


def _has_letters(cells: "pd.Series[str]") -> bool:
    return _share(cells, lambda cell: any(map(str.isalpha, cell))) >= _MOST


def _mean_letters(cells: "pd.Series[str]") -> float:
    """The mean number of letters of the filled cells, if most cells are filled; else 0."""
    filled = cells[cells != ""]
    if len(filled) < _MOST * len(cells):
        return 0.0
    return sum(sum(map(str.isalpha, cell)) for cell in filled) / len(filled)


def _code_column(table: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The column with a path ("Food > Bread") or a code ("01.1.4") that rows share."""
    for name in sorted(names, key=lambda name: not _is_named(name, "code")):
        cells = table.loc[table[name] != "", name]
        shared = cells.nunique() <= max(1, len(cells) // 2)
        other = (
            _share(cells, _DATE.fullmatch) >= _MOST
            or _share(cells, lambda cell: re.search(r"^-?\d+[.,]\d\d?$", cell)) > 0.5
        )
        if shared and not other and find_separator(cells.tolist()):
            return name
    return None


def _level_columns(table: pd.DataFrame, names: Sequence[str], sure: Sequence[str]) -> list[str]:
    """The longest row of columns of which each decides the one before, from the general to the special.

    They are among the `sure` ones, which have the name of a level, or have labels that rows share.
    """
    most = len(table) // (2 if len(table) < _SMALL else 4)
    shared = [
        name for name in names
        if _has_letters(table[name]) and (name in sure or 1 < table[name].nunique() <= most)
    ]  # fmt: skip
    shared.sort(key=lambda name: table[name].nunique())
    best: list[str] = []
    for start in range(len(shared)):
        row = [shared[start]]
        for name in shared[start + 1 :]:
            if _decides(table, name, row[-1]):
                row.append(name)
        best = max(best, row, key=len)
    return best if len(best) > 1 else []


def _decides(table: pd.DataFrame, child: str, parent: str) -> bool:
    """Whether nearly all rows with a label of `child` have that label's usual `parent`."""
    pairs = table.loc[table[child] != "", [child, parent]].value_counts()
    return bool(len(pairs)) and float(pairs.groupby(level=0).max().sum() / pairs.sum()) >= _NESTED
