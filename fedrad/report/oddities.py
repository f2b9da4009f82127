"""What looks odd in the data, told once: on the screen of a check or a run, and in the results."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from fedrad.data.checks.oddities import Oddity

__all__ = ["odd_lines", "oddities_told", "oddity_values"]

_SHOWN = 8
_MOST = 12
_COUNTED = "Rows count from 1 below a table's header: row 6 is line 7 of a spreadsheet."


def oddity_values(oddities: Sequence[Oddity]) -> list[dict[str, Any]]:
    """Return oddities as plain values, for results.json."""
    return [asdict(one) | {"rows": list(one.rows)} for one in oddities]


def oddities_told(oddities: Sequence[Oddity]) -> list[Text]:
    """Return what a terminal shows of oddities before a run begins, a paragraph each.

    >>> odd = Oddity("nord", "images-alike", "Two images look alike.", "keep one of them.")
    >>> print(*oddities_told([odd]))
    Looks odd: nord: Two images look alike. To mend it: keep one of them.
    """
    told = [
        Text.assemble(
            ("Looks odd: ", "bold"),
            f"{one.site}: " if one.site else "",
            f"{one.found} To mend it: {one.mend}",
        )
        for one in oddities[:_SHOWN]
    ]
    more = len(oddities) - _SHOWN
    return [*told, Text(f"... and {more} more; results.json has all.")] if more > 0 else told


def odd_lines(oddities: Sequence[Oddity]) -> Text:
    """Return what `fedrad check` tells: each oddity with its mend, or one line where none is.

    >>> str(odd_lines([]))
    'What looks odd: nothing.'
    """
    if not oddities:
        return Text("What looks odd: nothing.")
    told = Text("What looks odd", style="bold")
    for oddity in oddities[:_MOST]:
        told.append(
            f"\n  {f'{oddity.site}: ' if oddity.site else ''}{oddity.found}", style="yellow"
        )
        told.append(f" [{oddity.rule}]\n    -> {oddity.mend}", style="not bold")
    if len(oddities) > _MOST:
        rules = sorted({oddity.rule for oddity in oddities[_MOST:]})
        told.append(f"\n  and {len(oddities) - _MOST} more ({', '.join(rules)})", style="not bold")
    if any(oddity.rows for oddity in oddities):
        told.append(f"\n  {_COUNTED}", style="not bold")
    return told
