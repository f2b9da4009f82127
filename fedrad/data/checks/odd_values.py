"""What looks odd in values as they stand in files, which only an adapter sees."""

from collections.abc import Iterator, Sequence

import numpy as np

from fedrad.data.checks.oddities import Oddity

__all__ = ["sentinels", "unused_bits"]

_SHOWN = 5
_CODES = (-9999.0, -999.0, -99.0, -9.0, -1.0, 99.0, 999.0, 9999.0, 99999.0, 999.9, 9999.9)
"""Numbers by which other programs write "missing"."""
_FEWEST = 4
"""Distinct values of a measurement; a column of fewer is a code, in which -1 may mean something."""


def unused_bits(
    highest: np.ndarray, site: np.ndarray | None, row: np.ndarray, bits: int
) -> Iterator[Oddity]:
    """Yield the sites whose 16-bit files use fewer bits than was said, and are nearly black.

    Args:
        highest: int64 [n], each file's highest value; 0 for files of 8 bits.
        site: str [n], or None.
        row: int64 [n], the rows' numbers in their file.
        bits: that were said to be used.
    """
    for name, here in _by_site(site, len(highest)):
        wide = np.flatnonzero(here & (highest > 0))
        used = int(highest[wide].max(initial=0)).bit_length()
        if len(wide) and used < bits:
            yield Oddity(
                name,
                "bits-unused",
                f"Values use {used} of {bits} bits in all {len(wide)} 16-bit files; read so, the "
                f"brightest pixel is {round(255 * highest[wide].max() / (2**bits - 1))} of 255.",
                f"Say bits: {used} if that is the files' depth (often 12), at every site the same.",
                _rows(row, wide),
            )


def sentinels(
    raw: np.ndarray, names: Sequence[str], site: np.ndarray | None, row: np.ndarray
) -> Iterator[Oddity]:
    """Yield the features in which a number may stand for "missing", such as -9999, 999 or -1.

    Such a number lies at an end, far from all the others or alone on its side of zero.

    Args:
        raw: float64 [n, f], as the table has them; nan is missing.
        names: of the features.
        site: str [n], or None.
        row: int64 [n], the rows' numbers in their file.

    >>> raw = np.array([[50.0], [61], [58], [47], [55], [-9999]])
    >>> [one.found for one in sentinels(raw, ["age"], None, np.arange(1, 7))]
    ["Feature 'age' is -9999 in 1 row (row 6); its other values are 47 to 61."]
    """
    for k, name in enumerate(names):
        column = raw[:, k]
        for code, low, high in _codes(column[~np.isnan(column)]):
            rows = np.flatnonzero(column == code)
            yield Oddity(
                _only(site, rows),
                "feature-sentinel",
                f"Feature '{name}' is {code:g} in {_many(len(rows))} ({_told(row, rows)}); its "
                f"other values are {low:g} to {high:g}.",
                f"If {code:g} means missing, add '{code:g}' to missing_words"
                f"{' (or the feature to missing_zero)' if code == 0 else ''}.",
                _rows(row, rows),
            )


def _codes(values: np.ndarray) -> Iterator[tuple[float, float, float]]:
    """Yield numbers at an end that look like a code, with the lowest and highest of the others."""
    for _ in range(3):
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= _FEWEST:
            return
        ends = [(0, distinct[1]), (-1, distinct[-2])]
        code = next((k for k, next_ in ends if _is_code(values, distinct[k], next_, counts[k])), 1)
        if code == 1:
            return
        found = distinct[code]
        values = values[values != found]
        yield float(found), float(values.min()), float(values.max())


def _is_code(values: np.ndarray, end: float, next_: float, count: int) -> bool:
    rest = values[values != end]
    low, high = np.percentile(rest, (25, 75))
    spread = max(high - low, 1e-12)
    gap = abs(end - next_)
    if end in _CODES:
        alone = end < 0 <= next_ and (end < -1 or (count >= 2 and spread >= 2))
        return bool(gap > 3 * spread or alone)
    # Any number far from all the others that stands there again and again; 0 needs less of it.
    return bool(count >= 3 and gap > (1 if end == 0 else 10) * spread)


def _by_site(site: np.ndarray | None, n: int) -> list[tuple[str, np.ndarray]]:
    if site is None:
        return [("", np.full(n, True))]
    return [(str(name), site == name) for name in np.unique(site)]


def _only(site: np.ndarray | None, rows: np.ndarray) -> str:
    """Return the one site that rows are of, else ""."""
    names = [] if site is None else np.unique(site[rows]).tolist()
    return str(names[0]) if len(names) == 1 else ""


def _rows(row: np.ndarray, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(int(one) for one in row[rows[:_SHOWN]])


def _told(row: np.ndarray, rows: np.ndarray) -> str:
    shown = ", ".join(map(str, _rows(row, rows)))
    return f"row{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > _SHOWN else ''}"


def _many(n: int) -> str:
    return f"{n:,} row{'s' if n > 1 else ''}"
