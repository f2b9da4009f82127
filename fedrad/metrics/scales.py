"""On which scale a metric lives: its bounds, how its variance changes with its value, its chance.

Near 1 an AUROC is less sure downwards than upwards, and where every pair is in order its observed
variance is 0. So the interval of a metric holds the values x that the observed one does not
contradict, with the variance that there would be at x, as Wilson (1927) has it for shares and
Newcombe (Statistics in Medicine 25, 2006) for the AUROC. docs/statistics.md has the coverage.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, isfinite, sqrt

import numpy as np
from scipy.optimize import brentq

from fedrad.metrics.base import Array
from fedrad.metrics.mrmc import Variance, critical

__all__ = ["SCALES", "Basis", "Scale", "interval_on", "of_difference", "uninformative"]

# How many patients the formula counts as, beside those that were observed; see `_blended`.
_PRIOR = 5.0

VarianceShape = Callable[[float, Array, Array], Array]


@dataclass(frozen=True)
class Scale:
    """The scale of a metric.

    Attributes:
        low, high: its bounds.
        shape: (value x, positive patients, negative patients) -> variance of a test set's value
            where the true one is x, up to a factor.
        sized: the factor is about 1, so that the shape is a variance of its own.
        chance: what a model without any knowledge reaches; None where there is no such number.
    """

    low: float
    high: float
    shape: VarianceShape
    sized: bool = True
    chance: float | None = None


@dataclass(frozen=True)
class Basis:
    """What is known of a quantity beside its replicates.

    Attributes:
        scale: None for one without bounds, such as a difference.
        positives: [sites, outputs] patients; empty where not known.
        negatives: the same.
        weights: of the sites in the quantity's mean; they add up to 1.
        limits: between which a quantity without a scale lies.

    >>> round(Basis(None, np.array([[15]]), np.array([[15]]), np.ones(1)).df)
    28
    """

    scale: Scale | None = None
    positives: Array = field(default_factory=lambda: np.zeros((0, 0)))
    negatives: Array = field(default_factory=lambda: np.zeros((0, 0)))
    weights: Array = field(default_factory=lambda: np.zeros(0))
    limits: tuple[float, float] = (-inf, inf)

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest value that the quantity can have."""
        return self.limits if self.scale is None else (self.scale.low, self.scale.high)

    @property
    def df(self) -> float:
        """Return the degrees of freedom of a variance over these patients.

        Of several outputs the least. Welch and Satterthwaite's, for classes whose patients vary
        alike; a class of one patient at a site adds none.
        """
        if not self.positives.size:
            return inf
        counts = np.stack([self.positives, self.negatives])  # [2, sites, outputs]
        known = counts > 1
        some = np.where(known, counts, 2)
        part = np.where(known, self.weights[:, None] ** 2 / some, 0)
        top = part.sum(axis=(0, 1)) ** 2
        under = (part**2 / (some - 1)).sum(axis=(0, 1))
        return max(1.0, float(np.divide(top, under, out=np.ones_like(top), where=under > 0).min()))

    def variance_at(self, value: float) -> float | None:
        """Return the variance that the scale's shape tells of patients alone; None if unknown."""
        if self.scale is None or not self.positives.size:
            return None
        each = self.scale.shape(value, self.positives, self.negatives)  # [sites, outputs]
        known = np.isfinite(each)
        whole = known.all(axis=0)
        if not whole.any():
            return None
        return float((self.weights[:, None] ** 2 * each[:, whole]).sum(axis=0).mean())


def of_difference(metric: str) -> Basis:
    """Return the basis of a difference of two values, or means, of a metric.

    >>> of_difference("auroc").ends, of_difference("loss").ends
    ((-1.0, 1.0), (-inf, inf))
    """
    scale = SCALES.get(metric)
    far = inf if scale is None else scale.high - scale.low
    return Basis(limits=(-far, far))


def uninformative(metric: str, half: float) -> bool:
    """Return whether an interval so wide, either side, says next to nothing of a metric.

    That is from half of its scale on: 0.5 of an AUROC, which goes from 0 to 1.

    >>> uninformative("auroc", 0.84), uninformative("auroc", 0.08), uninformative("loss", 9.0)
    (True, False, False)
    """
    return half >= of_difference(metric).ends[1] / 2


def interval_on(
    basis: Basis, value: float, variance: Variance, level: float
) -> tuple[float, float] | None:
    """Return the interval of a quantity, within what it can be; None where nothing at all varies.

    >>> perfect = Basis(SCALES["auroc"], np.array([[20]]), np.array([[20]]), np.ones(1))
    >>> low, high = interval_on(perfect, 1.0, Variance(0.0, 0.0, seeds=1), 0.95)
    >>> f"{low:.2f} to {high:.2f}"  # every pair in order does not make it certain
    '0.90 to 1.00'
    """
    variance = _blended(basis, value, variance)
    if sqrt(variance.total) <= 1e-12 * max(1.0, abs(value)):
        return _at_bound(basis, value, variance, level)
    half = critical(variance, level) * sqrt(variance.total)
    scale = basis.scale
    if scale is None or not scale.low < value < scale.high:
        low, high = basis.ends
        return max(low, value - half), min(high, value + half)
    return _inverted(basis, scale, value, half)


def _inverted(basis: Basis, scale: Scale, value: float, half: float) -> tuple[float, float]:
    """Return the ends x where |value - x| is the half width that there would be at x."""
    here = _relative(basis, value)

    def apart(x: float) -> float:
        return abs(value - x) - half * sqrt(max(_relative(basis, x), 0.0) / here)

    high = scale.high
    if not isfinite(high):
        high = value + half
        while apart(high) < 0:
            high += 2 * (high - value)
    return _end(apart, scale.low, value), _end(apart, high, value)


def _end(apart: Callable[[float], float], far: float, near: float) -> float:
    """Return where a distance less its half width is zero; the far place if it is nowhere above."""
    return float(brentq(apart, far, near, xtol=1e-9)) if apart(far) > 0 else far


def _relative(basis: Basis, x: float) -> float:
    """Return the variance at x up to a factor, also where no patients are counted."""
    assert basis.scale is not None
    found = basis.variance_at(x)
    return found if found is not None else float(basis.scale.shape(x, np.ones(1), np.ones(1))[0])


def _blended(basis: Basis, value: float, variance: Variance) -> Variance:
    """Return the variance with that of patients drawn up towards the scale's own, never down.

    Of fifteen patients the observed variance is itself a guess, and too small a one exactly where
    the value is too near its bound. The scale's own counts as `_PRIOR` patients more.
    """
    own = basis.variance_at(value) if basis.scale is not None and basis.scale.sized else None
    if own is None or not own > 0:
        return variance
    df = min(basis.df, 1e9)
    blend = (df * variance.patients + _PRIOR * own) / (df + _PRIOR)
    # Without any error there is nothing observed to blend with.
    patients = max(variance.patients, own if variance.patients == 0 else blend)
    return replace(variance, patients=patients)


def _at_bound(
    basis: Basis, value: float, variance: Variance, level: float
) -> tuple[float, float] | None:
    """Return the interval of a value at its bound, from the scale's shape alone."""
    scale = basis.scale
    if scale is None or not scale.sized or value not in (scale.low, scale.high):
        return None
    if basis.variance_at((scale.low + scale.high) / 2) is None:
        return None
    wide = critical(Variance(0.0, 1.0, variance.seeds), level)

    def apart(x: float) -> float:
        return abs(value - x) - wide * sqrt(max(basis.variance_at(x) or 0.0, 0.0))

    middle = scale.low if value == scale.high else scale.high
    # Just inside the bound: at the bound itself both sides are zero.
    inside = value + (middle - value) * 1e-9
    end = _end(apart, middle, inside)
    return (end, value) if value == scale.high else (value, end)


def _pairs(x: float, positives: Array, negatives: Array) -> Array:
    """Return Newcombe's variance of an AUROC: Hanley and McNeil's with both classes taken alike."""
    with np.errstate(divide="ignore", invalid="ignore"):
        extra = (positives + negatives) / 2 - 1
        spread = 1 + extra * ((1 - x) / (2 - x) + x / (1 + x))
        return np.asarray(x * (1 - x) * spread / (positives * negatives))


def _of(count: Callable[[Array, Array], Array]) -> VarianceShape:
    """Return the shape of a share of so many patients."""

    def shape(x: float, positives: Array, negatives: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(x * (1 - x) / count(positives, negatives))

    return shape


def _everybody(positives: Array, negatives: Array) -> Array:
    return positives + negatives


def _ill(positives: Array, negatives: Array) -> Array:
    return positives


def _both(positives: Array, negatives: Array) -> Array:
    # The mean of two shares: a quarter of x (1 - x) / positives + x (1 - x) / negatives.
    return 4 * positives * negatives / (positives + negatives)


def _error(x: float, positives: Array, negatives: Array) -> Array:
    return np.full(np.shape(positives), x)


def _agreement(x: float, positives: Array, negatives: Array) -> Array:
    return np.full(np.shape(positives), (1 - x) * (1 + x))


SCALES: dict[str, Scale] = {
    "accuracy": Scale(0.0, 1.0, _of(_everybody)),
    "auprc": Scale(0.0, 1.0, _of(_ill)),
    "auroc": Scale(0.0, 1.0, _pairs, chance=0.5),
    "balanced_accuracy": Scale(0.0, 1.0, _of(_both), chance=0.5),
    "brier": Scale(0.0, 2.0, _error, sized=False),
    "ece": Scale(0.0, 1.0, _error, sized=False),
    "kappa_linear": Scale(-1.0, 1.0, _agreement, sized=False, chance=0.0),
    "kappa_quadratic": Scale(-1.0, 1.0, _agreement, sized=False, chance=0.0),
    "loss": Scale(0.0, inf, _error, sized=False),
    "sensitivity": Scale(0.0, 1.0, _of(_ill)),
}
"""By the name of the metric; one that is not here has symmetric intervals and no bounds."""
