"""What sites and arms may be called; both become folders, and parts of keys and messages."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["ArmName", "RuleName", "SiteName", "name_problem"]

_LONGEST = 100
_BYTES = 240  # of a folder's name that most file systems take (255), less what is put around it
_MARKS = "._-()"
_RESERVED = ("sites", "partition.csv", "results.json", "report.html")


def name_problem(name: str) -> str | None:
    """Return why a site may not have a name, in words that do not quote it, or None.

    A name from a table may turn out to be a path or a person's.

    >>> name_problem("Klinik Süd (2)"), name_problem("nord/2")
    (None, 'it holds solidus; letters, digits, spaces and . _ - ( ) fit')
    """
    if not name.strip():
        return "it is empty"
    if len(name) > _LONGEST or len(name.encode(errors="replace")) > _BYTES:
        return f"it is longer than {_LONGEST} characters or {_BYTES} bytes"
    if name != name.strip():
        return "it begins or ends with a space"
    fits = f"letters, digits, spaces and {' '.join(_MARKS)} fit"
    if name[0] == ".":
        return f"it begins with '.'; {fits}"
    for character in name:
        # L letters, M their marks (in Devanagari or a decomposed umlaut), N digits.
        if unicodedata.category(character)[0] not in "LMN" and character not in " " + _MARKS:
            return f"it holds {unicodedata.name(character, 'a control character').lower()}; {fits}"
    return None


def _site(name: str) -> str:
    problem = name_problem(name)
    if problem:
        raise ValueError(f"a site cannot have this name: {problem}")
    return name


def _arm(name: str) -> str:
    if name.casefold() in _RESERVED:
        raise ValueError(f"an arm cannot be named '{name}'; the run's folder has one of that name")
    return name


SiteName = Annotated[str, AfterValidator(_site)]
ArmName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64),
    AfterValidator(_arm),
]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=64)]
"""Of a rule by which something looks odd, such as "patients-unnamed"."""
