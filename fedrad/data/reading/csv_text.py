"""A CSV file's text as rows of cells: encodings, delimiters, and quotes that do not close.

What other programs write is read where there is one way to read it (UTF-8 with or without a mark,
UTF-16, Excel's line `sep=;`), and else refused with what would mend the file.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from fedrad.data.refusals import rows_error
from fedrad.errors import DataError
from fedrad.registry import shown_names

__all__ = ["rows_of", "text_of"]

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATOR = re.compile(r'"?sep=(.)"?')
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed (gzip)",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer, and not the file it stands for",
}
_CURE = (
    "save it as UTF-8 (Excel: 'CSV UTF-8'; or iconv -f cp1252 -t utf-8), so that umlauts and "
    "accents are read as what they are"
)
_QUOTE_CURE = (
    'a " that stands for inches or the like must be written twice ("") in a cell within quotes, '
    "or be taken out"
)
_TYPED = 20
"""A column of at most so many distinct texts has words, by which a line is known as a row."""


def text_of(path: Path) -> str:
    """Return a CSV file's text, without a byte order mark.

    Raises:
        DataError: the file cannot be read, is no text, or is in another encoding than UTF-8 and
            UTF-16; with the line.
    """
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        # A ValueError is a path with a zero byte in it.
        reason = getattr(error, "strerror", None) or "no path of a file"
        raise DataError(
            f"{path.name or path}: cannot be read ({reason}); paths are relative to --data-root",
            rule="file-unreadable",
        ) from None
    other = next((what for start, what in _OTHERS.items() if raw.startswith(start)), None)
    if other:
        raise DataError(f"{path.name}: is {other}; give a CSV file", rule="file-no-csv")
    encoding = _encoding(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path.name}: is no UTF-8 text (line {line}); {_CURE}", rule="file-encoding"
        ) from None
    if "\x00" in text:
        line = text[: text.index("\x00")].count("\n") + 1
        raise DataError(
            f"{path.name}: is no text: line {line} holds a zero byte; {_CURE}",
            rule="file-encoding",
        )
    return text


def _encoding(raw: bytes) -> str:
    if raw.startswith(_UTF16):
        return "utf-16"
    start = raw[:2000]
    # Latin letters in UTF-16 without its mark: every other byte is zero.
    if len(start) >= 4 and start[1::2].count(0) > 0.8 * len(start[1::2]):
        return "utf-16-le"
    if len(start) >= 4 and start[::2].count(0) > 0.8 * len(start[::2]):
        return "utf-16-be"
    return "utf-8-sig"


def rows_of(text: str, file: str, *, headed: bool) -> tuple[list[list[str]], str]:
    """Return a CSV text's rows, the header's line first where there is one, and its delimiter.

    Args:
        text: whose first line may say the delimiter, as Excel does (`sep=;`); else commas,
            semicolons or tabs, whichever its first line has most of.
        file: its name, for messages.
        headed: the first line is no row of data.

    Raises:
        DataError: a quote does not close, or closes on a later line so that rows melt into one.
    """
    text, delimiter = _delimited(text)
    # A report may be longer than the library's limit of 131,072 characters.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    spans: list[tuple[int, int]] = []
    start = 0
    try:
        for row in reader:
            if row:
                rows.append(row)
                spans.append((start, reader.line_num))
            start = reader.line_num
    except csv.Error:
        number = len(rows) + (0 if headed else 1)
        place = f"row {number}" if number else "the header"
        raise DataError(
            f"{file}: a quote that opens in {place} (line {start + 1}) does not close in its cell"
            f"{_odd_lines(text)}; {_QUOTE_CURE}",
            rule="quote-unbalanced",
            rows=(number,) if number else (),
        ) from None
    _refuse_melted(text, rows, spans, delimiter, file, headed=headed)
    return rows, delimiter


def _delimited(text: str) -> tuple[str, str]:
    first, _, rest = text.lstrip().partition("\n")
    told = _SEPARATOR.fullmatch(first.strip(" \r,"))
    if told:
        return rest, told[1]
    return text, max(",;\t", key=first.count)


def _odd_lines(text: str) -> str:
    lines = [n for n, line in enumerate(_lines(text), start=1) if line.count('"') % 2]
    return f" (lines with an odd number of quotes: {shown_names(map(str, lines), most=5)})"


def _lines(text: str) -> list[str]:
    return list(io.StringIO(text, newline=""))


def _refuse_melted(
    text: str,
    rows: Sequence[Sequence[str]],
    spans: Sequence[tuple[int, int]],
    delimiter: str,
    file: str,
    *,
    headed: bool,
) -> None:
    """Refuse rows over several lines each of which is a whole row by its number and kinds of cells.

    A report of several lines in quotes is one cell; but where a line by itself has as many cells as
    the header, with numbers where the other rows have numbers, a quote has swallowed a line's end.
    """
    long = [k for k, (start, end) in enumerate(spans) if end - start > 1 and (k or not headed)]
    if not long:
        return
    single = [row for row, (start, end) in zip(rows, spans, strict=True) if end - start == 1]
    kinds = _kinds(single[1:] if headed else single, len(rows[0]))
    lines = _lines(text)
    first = 0 if headed else 1
    melted = [
        (k + first, f"a quote that opens here closes on another line, and rows melt; {_QUOTE_CURE}")
        for k in long
        if _all_rows(lines[spans[k][0] : spans[k][1]], delimiter, kinds)
    ]
    if melted:
        raise rows_error(file, melted, rule="quote-unbalanced")


def _kinds(rows: Sequence[Sequence[str]], width: int) -> list[frozenset[str] | None]:
    """Return what is known of each column: the set of its words, {"1"} for numbers, or None."""
    kinds: list[frozenset[str] | None] = []
    for k in range(width):
        cells = [row[k].strip() for row in rows if len(row) == width]
        distinct = frozenset(cells)
        if cells and all(cell == "" or _is_number(cell) for cell in distinct):
            kinds.append(frozenset({"1"}))
        elif len(distinct) <= min(_TYPED, len(cells) // 2):
            kinds.append(distinct)
        else:
            kinds.append(None)
    return kinds


def _all_rows(lines: Sequence[str], delimiter: str, kinds: Sequence[frozenset[str] | None]) -> bool:
    """Say whether each of some lines is a row by itself."""
    evidence = 0
    for line in lines:
        cells = [cell.strip() for cell in line.rstrip("\r\n").split(delimiter)]
        if len(cells) != len(kinds):
            return False
        known = [(c, kind) for c, kind in zip(cells, kinds, strict=True) if kind and '"' not in c]
        if not all(c in kind or (kind == {"1"} and (not c or _is_number(c))) for c, kind in known):
            return False
        evidence += sum(bool(c) for c, _ in known)
    return evidence >= len(lines)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
