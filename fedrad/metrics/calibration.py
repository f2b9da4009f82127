"""Metrics of the probabilities themselves."""

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, Sample, Table, macro, ratio

__all__ = ["brier", "ece", "loss"]

# sklearn.metrics.log_loss clips here too: a certain mistake costs 36, not infinity.
_EPSILON = float(np.finfo(np.float64).eps)


def brier(task: Task) -> Metric:
    """Return the mean squared error of the probabilities; 0 is perfect.

    For multiclass it is summed over the classes (0 to 2, Brier 1950); of several findings, the
    mean.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.5], [1.0]]), np.array([[0.0], [1.0]]))
    >>> brier(task).value(found).tolist()
    [0.125]
    """

    def parts(sample: Sample) -> Array:
        read = ~np.isnan(sample.truth)
        error = np.where(read, (sample.scores - sample.truth) ** 2, 0)
        if task.name == "multiclass":
            error, read = error.sum(axis=1, keepdims=True), read[:, :1]
        return ratio(sample.weights @ error, sample.weights @ read.astype(np.float64))

    return Metric(
        "brier", "Brier score", False, parts, macro, classwise=False, denominators=_images_read
    )


def loss(task: Task) -> Metric:
    """Return the cross-entropy, the mean over all labels that were read; natural logarithm.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.5], [0.5]]), np.array([[1.0], [np.nan]]))
    >>> loss(task).value(found).round(3).tolist()
    [0.693]
    """

    def parts(sample: Sample) -> Array:
        sure = np.clip(sample.scores, _EPSILON, 1 - _EPSILON)
        # Of a multiclass label only the true class counts: the others would count it again.
        no = 0.0 if task.name == "multiclass" else (1 - sample.truth) * np.log1p(-sure)
        entropy = -np.nansum(sample.truth * np.log(sure) + no, axis=1)
        read = (~np.isnan(sample.y)).sum(axis=1, dtype=np.float64)
        return ratio(sample.weights @ entropy, sample.weights @ read)[:, None]

    def labels(sample: Sample) -> Array:
        return np.array([(~np.isnan(sample.y)).sum()], np.float64)

    return Metric(
        "loss", "Cross-entropy", False, parts, macro, classwise=False, denominators=labels
    )


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

    def judged(sample: Sample) -> tuple[Array, Array]:
        """Return the probabilities that are judged, and what was true: both [n, findings]."""
        if task.name != "multiclass":
            return sample.scores, sample.y
        right = (sample.scores.argmax(axis=1, keepdims=True) == sample.y).astype(np.float64)
        unread = np.isnan(sample.y)
        return sample.scores.max(axis=1, keepdims=True), np.where(unread, np.nan, right)

    def inside(sample: Sample) -> NDArray[np.bool_]:
        scores, truth = judged(sample)
        place = np.floor(scores * bins).clip(0, bins - 1)
        found = (place[..., None] == np.arange(bins)) & ~np.isnan(truth)[..., None]
        return np.asarray(found)

    def sums(sample: Sample) -> Array:
        scores, truth = judged(sample)
        # [n, findings, bins, (images, probability, positives)]
        each = np.stack([np.ones_like(scores), scores, np.nan_to_num(truth)], axis=-1)
        terms = inside(sample)[..., None] * each[..., None, :]
        return np.asarray(sample.weights @ terms.reshape(len(scores), task.columns * bins * 3))

    def members(sample: Sample) -> NDArray[np.bool_]:
        found, positive = inside(sample), (judged(sample)[1] == 1)[..., None]
        # A bin's positive images are told apart from its others, so each are a cell.
        cells = np.stack([found & positive, found & ~positive], axis=-1)
        return cells.reshape(len(cells), task.columns * bins * 2)

    def of_sums(sums: Array) -> Array:
        table = sums.reshape(len(sums), -1, bins, 3)
        gap = np.abs(table[..., 1] - table[..., 2]).sum(axis=-1)
        return ratio(gap, table[..., 0].sum(axis=-1))

    table = Table(f"calibration-{bins}", sums, members, of_sums, counts=False)
    title = f"Expected calibration error ({bins} bins)"
    return Metric(
        "ece",
        title,
        False,
        lambda sample: of_sums(sums(sample)),
        macro,
        classwise=False,
        table=table,
    )


def _images_read(sample: Sample) -> Array:
    return np.asarray((~np.isnan(sample.y)).sum(axis=0, dtype=np.float64))
