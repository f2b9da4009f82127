"""A CSV file's columns, and what adapters read from them: patients, sites, splits, attributes.

Messages name the file and the row (from 1, after the header), and quote a cell only where the
column is a short list of repeated words: another cell could be a patient's name.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedrad.data.base import hashes
from fedrad.errors import ConfigError, DataError
from fedrad.registry import nearest

__all__ = [
    "Columns",
    "Word",
    "attributes_of",
    "found_in",
    "patient_of",
    "read_columns",
    "selected",
    "site_of",
    "split_of",
    "texts",
    "words",
]

Word = str | int | float
"""A cell as YAML may write it: 0 is the text "0"."""

_WORDS = 20

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, eq=False)
class Columns:
    """A table of texts.

    Attributes:
        file: its name, without folders.
        cells: column -> text of each row, stripped.
        row: int64 [n], the rows' numbers in the file, from 1 after the header.
    """

    file: str
    cells: Mapping[str, Sequence[str]]
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def where(self, index: int) -> str:
        """Return the place of a row, for messages: "labels.csv row 3"."""
        return f"{self.file} row {self.row[index]}"

    def column(self, name: str, option: str) -> Sequence[str]:
        """Return a column.

        Args:
            name: of the column.
            option: that named it, for messages.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.cells:
            raise DataError(
                f"{option}: {self.file} has no column '{name}'{nearest(name, self.cells)}; "
                f"it has {', '.join(self.cells)}"
            )
        return self.cells[name]

    def kept(self, keep: np.ndarray) -> "Columns":
        """Return the rows where `keep` (bool [n]) is true.

        Raises:
            DataError: no row is left.
        """
        if not keep.any():
            raise DataError(f"{self.file}: none of its {len(self)} rows is left after filtering")
        rows = np.flatnonzero(keep).tolist()
        cells = {name: [column[i] for i in rows] for name, column in self.cells.items()}
        return Columns(self.file, cells, self.row[keep])


def read_columns(path: Path, *, header: Sequence[str] | None = None) -> Columns:
    """Return a CSV file's columns.

    Args:
        path: of the file: UTF-8; commas, semicolons or tabs, whichever its first line has most of.
        header: names of the columns of a file without a header line.

    Raises:
        DataError: the file is missing, empty, no UTF-8, or a row has too few or too many cells.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path.name}: is no UTF-8 text") from None
    except OSError as error:
        raise DataError(
            f"{path.name}: cannot be read ({error.strerror}); paths are relative to --data-root"
        ) from None
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error:
        raise DataError(f"{path.name}: is no CSV file") from None
    names = list(header) if header else [name.strip() for name in (lines.pop(0) if lines else [])]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise DataError(f"{path.name}: two columns are named '{twice[0]}'")
    if not lines:
        raise DataError(f"{path.name}: has no rows")
    for number, row in enumerate(lines, start=1):
        if len(row) != len(names):
            raise DataError(
                f"{path.name} row {number}: {len(row)} cells, the header has {len(names)}"
            )
    texts = ([cell.strip() for cell in column] for column in zip(*lines, strict=True))
    return Columns(path.name, dict(zip(names, texts, strict=True)), np.arange(1, len(lines) + 1))


def words(column: Sequence[str]) -> list[str]:
    """Return a column's distinct texts if they are a short list of repeated words, else none.

    >>> words(["yes", "no", "yes", "no"]), words(["Ann", "Bob"])
    (['no', 'yes'], [])
    """
    distinct = set(column)
    short = len(distinct) <= min(_WORDS, len(column) // 2)
    return sorted(distinct) if short else []


def found_in(column: Sequence[str], index: int) -> str:
    """Return a cell in quotes where it can be told, else "a text"."""
    return f"'{column[index]}'" if words(column) else "a text"


def texts(wanted: Word | Sequence[Word]) -> list[str]:
    """Return YAML's words as the texts that a table holds.

    >>> texts(0), texts(["a", 1])
    (['0'], ['a', '1'])
    """
    some = [wanted] if isinstance(wanted, str | int | float) else wanted
    return [str(one) for one in some]


def selected(
    table: Columns,
    *,
    where: Mapping[str, Word | list[Word]] | None,
    site: str | None,
    sites: Sequence[str] | None,
) -> Columns:
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
    column = table.column(site, "site")
    known = sorted(set(column))
    for name in sites:
        if name not in known:
            raise ConfigError(
                f"sites: {table.file} has no row of site '{name}'{nearest(name, known)}"
            )
    return _among(table, column, sites)


def _among(table: Columns, column: Sequence[str], wanted: Sequence[str]) -> Columns:
    return table.kept(np.array([cell in wanted for cell in column]))


def patient_of(
    table: Columns, patient: str | None, site: np.ndarray | None, *, per_site: bool
) -> np.ndarray:
    """Return uint64 [n], a hash of each row's patient.

    Args:
        table: to read.
        patient: its column; None makes each row its own patient.
        site: str [n] or None.
        per_site: equal ids at two sites are two patients; a table without sites is one site's.

    Raises:
        DataError: a row's patient is empty.
    """
    if patient is None:
        # The file's name: rows of two files are two patients.
        return hashes(f"{table.file}\x1f{row}" for row in table.row)
    ids = _filled(table, patient, "patient")
    if not per_site or site is None:
        return hashes(ids)
    return hashes(f"{where}\x1f{one}" for where, one in zip(site, ids, strict=True))


def site_of(table: Columns, site: str | None) -> np.ndarray | None:
    """Return str [n], each row's site, or None without a site column."""
    return None if site is None else np.array(_filled(table, site, "site"))


def split_of(table: Columns, split: str | None) -> np.ndarray | None:
    """Return each row's split, or None without a split column.

    Raises:
        DataError: a cell is none of train, val, test (or training, valid, validation, dev,
            testing).
    """
    if split is None:
        return None
    known = {word: name for name, names in _SPLITS.items() for word in names}
    column = table.column(split, "split")
    return np.array(_each(table, column, lambda cell: known[cell.lower()], "train, val or test"))


def attributes_of(
    table: Columns, *, age: str | None = None, sex: str | None = None, view: str | None = None
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
        years = _each(table, column, _years, "a number of years, or empty")
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
        return float(cell)
    return int(match[1]) / {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}[match[2]]


def _filled(table: Columns, name: str, option: str) -> Sequence[str]:
    column = table.column(name, option)
    if "" in column:
        empty = column.index("")
        raise DataError(f"{table.where(empty)}: the {option} (column '{name}') is empty")
    return column


def _each(
    table: Columns, column: Sequence[str], read: Callable[[str], object], fits: str
) -> list[object]:
    """Return what `read` makes of each cell; a KeyError or ValueError becomes a DataError."""
    values = []
    for index, cell in enumerate(column):
        try:
            values.append(read(cell))
        except (KeyError, ValueError):
            found = found_in(column, index)
            raise DataError(f"{table.where(index)}: found {found}; fits {fits}") from None
    return values
