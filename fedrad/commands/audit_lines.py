"""The lines of a site's audit log, for a terminal of eighty columns."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["audit_lines"]

_WIDTH = 80


def audit_lines(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    r"""Yield what a log says, a line a message; its run above, and its reason below it.

    >>> line = {"run": 7, "experiment": "3fe2ab12cd34", "time": "2026-12-01T05:56:12.123+00:00",
    ...     "arm": "fedavg", "round": 3, "action": "fit+validate", "bytes_in": 1200000,
    ...     "bytes_out": 0, "decision": "refused", "reason": "PolicyError: nord: min_patients"}
    >>> print("\n".join(audit_lines([line])))
    experiment 3fe2ab12cd34, run 7
      12-01 05:56:12 refused   fedavg     round 3   fit+validate  1.2M in     0 out
          PolicyError: nord: min_patients
    """
    place = None
    for entry in entries:
        if entry["experiment"] and (entry["experiment"], entry["run"]) != place:
            place = entry["experiment"], entry["run"]
            yield f"experiment {entry['experiment'][:12]}, run {entry['run']}"
        when = f"{entry['time'][5:10]} {entry['time'][11:19]}"
        sizes = f"{_size(entry['bytes_in']):>5} in {_size(entry['bytes_out']):>5} out"
        number = f"round {entry['round']}" if entry["arm"] else ""
        yield (
            f"  {when} {_cut(entry['decision'], 9):9} {_cut(entry['arm'], 10):10} "
            f"{_cut(number, 9):9} {_cut(entry['action'], 12):12} {sizes}"
        ).rstrip()
        if entry["reason"]:
            yield from textwrap.wrap(
                str(entry["reason"]), _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            )


def _cut(text: str, most: int) -> str:
    """Return a text of so many letters at most.

    >>> _cut("split-validate", 12)
    'split-valid~'
    """
    return text if len(text) <= most else text[: most - 1] + "~"


def _size(number: int) -> str:
    """Return bytes in three digits.

    >>> [_size(n) for n in (0, 950, 1234, 1_200_000, 45_600_000, 7_000_000_000)]
    ['0', '950', '1.2k', '1.2M', '46M', '7G']
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return (
                f"{number / scale:.2g}{unit}"
                if number < 10 * scale
                else f"{number / scale:.0f}{unit}"
            )
    return str(number)
