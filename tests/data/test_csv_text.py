"""A table is read as its author meant it, or refused with its rows and what would mend it."""

import csv

import pytest

from fedrad.data.reading.csv_table import read_columns
from fedrad.errors import DataError

PLAIN = "id,note,age\n1,ä,50\n2,b,60\n"


def read(folder, content: bytes | str):
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_columns(path, named=["id"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_one_text_reads_the_same_in_every_unicode_encoding(tmp_path, encoding) -> None:
    """Excel's "Unicode text" is UTF-16, with or without its mark."""
    found = read(tmp_path, PLAIN.encode(encoding))
    assert found.cells == {"id": ["1", "2"], "note": ["ä", "b"], "age": ["50", "60"]}


def test_a_file_of_another_encoding_is_refused_with_the_line_and_the_cure(tmp_path) -> None:
    """Read as cp1252 by a guess, a file of another code page would hold other letters."""
    with pytest.raises(DataError, match=r"no UTF-8 text \(line 2\); save it as UTF-8 .*iconv"):
        read(tmp_path, PLAIN.encode("cp1252"))


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"PK\x03\x04", "Excel workbook"), (b"\xd0\xcf\x11\xe0", "old Excel"), (b"\x1f\x8b", "gzip"),
     (b"version https://git-lfs", "Git LFS pointer")],
)  # fmt: skip
def test_a_file_that_is_no_table_is_called_what_it_is(tmp_path, start, what) -> None:
    with pytest.raises(DataError, match=what):
        read(tmp_path, start + b" " * 50)


def test_excels_line_that_names_the_delimiter_is_no_header(tmp_path) -> None:
    """And it is believed where the header alone would say another one."""
    found = read(tmp_path, "sep=;\r\nid;age, years\r\n1;50\r\n")
    assert found.cells == {"id": ["1"], "age, years": ["50"]}
    assert found.row.tolist() == [1]


def test_a_cell_of_half_a_million_letters_is_read(tmp_path) -> None:
    """Python's own limit is 131,072; a report with its history may be longer."""
    assert len(read(tmp_path, f"id,note\n1,{'x' * 500_000}\n").cells["note"][0]) == 500_000
    assert csv.field_size_limit() >= 131_072


ROWS = [f"{k},nord,{k} mm,{50 + k}.5,{k % 2}" for k in range(1, 21)]


@pytest.mark.parametrize(
    ("row", "text", "other"),
    [
        (7, '7,nord,"7 mm,57.5,1', None),  # closes nowhere
        (7, '7,nord,"7 mm,57.5,1', (9, '9,nord,"9 mm,59.5,1')),  # closes within a cell
        (7, '7,nord,"7 mm,57.5,1', (8, '8,nord,",58.5,0')),  # closes at a cell's end
        (7, '7,nord,"7 mm,57.5,1', (9, '9,nord,mass of 9",59.5,1')),
    ],
)
def test_a_quote_that_melts_rows_is_an_error_with_its_row(tmp_path, row, text, other) -> None:
    """Two patients became one, with the first's id and the second's values."""
    rows = list(ROWS)
    rows[row - 1] = text
    if other:
        rows[other[0] - 1] = other[1]
    with pytest.raises(DataError, match=rf"row {row}[ :].*quote") as told:
        read(tmp_path, "\n".join(["id,site,report,age,sick", *rows]))
    assert told.value.rule == "quote-unbalanced" and told.value.rows == (row,)


@pytest.mark.parametrize(
    "report",
    ['"Heart normal,\nlungs clear, no effusion"', '"one ""sharp"" edge"', '5" nodule', '""',
     '"a, b, c, d\n, , , "'],
)  # fmt: skip
def test_reports_with_quotes_and_lines_of_their_own_stay_one_cell(tmp_path, report) -> None:
    rows = list(ROWS)
    rows[6] = f"7,nord,{report},57.5,1"
    found = read(tmp_path, "\n".join(["id,site,report,age,sick", *rows]))
    assert len(found) == 20 and found.cells["age"][6] == "57.5"


def test_all_rows_of_another_width_are_told(tmp_path) -> None:
    """Up to five, and how many there are."""
    lines = "".join(f"{k},1,5\n" for k in range(7))
    with pytest.raises(
        DataError, match=r"row 1: 3 cells, the header has 2; .* 7 such rows: 1, 2, 3, 4, 5, \.\.\."
    ) as told:
        read(tmp_path, f"id,age\n{lines}")
    assert told.value.rows == (1, 2, 3, 4, 5)
    assert told.value.outward.startswith("row-cells, rows 1, 2, 3, 4, 5")
