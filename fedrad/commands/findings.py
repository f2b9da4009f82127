"""The doctor's report as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fedrad.deployment.preflight import CheckResult

__all__ = ["findings_table"]

_STYLES = {"green": "green", "amber": "yellow", "red": "bold red"}


def findings_table(findings: "Sequence[CheckResult]") -> "Table":
    """Return the findings in their order; a word says the colour too, for those who see none."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table("", "what", "found", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for finding in findings:
        colour = Text(finding.colour, style=_STYLES[finding.colour])
        told = Text(finding.found)
        if finding.cure:
            told.append(f"\n-> {finding.cure}", style="italic")
        table.add_row(colour, finding.what, told)
    counts = {c: sum(one.colour == c for one in findings) for c in ("green", "amber", "red")}
    table.caption = ", ".join(f"{number} {colour}" for colour, number in counts.items())
    return table
