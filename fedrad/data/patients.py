"""Whose row it is: patients' ids as tables write them, and spellings that mean one person."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from fedrad.data.base import hashes
from fedrad.data.checks.oddities import Oddity
from fedrad.data.reading.columns import CsvTable, filled
from fedrad.errors import ConfigError

__all__ = [
    "UNSAID",
    "IdPart",
    "PatientOption",
    "Patients",
    "column_of",
    "loose_form",
    "patients_of",
    "strict_form",
    "unnamed",
]


@dataclass(frozen=True)
class IdPart:
    """Where in a cell the patient's id stands, for tables that have no column of its own.

    Attributes:
        column: of the cell; None is the column of the images' paths.
        part: of the path's parts between slashes the one with the id, counted from 1; -1 is the
            last.
        pattern: a regular expression; the id is its first group, or all that it finds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    column: str | None = None
    part: int | None = None
    pattern: str | None = None

    def __str__(self) -> str:
        """Return "not said" for an option that nobody gave, as lists of options show it."""
        return "not said" if self == UNSAID else repr(self)


UNSAID = IdPart()
"""Nobody said which column holds the patients, and nobody said that none does (null)."""

PatientOption = str | IdPart | None


@dataclass(frozen=True, eq=False)
class Patients:
    """The patients of a table's rows.

    Attributes:
        hashed: uint64 [n]; equal where two rows are certainly one patient's.
        alike: uint64 [n]; equal where they are likely one patient's, too.
    """

    hashed: np.ndarray
    alike: np.ndarray


def column_of(patient: PatientOption, image: str | None = None) -> str | None:
    """Return the column that an option reads patients' ids from, or None."""
    if not isinstance(patient, IdPart):
        return patient
    return None if patient == UNSAID else patient.column or image


def patients_of(
    table: CsvTable,
    patient: PatientOption,
    site: np.ndarray | None,
    *,
    per_site: bool,
    image: str | None = None,
) -> Patients:
    """Return whose each row is.

    Args:
        table: to read.
        patient: the ids' column, or where they stand in one; None makes each row its own patient.
        site: str [n] or None.
        per_site: equal ids at two sites are two patients; a table without sites is one site's.
        image: column of the images' paths.

    Raises:
        ConfigError: it is not said how the id is found in its cell, or in which column.
        DataError: a row's patient is empty, or not found in its cell.
    """
    if patient is None or patient == UNSAID:
        # The file's name: rows of two files are two patients.
        own = hashes(f"{table.file}\x1f{row}" for row in table.row)
        return Patients(own, own)
    ids = _ids(table, patient, image)
    places = [""] * len(ids) if not per_site or site is None else [f"{one}\x1f" for one in site]
    forms = {one: (strict_form(one), loose_form(one)) for one in set(ids)}
    certain, likely = (
        hashes(place + forms[one][k] for place, one in zip(places, ids, strict=True))
        for k in range(2)
    )
    return Patients(certain, likely)


def _ids(table: CsvTable, patient: str | IdPart, image: str | None) -> Sequence[str]:
    name = column_of(patient, image)
    if isinstance(patient, str):
        return filled(table, patient, "patient")
    if name is None:
        raise ConfigError("patient.column: is missing; a table has no images' paths")
    if (patient.part is None) == (patient.pattern is None) or patient.part == 0:
        raise ConfigError(
            "patient: give one of part (1 is the first folder of the path, -1 the file's name) "
            "and pattern (a regular expression)"
        )
    found = [_found(cell, patient) for cell in filled(table, name, "patient")]
    option = "pattern" if patient.pattern else "part"
    text = f"no patient's id is found in column '{name}'; see patient.{option}"
    lost = [(index, text) for index, one in enumerate(found) if not one]
    if lost:
        raise table.refusal(lost, rule="patient-not-found", column=name)
    return found


def _found(cell: str, patient: IdPart) -> str:
    """Return the id in a cell, or ""."""
    if patient.pattern is not None:
        try:
            match = re.search(patient.pattern, cell)
        except re.error as error:
            raise ConfigError(f"patient.pattern: is no regular expression ({error})") from None
        return "" if match is None else str(match[1] if match.re.groups else match[0] or "")
    assert patient.part is not None
    parts = cell.replace("\\", "/").split("/")
    index = patient.part - 1 if patient.part > 0 else patient.part
    return parts[index].strip() if -len(parts) <= index < len(parts) else ""


def unnamed(patient: PatientOption, rows: int) -> tuple[Oddity, ...]:
    """Return what is to be told where nobody said who the patients of so many rows are."""
    if patient != UNSAID:
        return ()
    odd = Oddity(
        site="",
        rule="patients-unnamed",
        found=f"No patient is named, so each of {rows:,} rows counts as another patient. Rows of "
        "one person may then be trained and tested on, and intervals are too narrow.",
        mend="say patient: COLUMN, or patient: {part: 3} where the third part of the image's path "
        "is the patient; say patient: null if every row is meant to be another person.",
    )
    return (odd,)


def strict_form(text: str) -> str:
    r"""Return an id's one form: two ids of the same form are certainly one patient's.

    Compatible letters and digits (full width, other scripts' digits), composed accents, characters
    that nobody sees, white space, and the ".0" of a whole number that went through a spreadsheet.

    >>> strict_form("\uff11\uff12\u200b") == strict_form(" 12.0") == "12", strict_form("P  7")
    (True, 'P 7')
    """
    plain = text
    if not (text.isascii() and text.isprintable()):
        known = unicodedata.normalize("NFKC", text)
        plain = "".join(_digit(one) for one in known if one.isspace() or not _unseen(one))
    joined = " ".join(plain.split())
    return re.sub(r"^([0-9]+)\.0+$", r"\1", joined) or text


def _unseen(character: str) -> bool:
    """Return whether nothing is printed: marks of direction, joiners, a byte order mark."""
    return unicodedata.category(character) in ("Cf", "Cc")


def _digit(character: str) -> str:
    return str(unicodedata.decimal(character, character))


def loose_form(text: str) -> str:
    """Return an id's loose form: two ids of the same loose form are likely one patient's.

    Case, leading zeros of every number, and what stands between words and numbers are set aside.

    >>> loose_form("P-007") == loose_form("p 7") == loose_form("P7")
    True
    >>> loose_form("1-11") == loose_form("11-1")
    False
    """
    plain = strict_form(text)
    runs = re.findall(r"[0-9]+|[^\W\d_]+", plain.casefold())
    return "\x1f".join(run.lstrip("0") or "0" if run.isdigit() else run for run in runs) or plain
