"""Leaks that are likely and not certain: told with rows, and silenced by name.

`leaks.check` refuses what is certain. What neither can find is in docs/leaks.md.
"""

import numpy as np

from fedrad.data.base import Records
from fedrad.data.groups import crossing, first_rows, places, told_rows
from fedrad.data.oddities import Oddity

__all__ = ["likely_leaks"]


def likely_leaks(records: Records) -> list[Oddity]:
    """Return what looks like a leak in records that `leaks.check` let pass.

    Args:
        records: of all sites of this process, with their splits.
    """
    return [*_spellings(records)]


def _spellings(records: Records) -> list[Oddity]:
    """Return that ids differ only in case, leading zeros, or what stands between their parts."""
    if records.alike is None:
        return []
    group, rows = crossing([records.alike], records.patient)
    if not len(rows):
        return []
    number = len(np.unique(group[rows]))
    return [
        _odd(
            records,
            rows,
            "patients-spelled-alike",
            f"{_many(number, 'patient')} may be written in two ways "
            "(case, leading zeros, or what stands between words and numbers)",
            "write each patient's id in one way; if they are different people",
        )
    ]


def _odd(records: Records, rows: np.ndarray, rule: str, found: str, mend: str) -> Oddity:
    """Return an oddity of rows, at their site or between sites, with the way to silence it."""
    names = [] if records.site is None else np.unique(records.site[rows]).tolist()
    return Oddity(
        site=str(names[0]) if len(names) == 1 else "",
        rule=rule,
        found=f"{found} ({places(records, rows)}; {told_rows(records, rows)}).",
        mend=f"{mend}, say accept: [{rule}].",
        rows=first_rows(records, rows),
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number > 1 else ''}"
