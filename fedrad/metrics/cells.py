"""Cells of scores: what a site tells of one class's scores, never of fewer than some patients.

The scores of the positive images, and apart from them those of the negative ones, are cut into
cells in their order. Of a cell only its ends, its mean and the number of its images are told. Each
class has cells of its own, so that no cell says which of its patients has the finding. No patient
has more than half of a cell's images: the cell would else be that patient.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrad.metrics.base import Array

__all__ = [
    "FURTHEST",
    "Cells",
    "cells_of",
    "from_array",
    "log_odds",
    "mixed",
    "threshold",
    "threshold_range",
]

FURTHEST = 36.0
"""Log-odds beyond which probabilities in double can no longer be told apart from 0 and 1."""
_DIGITS = 4
_MOST_OF_ONE = 0.5  # of a cell's images, those of one patient at most


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of the scores of one class at one site, in rising order.

    Attributes:
        lower, upper: [c] log-odds between which a cell's scores lie; both ends belong to it. What
            is below the first cell's images, and above the last's, is not told: there they are
            -inf and inf, where cells hold more than one score.
        mean: [c] mean log-odds of a cell's images.
        images: [c] how many they are.
    """

    lower: Array
    upper: Array
    mean: Array
    images: Array

    def __len__(self) -> int:
        return len(self.images)

    def as_array(self, length: int) -> Array:
        """Return [length, 4] finite numbers: lower, upper, mean, images; zeros where no cell is."""
        ends = [np.clip(end, -2 * FURTHEST, 2 * FURTHEST) for end in (self.lower, self.upper)]
        found = np.zeros((length, 4))
        found[: len(self)] = np.stack([*ends, self.mean, self.images], axis=1)
        return found


def from_array(array: Array) -> Cells:
    """Return the cells that `Cells.as_array` made an array of."""
    known = array[array[:, 3] > 0]
    lower = np.where(known[:, 0] <= -2 * FURTHEST, -np.inf, known[:, 0])
    upper = np.where(known[:, 1] >= 2 * FURTHEST, np.inf, known[:, 1])
    return Cells(lower, upper, known[:, 2], known[:, 3])


def log_odds(scores: Array) -> Array:
    """Return the log-odds of probabilities, cut at 36 either way.

    >>> log_odds(np.array([0.0, 0.5, 1.0])).tolist()
    [-36.0, 0.0, 36.0]
    """
    with np.errstate(divide="ignore"):
        found = np.log(scores) - np.log1p(-scores)
    return np.asarray(np.clip(found, -FURTHEST, FURTHEST))


def cells_of(
    scores: Array, patient: NDArray[np.generic], *, min_cell: int = 1, most: int | None = None
) -> Cells:
    """Return the cells of one class's scores.

    Args:
        scores: [n] log-odds.
        patient: [n] of each.
        min_cell: least patients of a cell, none of whom has more than half of its images; where
            all together are not so, there is no cell. With 1, a cell is a score, and nothing is
            lost.
        most: cells at most; None is any number.

    >>> found = cells_of(np.array([0.0, 1.0, 2.0, 3.0]), np.arange(4), min_cell=2)
    >>> found.lower.tolist(), found.upper.tolist(), found.mean.tolist(), found.images.tolist()
    ([-inf, 1.5], [1.5, inf], [0.5, 2.5], [2.0, 2.0])
    """
    order = np.argsort(scores, kind="stable")
    scores, patient = scores[order], patient[order]
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))[: len(scores)]
    # `most` bounds images, not patients: a cell of enough patients has no fewer images.
    least = 1 if most is None else -(-len(scores) // most)
    exact = min_cell <= 1 and least <= 1
    if not exact and len(starts):
        starts = _merged(starts, patient, min_cell, least)
    if not len(starts):
        return Cells(*(np.zeros(0) for _ in range(4)))
    images = np.diff(np.append(starts, len(scores))).astype(np.float64)
    mean = np.add.reduceat(scores, starts) / images
    if exact:
        return Cells(mean, mean, mean, images)
    below, above = scores[starts[1:] - 1], scores[starts[1:]]
    inner = (below + above) / 2
    rounded = inner.round(_DIGITS)
    # Where two scores are nearer than that, a rounded end would have an image in another cell.
    inner = np.where((below < rounded) & (rounded < above), rounded, inner)
    ends = np.concatenate([[-np.inf], inner, [np.inf]])
    return Cells(ends[:-1], ends[1:], mean.round(_DIGITS), images)


def _merged(
    starts: NDArray[np.intp], patient: NDArray[np.generic], min_cell: int, least: int
) -> NDArray[np.intp]:
    """Return the starts of cells that hold enough patients and images each, and no one patient."""
    kept: list[int] = []
    counts: Counter[object] = Counter()
    images = fullest = 0
    ends = np.append(starts[1:], len(patient))
    fresh = True
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if fresh:
            kept.append(start)
            counts, images, fullest = Counter(), 0, 0
        for one in patient[start:end].tolist():
            counts[one] += 1
            fullest = max(fullest, counts[one])
        images += end - start
        several = len(counts) >= min_cell and (min_cell <= 1 or fullest <= _MOST_OF_ONE * images)
        fresh = several and images >= least
    if not fresh and kept:
        # What is left over belongs to the last whole cell; without one there is none.
        kept.pop()
        while kept and min_cell > 1 and not mixed(patient[kept[-1] :]):
            kept.pop()
    return np.asarray(kept, np.intp)


def mixed(patient: NDArray[np.generic]) -> bool:
    """Return whether no patient has more than half of the images.

    Args:
        patient: [n] of each image, at least one.

    >>> mixed(np.array([1, 1, 2, 3])), mixed(np.array([1, 1, 2]))
    (True, False)
    """
    return bool(np.unique(patient, return_counts=True)[1].max() <= _MOST_OF_ONE * len(patient))


def threshold_range(negatives: Cells, specificity: float) -> tuple[float, float]:
    """Return between which log-odds the threshold on all scores lies, whatever they are in a cell.

    Args:
        negatives: cells of the validation images without the finding, in any order.
        specificity: in (0, 1].

    Returns:
        Lowest and highest; both nan without any cell, infinite where an end is not told.

    >>> cells = cells_of(np.arange(10.0), np.arange(10), min_cell=5)
    >>> threshold_range(cells, 0.5), threshold_range(cells, 0.9)
    ((-inf, 4.500000000000001), (4.500000000000001, inf))
    """
    if not len(negatives):
        return float("nan"), float("nan")
    found = []
    for end in (negatives.lower, negatives.upper):
        order = np.argsort(end)
        share = np.cumsum(negatives.images[order]) / negatives.images.sum()
        at = float(end[order][int((share >= specificity - 1e-12).argmax())])
        found.append(float(np.nextafter(at, np.inf)) if np.isfinite(at) else at)
    return found[0], found[1]


def threshold(negatives: Cells, specificity: float) -> float:
    """Return the lowest score below which at least this share of the negatives lies.

    Where scores are told, that is so to the image. Within a cell of several patients images count
    as spread evenly, so the share may be missed by about a cell of each site, either way.

    Args:
        negatives: cells of the validation images without the finding, in any order.
        specificity: in (0, 1].

    Returns:
        The log-odds from which an image is called positive; nan without any cell. An end that is
        not told lies as far from the cell's mean as the other one.

    >>> threshold(cells_of(np.arange(10.0), np.arange(10)), 0.9) > 8.0
    True
    """
    if not len(negatives):
        return float("nan")
    lower, upper, mean, images = negatives.lower, negatives.upper, negatives.mean, negatives.images
    high = np.where(np.isinf(upper), np.where(np.isinf(lower), mean, 2 * mean - lower), upper)
    low = np.where(np.isinf(lower), np.where(np.isinf(upper), mean, 2 * mean - upper), lower)
    width = np.where(high > low, high - low, 1.0)
    ends = np.unique(np.concatenate([low, high]))
    # 1e-12: 9 of 10 is 0.9 whatever the rounding.
    asked = specificity - 1e-12

    def below(end: float) -> float:
        """Return the share of images up to an end."""
        inside = np.where(end >= high, 1.0, np.clip((end - low) / width, 0.0, 1.0))
        return float(images @ inside / images.sum())

    at = bisect_left(ends, asked, hi=len(ends) - 1, key=below)
    found = float(ends[at])
    if at > 0:
        start = float(ends[at - 1])
        least, most = below(start), below(np.nextafter(found, -np.inf))
        if most >= asked:
            found = start + (found - start) * (asked - least) / (most - least)
    # Both ends belong to a cell: an image at the threshold itself would be one of its own.
    return float(np.nextafter(found, np.inf))
