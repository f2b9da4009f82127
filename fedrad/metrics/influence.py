"""What each patient contributes to a metric, and random draws from which only variances follow.

The jackknife leaves out one patient after the other (Efron and Stein, Annals of Statistics 9,
1981; for AUROC it is DeLong's variance to first order). Its influence values `psi` stay with
whoever holds the patients; what may be told of them is `value + sum_i g_i psi_i` with standard
normal g (the Gaussian multiplier bootstrap; Chernozhukov, Chetverikov, Kato, Annals of Statistics
41, 2013).

Invariant: whatever is linear in `psi` and drawn with the same unknown g has a distribution that
depends on the covariances of the metrics alone. So draws of several models, paired by one g, tell
those covariances and nothing else of any patient. Resamples with replacement do not have this
property: their weights are whole numbers, and independent component analysis can undo the mixture.
Covariances of many models over few patients are not harmless either; `site_result` adds noise.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedrad.metrics.base import Array, Metric, Sample

__all__ = ["MOST_GROUPS", "groups_of", "influences", "multiplied"]

MOST_GROUPS = 500
"""With more patients than this, the jackknife leaves out groups of them."""
_NUMBERS = 4_000_000  # in a temporary array, 32 MB


def groups_of(patient: NDArray[np.generic]) -> NDArray[np.intp]:
    """Return the jackknife group of each image: its patient, or, of very many, a set of patients.

    All images of a patient are in one group, because they are no independent evidence.

    >>> groups_of(np.array([7, 9, 7])).tolist()
    [0, 1, 0]
    """
    known, place = np.unique(patient, return_inverse=True)
    if len(known) <= MOST_GROUPS:
        return np.asarray(place, np.intp)
    order = np.random.default_rng(0).permutation(len(known))
    return np.asarray((order % MOST_GROUPS)[place], np.intp)


def influences(
    metrics: Sequence[Metric], sample: Sample, group: NDArray[np.intp]
) -> dict[str, tuple[Array, Array]]:
    """Return each metric's parts [p], and what each group of patients contributes to them [g, p].

    Args:
        metrics: of one sample.
        sample: with one row of weights, each image once.
        group: [n] of each image, from 0.

    Returns:
        Metric's name -> (parts, psi). The sum of psi ** 2 over groups is the jackknife variance of
        a part; psi is nan where a part is undefined without one of the groups.
    """
    count = int(group.max()) + 1 if len(group) else 0
    parts: dict[str, list[Array]] = {metric.name: [] for metric in metrics}
    observed = {metric.name: metric.parts(sample)[0] for metric in metrics}
    for left_out in _without_each(sample, group, count):
        for metric in metrics:
            parts[metric.name].append(metric.parts(left_out))
    return {
        name: (
            value,
            _psi(np.concatenate(parts[name])) if parts[name] else np.zeros((0, len(value))),
        )
        for name, value in observed.items()
    }


def multiplied(value: Array, psi: Array, draws: Array) -> Array:
    """Return what was observed, then a draw for each row: [1 + b, p].

    Args:
        value: [p] parts.
        psi: [g, p] influences.
        draws: [b, g] standard normal, the same for all models at a site, so that they are paired.
    """
    return np.asarray(np.concatenate([value[None], value + draws @ psi]))


def _without_each(sample: Sample, group: NDArray[np.intp], count: int) -> Iterator[Sample]:
    step = max(1, _NUMBERS // max(len(group), 1))
    for start in range(0, count, step):
        rows = np.arange(start, min(start + step, count))
        weights = (group != rows[:, None]).astype(np.float64)
        yield Sample(sample.scores, sample.y, sample.truth, weights, sample.thresholds)


def _psi(left_out: Array) -> Array:
    count = len(left_out)
    centred = left_out.mean(axis=0) - left_out
    return np.asarray(centred * np.sqrt((count - 1) / count))
