"""Rows that belong together and stand apart: what the checks of leaks have in common."""

from collections.abc import Sequence

import numpy as np

from fedrad.data.base import Records, row_numbers

__all__ = ["SHOWN", "crossing", "first_rows", "places", "told_rows"]

SHOWN = 5


def crossing(keys: Sequence[np.ndarray], over: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's group by the keys, and the rows of groups with two values of `over`.

    Returns:
        int64 [n], and int64 [r], the rows sorted by group.

    >>> group, rows = crossing([np.array([7, 8, 7])], np.array(["train", "test", "test"]))
    >>> group.tolist(), rows.tolist()
    ([0, 1, 0], [0, 2])
    """
    group = np.unique(keys[0], return_inverse=True)[1].reshape(-1)
    for key in keys[1:]:
        codes = np.unique(key, return_inverse=True)[1].reshape(-1)
        group = np.unique(group * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1]
    value = np.unique(over, return_inverse=True)[1]
    low = np.full(len(group), len(group))
    high = np.full(len(group), -1)
    np.minimum.at(low, group, value)
    np.maximum.at(high, group, value)
    rows = np.flatnonzero((low < high)[group])
    return group, rows[np.argsort(group[rows], kind="stable")]


def places(records: Records, rows: np.ndarray) -> str:
    """Say which sites and splits the rows stand at: "nord: test, train; west: train"."""
    sites = ["here"] * len(rows) if records.site is None else records.site[rows].tolist()
    splits = [""] * len(rows) if records.split is None else records.split[rows].tolist()
    found: dict[str, set[str]] = {}
    for site, split in zip(sites, splits, strict=True):
        found.setdefault(str(site), set()).add(str(split))
    return "; ".join(
        f"{site}: {', '.join(sorted(splits))}" if any(splits) else site
        for site, splits in sorted(found.items())
    )


def first_rows(records: Records, rows: np.ndarray) -> tuple[int, ...]:
    """Return the source's own numbers of the first few rows."""
    return tuple(int(number) for number in row_numbers(records)[rows[:SHOWN]])


def told_rows(records: Records, rows: np.ndarray) -> str:
    """Return the first few rows as a message tells them; with their sites where there are two.

    Sites of their own files count their rows each from 1.
    """
    shown = rows[:SHOWN]
    names = [] if records.site is None else records.site[shown].tolist()
    numbers = [str(number) for number in first_rows(records, shown)]
    if len(set(names)) > 1:
        numbers = [f"{number} ({name})" for number, name in zip(numbers, names, strict=True)]
    return f"rows {', '.join(numbers)}" + (", ..." if len(rows) > SHOWN else "")
