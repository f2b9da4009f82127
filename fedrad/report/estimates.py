"""From a quantity of seeds and replicates to a number with an interval, or the reason for none."""

from typing import TypedDict

import numpy as np

from fedrad.metrics.base import Array
from fedrad.metrics.intervals import UNDEFINED_SHARE
from fedrad.metrics.mrmc import other_seeds, variance_of
from fedrad.metrics.scales import Basis, interval_on

__all__ = ["Estimate", "estimate", "known_estimate", "missing", "unsure"]

LEAST_REPLICATES = 100  # of fewer, a standard error is off by more than 7 %


class Estimate(TypedDict):
    """A number for results.json; `None` where undefined, and then the reason says why.

    `seeds` are those it is a mean over: with one, the interval holds for these trained models only.
    Of several, `other_seeds` is how far from the value that of as many other seeds may lie; never
    further than the farthest value that there can be.
    """

    value: float | None
    low: float | None
    high: float | None
    seed_sd: float | None
    seeds: int
    other_seeds: float | None
    reason: str | None


def missing(reason: str) -> Estimate:
    """Return an estimate without a value.

    >>> missing("not evaluated")["reason"]
    'not evaluated'
    """
    return Estimate(
        value=None, low=None, high=None, seed_sd=None, seeds=0, other_seeds=None, reason=reason
    )


def estimate(
    values: Array,
    *,
    level: float,
    basis: Basis | None = None,
    undefined: str = "undefined",
    refusal: str | None = None,
    remark: str | None = None,
) -> Estimate:
    """Return the estimate of a quantity.

    Args:
        values: [s, 1 + b].
        level: of the interval, which holds the noise of patients and, of several seeds, of
            training.
        basis: its scale and patients; by default no bounds, and patients without number.
        undefined: the reason if the value is nan.
        refusal: the reason if there must be no interval.
        remark: what else to say of the value.

    >>> values = np.concatenate([[50.0], np.arange(101.0)])[None]
    >>> found = estimate(values, level=0.95, remark="over 2 of 3 sites")
    >>> round(found["low"], 1), found["seeds"], found["reason"]
    (-7.4, 1, 'over 2 of 3 sites')
    """
    if not len(values) or np.isnan(values[:, 0]).any():
        return missing(undefined)
    basis = basis or Basis()
    why = unsure(values, refusal)
    value = float(values[:, 0].mean())
    ends = None if why else interval_on(basis, value, variance_of(values), level)
    if ends is None and why is None:
        why = "no interval: neither patients nor seeds tell anything apart here"
    far = other_seeds(values, level)
    if far is not None:
        far = min(far, max(value - basis.ends[0], basis.ends[1] - value))
    return known_estimate(value, values[:, 0], ends, other=far, why=why, remark=remark)


def unsure(values: Array, refusal: str | None) -> str | None:
    """Return why a quantity [s, 1 + b] has no interval, or None if it may have one.

    Args:
        values: of it.
        refusal: what is known already.
    """
    replicates = values.shape[1] - 1
    unknown = np.isnan(values[:, 1:]).any(axis=0)
    if refusal is not None:
        return refusal
    if not replicates:
        return "no interval: no replicates were asked for"
    if replicates < LEAST_REPLICATES:
        return f"no interval: {replicates} replicates; needs {LEAST_REPLICATES}"
    if unknown.mean() > UNDEFINED_SHARE:
        return f"no interval: undefined in {unknown.mean():.0%} of the replicates"
    return None


def known_estimate(
    value: float,
    by_seed: Array,
    ends: tuple[float, float] | None,
    *,
    why: str | None,
    remark: str | None,
    other: float | None = None,
) -> Estimate:
    """Return the estimate of a value whose interval is known, or why it is not.

    Args:
        value: no nan.
        by_seed: [s] the same from each seed alone; its SD is left out if one is nan.
        ends: of the interval.
        why: the reason if there is no interval.
        remark: what else to say.
        other: how far that of other seeds may lie.
    """
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else float("nan")
    return Estimate(
        value=value,
        low=None if why or ends is None else ends[0],
        high=None if why or ends is None else ends[1],
        seed_sd=None if np.isnan(spread) else spread,
        seeds=len(by_seed),
        other_seeds=other,
        reason="; ".join(part for part in (remark, why) if part) or None,
    )
