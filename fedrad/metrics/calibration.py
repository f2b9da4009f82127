"""Metrics of the probabilities themselves, from errors that sites can add."""

import numpy as np

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, Statistic, macro, one_vs_rest, ratio

__all__ = ["brier", "ece", "loss"]

# sklearn.metrics.log_loss clips here too: a certain mistake costs 36, not infinity.
_EPSILON = float(np.finfo(np.float64).eps)


def brier(task: Task) -> Metric:
    """Return the mean squared error of the probabilities; 0 is perfect.

    For multiclass it is summed over the classes (0 to 2, Brier 1950); of several findings, the
    mean.

    >>> from fedrad.metrics.base import sums
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sums([brier(task).statistic], np.array([[0.5], [1.0]]), np.array([[0.0], [1.0]]))
    >>> brier(task).compute(found["squared-error"][0], None).item()
    0.125
    """

    def terms(scores: Array, y: Array) -> Array:
        truth = one_vs_rest(task, y)
        read = ~np.isnan(truth)
        error = np.where(read, (scores - truth) ** 2, 0)
        if task.name == "multiclass":
            error, read = error.sum(axis=1, keepdims=True), read[:, :1]
        return np.concatenate([error, read], axis=1)

    def compute(sums: Array, tuning: Array | None) -> Array:
        error, read = np.split(sums, 2, axis=-1)
        return macro(ratio(error, read))

    statistic = Statistic("squared-error", terms)
    return Metric("brier", "Brier score", statistic, False, compute, _nothing_read)


def loss(task: Task) -> Metric:
    """Return the cross-entropy, the mean over all labels that were read; natural logarithm.

    >>> from fedrad.metrics.base import sums
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sums([loss(task).statistic], np.array([[0.5], [0.5]]), np.array([[1.0], [np.nan]]))
    >>> round(loss(task).compute(found["cross-entropy"][0], None).item(), 3)
    0.693
    """

    def terms(scores: Array, y: Array) -> Array:
        truth = one_vs_rest(task, y)
        sure = np.clip(scores, _EPSILON, 1 - _EPSILON)
        # Of a multiclass label only the true class counts: the others would count it again.
        no = 0.0 if task.name == "multiclass" else (1 - truth) * np.log1p(-sure)
        entropy = -np.nansum(truth * np.log(sure) + no, axis=1)
        return np.stack([entropy, (~np.isnan(y)).sum(axis=1)], axis=1)

    def compute(sums: Array, tuning: Array | None) -> Array:
        return ratio(sums[..., 0], sums[..., 1])

    statistic = Statistic("cross-entropy", terms)
    return Metric("loss", "Cross-entropy", statistic, False, compute, _nothing_read)


def ece(task: Task, *, bins: int = 15) -> Metric:
    """Return the expected calibration error: mean |observed share - probability| over bins.

    Bins are even on [0, 1] and weighted by their images. The probability is that of the finding
    (of several, the mean of their errors); for multiclass that of the decided class, against
    whether it was right (Guo et al., ICML 2017).

    Args:
        task: of the model.
        bins: at least 1. The error grows with bins and shrinks with images, even of a model that is
            calibrated: compare only at equal bins on the same test set.

    Raises:
        ConfigError: no bin.
    """
    if bins < 1:
        raise ConfigError(f"ece: bins is {bins}; needs at least 1")

    def terms(scores: Array, y: Array) -> Array:
        truth, read = y, ~np.isnan(y)
        if task.name == "multiclass":
            truth = (scores.argmax(axis=1, keepdims=True) == y).astype(np.float64)
            scores = scores.max(axis=1, keepdims=True)
        place = np.floor(scores * bins).clip(0, bins - 1)
        inside = (place[..., None] == np.arange(bins)) & read[..., None]
        # [n, findings, bins, (images, probability, positives)]
        each = np.stack([np.ones_like(scores), scores, np.where(read, truth, 0)], axis=-1)
        inside_each = inside[..., None] * each[..., None, :]
        return np.asarray(inside_each.reshape(len(y), task.columns * bins * 3))

    def compute(sums: Array, tuning: Array | None) -> Array:
        table = sums.reshape(*sums.shape[:-1], -1, bins, 3)
        gap = np.abs(table[..., 1] - table[..., 2]).sum(axis=-1)
        return macro(ratio(gap, table[..., 0].sum(axis=-1)))

    title = f"Expected calibration error ({bins} bins)"
    statistic = Statistic(f"calibration-{bins}", terms)
    return Metric("ece", title, statistic, False, compute, _nothing_read)


def _nothing_read(sums: Array, tuning: Array | None = None, /) -> str | None:
    return None if sums.any() else "no label of the test set was read"
