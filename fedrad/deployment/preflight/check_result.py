"""What the doctor says of one thing: its colour, what was found, and who can mend it."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckResult", "Colour", "amber", "green", "red"]

Colour = Literal["green", "amber", "red"]


@dataclass(frozen=True)
class CheckResult:
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


def green(what: str, found: str) -> CheckResult:
    """Return that all is well."""
    return CheckResult(what, "green", found)


def amber(what: str, found: str, cure: str) -> CheckResult:
    """Return that it works, but someone should look."""
    return CheckResult(what, "amber", found, cure)


def red(what: str, found: str, cure: str) -> CheckResult:
    """Return that it will not work."""
    return CheckResult(what, "red", found, cure)
