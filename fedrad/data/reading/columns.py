"""What adapters read from a table's columns: sites, splits, attributes."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator

from fedrad.data.reading.csv_table import CsvTable, cell_number, read_columns
from fedrad.errors import ConfigError
from fedrad.registry import nearest

__all__ = [
    "CsvTable",
    "Word",
    "attributes_of",
    "filled",
    "read_columns",
    "row_sites",
    "selected_rows",
    "split_of",
    "texts",
]


def _word(value: object) -> object:
    """Refuse what YAML has made of a word, where its text is lost: yes, no, a date."""
    if isinstance(value, bool | date):
        kind = "yes or no" if isinstance(value, bool) else "a date"
        raise ValueError(f"YAML reads this word as {kind}: put it in quotes")
    return value


Word = Annotated[str | int | float, BeforeValidator(_word)]
"""A cell as YAML may write it: 0 is the text "0"."""

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def texts(wanted: Word | Sequence[Word]) -> list[str]:
    """Return YAML's words as the texts that a table holds.

    >>> texts(0), texts(["a", 1])
    (['0'], ['a', '1'])
    """
    some = [wanted] if isinstance(wanted, str | int | float) else wanted
    return [str(one) for one in some]


def selected_rows(
    table: CsvTable,
    *,
    where: Mapping[str, Word | list[Word]] | None,
    site: str | None,
    sites: Sequence[str] | None,
) -> CsvTable:
    """Return the rows that are asked for.

    Args:
        table: to select from.
        where: column -> the text, or texts, to keep.
        site: column of the site.
        sites: keep only these.

    Raises:
        ConfigError: sites are asked for without a site column, or one has no row.
        DataError: a column is missing, or no row is left.
    """
    for name, wanted in (where or {}).items():
        table = _among(table, table.column(name, "where"), texts(wanted))
    if sites is None:
        return table
    if site is None:
        raise ConfigError("sites: needs a site column (option site)")
    column = [_one(name) for name in table.column(site, "site")]
    known = set(column)
    for name in sites:
        if _one(name) not in known:
            hint = nearest(name, table.words(site))
            raise ConfigError(f"sites: {table.file} has no row of site '{name}'{hint}")
    return _among(table, column, [_one(name) for name in sites])


def _among(table: CsvTable, column: Sequence[str], wanted: Sequence[str]) -> CsvTable:
    return table.kept(np.array([cell in wanted for cell in column]))


def row_sites(table: CsvTable, site: str | None) -> np.ndarray | None:
    """Return str [n], each row's site, or None without a site column."""
    return None if site is None else np.array([_one(name) for name in filled(table, site, "site")])


def _one(name: str) -> str:
    # As the experiment's: one letter may be written as one character or two.
    return unicodedata.normalize("NFC", name)


def split_of(table: CsvTable, split: str | None) -> np.ndarray | None:
    """Return each row's split, or None without a split column.

    Raises:
        DataError: a cell is none of train, val, test (or training, valid, validation, dev,
            testing).
    """
    if split is None:
        return None
    known = {word: name for name, names in _SPLITS.items() for word in names}
    column = table.column(split, "split")
    return np.array(
        _each(
            table,
            split,
            column,
            lambda cell: known[cell.lower()],
            "train, val or test",
            rule="split-unknown",
        )
    )


def attributes_of(
    table: CsvTable, *, age: str | None = None, sex: str | None = None, view: str | None = None
) -> dict[str, np.ndarray]:
    """Return what is known of each row beside its label, from the columns that are named.

    Returns:
        "age": float32 [n] years, nan where the cell is empty; read from numbers and DICOM's age
        strings ("058Y", "018M", "006W", "012D"). "sex", "view": str [n].

    Raises:
        DataError: a column is missing, or an age does not fit.
    """
    found: dict[str, np.ndarray] = {}
    if age:
        column = table.column(age, "age")
        years = _each(
            table, age, column, _years, "a number of years, or empty", rule="age-unreadable"
        )
        found["age"] = np.array(years, dtype=np.float32)
    for name, column_name in (("sex", sex), ("view", view)):
        if column_name:
            found[name] = np.array(table.column(column_name, name))
    return found


def _years(cell: str) -> float:
    if not cell:
        return float("nan")
    match = re.fullmatch(r"(\d{1,3})([YMWD])", cell)
    if match is None:
        return cell_number(cell)
    return int(match[1]) / {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}[match[2]]


def filled(table: CsvTable, name: str, option: str) -> Sequence[str]:
    """Return a column without an empty cell.

    Raises:
        DataError: there is one.
    """
    column = table.column(name, option)
    text = f"the {option} (column '{name}') is empty"
    empty = [(index, text) for index, cell in enumerate(column) if not cell]
    if empty:
        raise table.refusal(empty, rule=f"{option}-empty", column=name)
    return column


def _each(
    table: CsvTable,
    name: str,
    column: Sequence[str],
    read: Callable[[str], object],
    fits: str,
    *,
    rule: str,
) -> list[object]:
    """Return what `read` makes of each cell; KeyErrors and ValueErrors become a DataError."""
    values: list[object] = []
    wrong: list[tuple[int, str]] = []
    for index, cell in enumerate(column):
        try:
            values.append(read(cell))
        except (KeyError, ValueError):
            wrong.append((index, f"found {table.found(name, index)}; fits {fits}"))
    if wrong:
        raise table.refusal(wrong, rule=rule, column=name)
    return values
