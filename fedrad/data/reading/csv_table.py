"""A CSV file as columns of texts, and which of its texts a message may repeat.

Messages name the file and the row (from 1, after the header). They quote a cell only where its
column is a short list of words that many patients share: any other could be a patient's name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedrad.data.reading.csv_text import rows_of, text_of
from fedrad.data.refusals import rows_error
from fedrad.errors import ConfigError, DataError
from fedrad.registry import nearest, shown_names

__all__ = ["CsvTable", "cell_number", "read_columns"]

_WORDS = 20
_COMMA = "; a comma within a cell needs quotes around the cell, a decimal comma too"
_IDENTIFYING = ("patient", "image", "where")
"""The options that may name a column of patients or images; all others publish what they read."""


@dataclass(frozen=True, eq=False)
class CsvTable:
    """A table of texts.

    Attributes:
        file: its name, without folders.
        cells: column -> text of each row, stripped; the columns in the file's order.
        row: int64 [n], the rows' numbers in the file, from 1 after the header.
        private: columns of patients and of images; their texts are never told.
        headed: the columns' names are surely names, and no row of data.
    """

    file: str
    cells: Mapping[str, Sequence[str]]
    row: np.ndarray
    private: frozenset[str] = frozenset()
    headed: bool = True

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
            ConfigError: it holds patients or images, and the option is for something else.
            DataError: there is none of this name.
        """
        if name in self.private and option not in _IDENTIFYING:
            raise ConfigError(
                f"{option}: column '{name}' holds the patients' ids or the images' paths; "
                "name another one"
            )
        if name not in self.cells:
            raise DataError(
                f"{option}: {self.file} has no column '{name}'{self._instead(name)}",
                rule="column-missing",
            )
        return self.cells[name]

    def words(self, name: str) -> list[str]:
        """Return a column's distinct texts if they are a short list of shared words, else none.

        >>> table = CsvTable("a.csv", {"sick": ["yes", "no", "yes", "no"], "id": list("1234")},
        ...     np.arange(4), frozenset({"id"}))
        >>> table.words("sick"), table.words("id")
        (['no', 'yes'], [])
        """
        known = [len(set(self.cells[one])) for one in self.private if one in self.cells]
        distinct = set(self.cells[name])
        # Of few patients with many rows each, a name is repeated as often as a label.
        short = len(distinct) <= min(_WORDS, min([len(self), *known]) // 2)
        return sorted(distinct) if short and name not in self.private else []

    def refusal(
        self, problems: Sequence[tuple[int, str]], *, rule: str, column: str | None
    ) -> DataError:
        """Return the error for rows, by their places from 0, and what is wrong with each.

        Args:
            problems: at least one.
            rule: the rule's short name.
            column: that they are all in; None where they are in several.
        """
        told = [(int(self.row[index]), text) for index, text in problems]
        number = 0 if column is None else list(self.cells).index(column) + 1
        return rows_error(self.file, told, rule=rule, column=number)

    def found(self, name: str, index: int) -> str:
        """Return a column's cell in quotes where it may be told, else "a text"."""
        return f"'{self.cells[name][index]}'" if self.words(name) else "a text"

    def kept(self, keep: np.ndarray) -> "CsvTable":
        """Return the rows where `keep` (bool [n]) is true.

        Raises:
            DataError: no row is left.
        """
        if not keep.any():
            raise DataError(
                f"{self.file}: none of its {len(self)} rows is left after filtering",
                rule="rows-missing",
            )
        rows = np.flatnonzero(keep).tolist()
        cells = {name: [column[i] for i in rows] for name, column in self.cells.items()}
        return replace(self, cells=cells, row=self.row[keep])

    def _instead(self, name: str) -> str:
        if self.headed:
            return f"{nearest(name, self.cells)}; it has {shown_names(self.cells, most=50)}"
        return (
            f"; its first line has {len(self.cells)} cells and none of the columns that the "
            "options name: it may be a row of data, and no header"
        )


def cell_number(cell: str, decimal: str = ".") -> float:
    """Return a cell's number, as a table writes it.

    Raises:
        ValueError: it is none, or has the other decimal mark.

    >>> cell_number("1.5"), cell_number("1,5", ",")
    (1.5, 1.5)
    """
    # Python reads "1_5" as 15; nobody who writes a table means that.
    if "_" in cell or (decimal != "." and "." in cell):
        raise ValueError(cell)
    return float(cell.replace(decimal, ".", 1))


def read_columns(
    path: Path,
    *,
    header: Sequence[str] | None = None,
    named: Iterable[str | None] = (),
    private: Iterable[str | None] = (),
) -> CsvTable:
    """Return a CSV file's columns.

    Args:
        path: of the file; see `csv_text` for what is read.
        header: names of the columns of a file without a header line.
        named: columns that the options name; a first line with one of them is surely a header.
        private: columns of patients and of images.

    Raises:
        DataError: the file is missing, empty or no text, a quote does not close, or rows have too
            few or too many cells.
    """
    lines, delimiter = rows_of(text_of(path), path.name, headed=not header)
    names = list(header) if header else [name.strip() for name in (lines.pop(0) if lines else [])]
    headed = bool(header) or any(name in names for name in named)
    _check_names(names, path.name, headed=headed)
    if not lines:
        raise DataError(f"{path.name}: has no rows", rule="rows-missing")
    _check_widths(lines, len(names), path.name, delimiter)
    texts = ([cell.strip() for cell in column] for column in zip(*lines, strict=True))
    return CsvTable(
        file=path.name,
        cells=dict(zip(names, texts, strict=True)),
        row=np.arange(1, len(lines) + 1),
        private=frozenset(name for name in private if name is not None),
        headed=headed,
    )


def _check_widths(lines: Sequence[Sequence[str]], width: int, file: str, delimiter: str) -> None:
    wrong = [
        (number, f"{len(row)} cells, the header has {width}{_COMMA if delimiter == ',' else ''}")
        for number, row in enumerate(lines, start=1)
        if len(row) != width
    ]
    if wrong:
        raise rows_error(file, wrong, rule="row-cells")


def _check_names(names: Sequence[str], file: str, *, headed: bool) -> None:
    twice = next((name for name, number in Counter(names).items() if number > 1), None)
    if twice is None:
        return
    if headed:
        named = f"are named '{twice}'" if twice else "have no name; take the empty columns out"
        raise DataError(f"{file}: two columns {named}", rule="columns-twice")
    one = names.index(twice) + 1
    other = names.index(twice, one) + 1
    raise DataError(
        f"{file}: columns {one} and {other} have one name; is its first line a header?",
        rule="columns-twice",
    )
