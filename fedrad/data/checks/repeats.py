"""Rows of a table that stand twice: which of them chance would make, and which it would not.

Rows of few or coarse columns coincide by chance, so an equal row alone proves nothing. What counts
is how rare the row's values are. A value that its column has in a share p of the rows tells
-log2 p bits; a column's most frequent value and 0 tell none, for that is what missing and normal
look like, and a column that repeats another tells nothing new. Two of d rows that agree in b bits
are expected d**2 / 2**b times. Where columns go together, bits count less: by the number of columns
that would spread the table as far if they were independent.
"""

from dataclasses import dataclass

import numpy as np

from fedrad.data.base import Records
from fedrad.data.groups import crossing

__all__ = ["Repeats", "repeats_of"]

CERTAIN = 1e-6
"""Coincidences of such rows that chance would make in the whole table: fewer are no chance."""
LIKELY = 0.05
"""The same, at most, for a warning."""
_CROWDED = 0.05
"""Share of repeats from which a table's columns do not single out its rows: no warning of one."""
_MANY, _BEYOND, _MORE = 10, 10, 3
"""So many repeated rows, and so many times what chance makes, are certain; or are told."""
_SAME_COLUMN = 0.95


@dataclass(frozen=True, eq=False)
class Repeats:
    """Equal rows of different patients that stand in two splits, or at two sites.

    Attributes:
        group: int64 [n], equal for equal rows.
        certain: rows that no chance makes equal, sorted by group.
        likely: rows that chance makes equal in one table of twenty at most, sorted by group.
    """

    group: np.ndarray
    certain: np.ndarray
    likely: np.ndarray


def repeats_of(records: Records, over: np.ndarray) -> Repeats:
    """Return the rows that are equal in every feature and differ in `over` and in the patient.

    Args:
        records: of a table, x [n, f].
        over: [n], their splits or their sites.
    """
    values = np.ascontiguousarray(records.x, dtype=np.float32)
    distinct, group = np.unique(values, axis=0, return_inverse=True)
    group = group.reshape(-1)
    _, apart = crossing([group], over)
    _, strangers = crossing([group], records.patient)
    rows = apart[np.isin(apart, strangers)]
    if not len(rows):
        return Repeats(group, rows, rows)
    bits, together = _bits(distinct, np.bincount(group))
    expected = len(distinct) * 2.0 ** -(bits * together)
    # Rows whose twin chance would make, against those that have one.
    by_chance = np.minimum(expected, 1).sum() / 2
    found = np.unique(group[rows])
    rare = len(distinct) * expected[group[rows]]
    certain = (rare < CERTAIN) | (len(found) >= max(_MANY, _BEYOND * by_chance))
    likely = np.array(len(found) >= max(_MANY, _MORE * by_chance))
    if len(distinct) > (1 - _CROWDED) * len(group):
        likely = likely | (len(distinct) ** 2 * 2.0 ** -bits[group[rows]] < LIKELY)
    return Repeats(group, rows[certain], rows[~certain & likely])


def _bits(distinct: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, float]:
    """Return how much each distinct row's values tell, and which share of it is told once.

    Args:
        distinct: [d, f].
        times: [d], how often each stands in the table.

    Returns:
        float64 [d], bits, as if columns were independent; and the share that is left of them, the
        participation ratio of the correlations (sum of eigenvalues)**2 / (sum of their squares)
        over the number of columns.
    """
    bits, told_once, unit = np.zeros(len(distinct)), *_told_once(distinct)
    correlations = unit[:, told_once].T @ unit[:, told_once]
    together = len(told_once) / max((correlations**2).sum(), 1)
    for k in told_once:
        values, place = np.unique(distinct[:, k], return_inverse=True)
        count = np.bincount(place.reshape(-1), weights=times)
        told = -np.log2(count / count.sum())
        told[count.argmax()] = 0
        told[values == 0] = 0
        bits += told[place.reshape(-1)]
    return bits, float(together)


def _told_once(distinct: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return the columns that are not another one again, and all columns with mean 0 and norm 1."""
    level = distinct - distinct.mean(axis=0)
    norm = np.sqrt((level**2).sum(axis=0))
    unit = level / np.where(norm > 0, norm, 1)
    like = np.abs(unit.T @ unit) > _SAME_COLUMN
    once = [k for k in range(distinct.shape[1]) if norm[k] > 0 and not like[k, :k].any()]
    return once, unit
