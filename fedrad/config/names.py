"""What sites and arms may be called; both become folders, and parts of keys and messages."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["ArmName", "RuleName", "SiteName", "file_name", "name_problem", "site_in"]

_LONGEST = 100
_BYTES = 240  # of a folder's name that most file systems take (255), less what is put around it
_MARKS = "._-()'\u2019&+"
_PLAIN = "._-()"
"""Marks that a folder's name keeps; shells and unit files give the others a meaning."""
_ESCAPE = "="
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(1, 10))}
_RESERVED = ("sites", "partition.csv", "results.json", "report.html")


def name_problem(name: str) -> str | None:
    """Return why a site may not have a name, in words that do not quote it, or None.

    A name from a table may turn out to be a path or a person's.

    >>> name_problem("St. Mary's"), name_problem("a/b").split(";")[0]
    (None, 'it holds solidus')
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
    if name.split(".")[0].rstrip().casefold() in _WINDOWS:
        return f"Windows keeps it for a device; add a word to it, such as '{name[:3]} site'"
    for character in name:
        # L letters, M their marks (in Devanagari or a decomposed umlaut), N digits.
        if unicodedata.category(character)[0] not in "LMN" and character not in " " + _MARKS:
            return f"it holds {unicodedata.name(character, 'a control character').lower()}; {fits}"
    return None


def file_name(site: str) -> str:
    """Return a site's name as a part of a path: safe in any file system and shell, and its alone.

    >>> file_name("Klinik Süd (2)"), file_name("St. Mary's & Co.")
    ('Klinik Süd (2)', 'St. Mary=27s =26 Co=2e')
    """

    def kept(place: int, character: str) -> bool:
        if character == "." and place == len(site) - 1:
            return False  # Windows drops a dot at the end
        return unicodedata.category(character)[0] in "LMN" or character in " " + _PLAIN

    return "".join(
        one if kept(place, one) else "".join(f"{_ESCAPE}{byte:02x}" for byte in one.encode())
        for place, one in enumerate(site)
    )


def site_in(name: str) -> str:
    """Return the site whose `file_name` a text is.

    >>> site_in(file_name("St. Mary's"))
    "St. Mary's"
    """
    parts = re.split(f"((?:{_ESCAPE}[0-9a-f]{{2}})+)", name)
    return "".join(
        bytes.fromhex(part.replace(_ESCAPE, "")).decode() if k % 2 else part
        for k, part in enumerate(parts)
    )


def _site(name: str) -> str:
    # One letter may be written as one character or two: é, and e with an accent after it.
    name = unicodedata.normalize("NFC", name)
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
