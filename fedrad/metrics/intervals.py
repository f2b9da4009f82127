"""How sure a number is: resamples by patient, intervals of shares, p values adjusted, plans."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "UNDEFINED_SHARE",
    "half_widths",
    "hanley_mcneil",
    "holm",
    "patient_weights",
    "wilson",
]

# With more undefined replicates than this, the rest are no sample of what could have been.
UNDEFINED_SHARE = 0.05


def patient_weights(patient: NDArray[np.generic], replicates: int, seed: int) -> NDArray[np.int32]:
    """Return how often each image is in each bootstrap replicate of the patients.

    As many patients as there are, drawn with replacement; all images of a patient come together,
    because they are no independent evidence. A patient's draws do not depend on the order of rows.

    Args:
        patient: [n] of each image.
        replicates: b.
        seed: from `seeds.seed`; the same in all arms, so that their differences are paired.

    Returns:
        [b, n].

    >>> times = patient_weights(np.array([7, 7, 9]), replicates=1000, seed=0)
    >>> np.unique(times, axis=0).tolist()
    [[0, 0, 2], [1, 1, 1], [2, 2, 0]]
    """
    known, row = np.unique(patient, return_inverse=True)
    count = len(known)
    drawn = np.random.default_rng(seed).integers(0, max(count, 1), (replicates, count))
    place = drawn + np.arange(replicates)[:, None] * count
    times = np.bincount(place.ravel(), minlength=replicates * count).astype(np.int32)
    return times.reshape(replicates, count)[:, row]


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values, in the order given.

    The smallest of k is multiplied by k, the next by k - 1 and so on; none falls below one before
    it. A p value that is nan stays nan and counts for nothing. (Holm, Scand J Statist 1979.)

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((value, i) for i, value in enumerate(p) if value == value)
    adjusted = [float("nan")] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * value))
        adjusted[i] = highest
    return adjusted


def wilson(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, k of n; (nan, nan) if n is 0.

    >>> low, high = wilson(90, 100)
    >>> f"{low:.3f} {high:.3f}"
    '0.826 0.945'
    """
    if not n:
        return float("nan"), float("nan")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half


def hanley_mcneil(auroc: float, positives: float, negatives: float) -> float:
    """Return the standard error of an AUROC from counts alone; nan without both classes.

    (Hanley and McNeil, Radiology 1982: negative-exponential scores. For plans; results have
    replicates.)

    >>> round(hanley_mcneil(0.85, positives=50, negatives=50), 3)
    0.039
    """
    if not positives or not negatives:
        return float("nan")
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (positives - 1) * (q1 - auroc**2) + (negatives - 1) * (q2 - auroc**2)
    return sqrt(variance / (positives * negatives))


def half_widths(
    positives: int, negatives: int, *, auroc: float = 0.85, share: float = 0.9
) -> dict[str, float]:
    """Return how wide the 95 % intervals of a test set will be, before anything is trained.

    Args:
        positives: test images of the class.
        negatives: all others.
        auroc: expected; for Hanley and McNeil's standard error.
        share: expected accuracy, sensitivity and specificity; for Wilson's interval.

    Returns:
        Half widths of "auroc", "accuracy", "sensitivity" and "specificity"; nan where undefined.

    >>> {name: round(width, 3) for name, width in half_widths(10, 90).items()}
    {'auroc': 0.153, 'accuracy': 0.06, 'sensitivity': 0.193, 'specificity': 0.063}
    """
    z = NormalDist().inv_cdf(0.975)
    images = {
        "accuracy": positives + negatives,
        "sensitivity": positives,
        "specificity": negatives,
    }
    widths = {"auroc": z * hanley_mcneil(auroc, positives, negatives)}
    for name, n in images.items():
        low, high = wilson(share * n, n)
        widths[name] = (high - low) / 2
    return widths
