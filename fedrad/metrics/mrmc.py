"""How sure a mean over seeds is: trainings as readers, test patients as cases.

Two arms, each trained with several seeds and read on the same patients, are what radiology calls a
multi-reader multi-case study: arms are modalities, seeds are readers, patients are cases.
Obuchowski and Rockette, Communications in Statistics 24, 1995; Hillis, Statistics in Medicine 26,
2007 and Academic Radiology 21, 2014. docs/statistics.md derives what is used here.

A quantity is an array [s, 1 + b]: a row for each seed, first what was observed, then b replicates
that show how it varies with the patients. Only variances and covariances of replicates are used.
"""

from dataclasses import dataclass
from math import exp, log, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from fedrad.metrics.base import Array

__all__ = [
    "Variance",
    "critical",
    "other_seeds",
    "p_value",
    "ratio_interval",
    "variance_of",
]

# Between Cochran's rule (1), too careful, and Satterthwaite's degrees of freedom, which call up to
# 13 of 100 equal arms different at two seeds and 8 at three: docs/statistics.md has the sizes.
_POWER_OF_TWO, _POWER = 1.5, 2.0
# Of p values; further out scipy's quantiles of t may be infinite.
_LEAST = 1e-30


@dataclass(frozen=True)
class Variance:
    """The variance of a mean over seeds, in its two parts.

    Attributes:
        training: from the spread of the seeds on these patients; it also holds what patients and
            seeds do together. 0 with one seed, of which it is not known.
        patients: covariance between seeds, from the patients that they share; not below 0. With
            one seed, the variance over patients of that training.
        seeds: how many.
    """

    training: float
    patients: float
    seeds: int

    @property
    def total(self) -> float:
        """Return the sum of both parts."""
        return self.training + self.patients


def variance_of(values: Array) -> Variance:
    """Return the variance of a quantity's mean over seeds.

    Args:
        values: [s, 1 + b], what was observed without nan; replicates with a nan are left out.

    Of s seeds: their variance / s, plus the mean covariance of two of them over the patients.

    >>> steady = np.array([[1.0, 0.0, 2.0], [3.0, 2.0, 4.0]])  # both rise with the same patients
    >>> variance_of(steady)
    Variance(training=1.0, patients=2.0, seeds=2)
    """
    count = len(values)
    patients = _between(values, values)
    if count == 1:
        return Variance(0.0, max(patients, 0.0), 1)
    return Variance(float(values[:, 0].var(ddof=1)) / count, max(patients, 0.0), count)


def critical(variance: Variance, level: float) -> float:
    """Return how many standard errors wide one side of an interval is.

    >>> round(critical(Variance(0.0, 1.0, seeds=3), 0.95), 2)
    1.96
    >>> round(critical(Variance(1.0, 0.0, seeds=3), 0.95), 2)  # t with 2 degrees of freedom
    4.3
    """
    return _critical(variance, 1 - level)


def p_value(value: float, variance: Variance) -> float:
    """Return the two-sided p value of a mean being zero; it agrees with `critical`.

    nan without variance, and for one seed, from which nothing follows on the next training.

    >>> round(p_value(4.303, Variance(1.0, 0.0, seeds=3)), 3)
    0.05
    """
    if variance.seeds < 2 or not variance.total > 0:
        return float("nan")
    size = abs(value) / sqrt(variance.total)
    if size == 0:
        return 1.0
    if size >= _critical(variance, _LEAST):
        return _LEAST
    return exp(brentq(lambda p: size - _critical(variance, exp(p)), log(_LEAST), 0.0, xtol=1e-9))


def other_seeds(values: Array, level: float) -> float | None:
    """Return how far from the mean over seeds that over as many other seeds may lie, either side.

    On the same patients: t * s * sqrt(2 / s), the half width of a prediction interval. None for
    one seed.

    >>> round(other_seeds(np.array([[0.8], [0.82]]), 0.95), 3)  # 12.7 * 0.0141
    0.18
    """
    count = len(values)
    if count < 2:
        return None
    spread = float(values[:, 0].std(ddof=1))
    return -float(stdtrit(count - 1, (1 - level) / 2)) * spread * sqrt(2 / count)


def ratio_interval(top: Array, bottom: Array, *, level: float) -> tuple[float, float] | None:
    """Return Fieller's interval of mean(top) / mean(bottom): the shares q that are not rejected.

    q is rejected where the test of top - q * bottom being zero rejects; its critical value is that
    at the observed ratio. (Fieller, JRSS B 16, 1954.)

    Args:
        top: [s, 1 + b].
        bottom: the same, of the same seeds and replicates.
        level: of the interval.

    Returns:
        (low, high), or None where the interval has no end: the bottom may be zero.

    >>> steady = np.array([[1.0, 0.0, 2.0]])
    >>> ratio_interval(steady, steady + 100, level=0.95) is None
    False
    >>> ratio_interval(steady, steady, level=0.95) is None
    True
    """
    over, under = float(top[:, 0].mean()), float(bottom[:, 0].mean())
    contrast = variance_of(top - over / under * bottom)
    square = _critical(contrast, 1 - level) ** 2
    (a, b), (_, c) = _covariance(top, bottom).tolist()
    first, middle, last = under**2 - square * c, over * under - square * b, over**2 - square * a
    if first <= 0 or middle**2 < first * last:
        return None
    half = sqrt(middle**2 - first * last)
    return (middle - half) / first, (middle + half) / first


def _critical(variance: Variance, p: float) -> float:
    patients = -float(ndtri(p / 2))
    if variance.seeds < 2 or not variance.total > 0:
        return patients
    training = -float(stdtrit(variance.seeds - 1, p / 2))
    share = variance.training / variance.total
    power = _POWER_OF_TWO if variance.seeds == 2 else _POWER
    return float(patients + (training - patients) * share**power)


def _between(left: Array, right: Array) -> float:
    """Return the mean covariance, over the replicates, of two different seeds; of one, its own."""
    count = len(left)
    known = ~(np.isnan(left[:, 1:]).any(axis=0) | np.isnan(right[:, 1:]).any(axis=0))
    if known.sum() < 2:
        return float("nan")
    a, b = (each[:, 1:][:, known] for each in (left, right))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    every = a.sum(axis=0) @ b.sum(axis=0)
    same = (a * b).sum() if count > 1 else 0.0
    return float((every - same) / (int(known.sum()) - 1) / max(count * (count - 1), 1))


def _covariance(top: Array, bottom: Array) -> Array:
    """Return the 2 x 2 covariance of two means over seeds, both parts added."""
    pairs = (top, bottom)
    patients = np.array([[_between(one, other) for other in pairs] for one in pairs])
    patients = (patients + patients.T) / 2
    # As a variance is not below 0, so no mixture of the two has one.
    values, vectors = np.linalg.eigh(patients)
    found = (vectors * values.clip(0)) @ vectors.T
    if len(top) > 1:
        found = found + np.cov(np.stack([top[:, 0], bottom[:, 0]])) / len(top)
    return np.asarray(found)
