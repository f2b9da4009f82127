"""What the doctor says of one thing: its colour, what was found, and who can mend it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Colour", "Finding", "amber", "green", "red"]

Colour = Literal["green", "amber", "red"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Args:
        what: was looked at.
        colour: green is well, amber works but someone should look, red will not work.
        found: what is so.
        cure: what would mend it, and who can; "" when nothing needs to be done.
    """

    what: str
    colour: Colour
    found: str
    cure: str = ""


def green(what: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(what, "green", found)


def amber(what: str, found: str, cure: str) -> Finding:
    """Return that it works, but someone should look."""
    return Finding(what, "amber", found, cure)


def red(what: str, found: str, cure: str) -> Finding:
    """Return that it will not work."""
    return Finding(what, "red", found, cure)
