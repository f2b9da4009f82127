"""Metrics of how scores rank images, from a histogram of scores that sites can add.

A site sends, for each output, how many positive and negative images fall in each of 1024 bins. That
is all that AUROC, average precision and the choice of a threshold need; the price is that images of
one bin count as ties, and `resolution` bounds what that can change.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import (
    Array,
    Cells,
    Metric,
    Reason,
    Statistic,
    counting,
    macro,
    one_vs_rest,
    ratio,
)

__all__ = [
    "BINS",
    "auprc",
    "auroc",
    "bins_of",
    "histogram",
    "resolution",
    "sensitivity",
    "share_in_fullest_bin",
]

BINS = 1024
# A probability in double is 1 from log-odds of 36.7 on; the outer bins take what lies beyond.
_OUTERMOST = 36.0


def bins_of(scores: Array) -> NDArray[np.intp]:
    """Return the bin of each probability, 0 to 1023, in the order of the probabilities.

    Bins are even in asinh of the log-odds: 0.0084 log-odds wide at 0.5, growing with the distance
    from it. 0.5 itself is the lower edge of bin 512, so bins from 512 on are called positive.

    >>> bins_of(np.array([0.0, 0.4999, 0.5, 1.0])).tolist()
    [0, 511, 512, 1023]
    """
    with np.errstate(divide="ignore"):
        log_odds = np.log(scores) - np.log1p(-scores)
    place = np.arcsinh(log_odds) / np.arcsinh(_OUTERMOST)
    # floor before the shift: a place just below 0 must not round to the edge.
    signed = np.floor(BINS / 2 * np.clip(place, -1, 1)).astype(np.intp)
    return np.asarray(np.minimum(signed + BINS // 2, BINS - 1), np.intp)


def histogram(task: Task) -> Statistic:
    """Return the statistic that counts negative and positive images in each bin of each output.

    Its sums are [outputs * 2 * 1024]: outputs, then negative and positive, then bins. A class of a
    multiclass task counts against the rest; labels that were not read count nowhere.

    >>> from fedrad.metrics.base import sums
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> sums([histogram(task)], np.array([[0.5]]), np.array([[1.0]]))["histogram"].argmax().item()
    1536
    """

    def cells(scores: Array, y: Array) -> Cells:
        truth = one_vs_rest(task, y)
        rows, outputs = np.nonzero(~np.isnan(truth))
        positive = (truth[rows, outputs] > 0.5).astype(np.intp)
        columns = (outputs * 2 + positive) * BINS + bins_of(scores[rows, outputs])
        return Cells(rows, columns, task.outputs * 2 * BINS)

    return counting("histogram", cells)


def auroc(task: Task) -> Metric:
    """Return the area under the ROC curve: the share of (positive, negative) pairs in order.

    Ties, and images of one bin, count half. Several outputs: the mean over those with both classes
    (one-vs-rest for multiclass).

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> auroc(task).undefined(np.repeat([0.0, 44.0], [2047, 1]))
    'test set has one class only: 44 positive, 0 negative'
    """

    def compute(sums: Array, tuning: Array | None) -> Array:
        negative, positive = _by_class(sums)
        below = np.cumsum(negative, axis=-1) - negative / 2
        pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
        return macro(ratio((positive * below).sum(axis=-1), pairs))

    return Metric("auroc", "AUROC", histogram(task), True, compute, _one_class(task))


def auprc(task: Task) -> Metric:
    """Return the average precision: precision weighted by each step of recall, no interpolation.

    A useless model scores the prevalence. Several outputs: the mean over those with both classes.
    Images of one bin share one step.
    """

    def compute(sums: Array, tuning: Array | None) -> Array:
        negative, positive = (part[..., ::-1] for part in _by_class(sums))
        found = np.cumsum(positive, axis=-1)
        called = found + np.cumsum(negative, axis=-1)
        steps = (positive * found / np.maximum(called, 1)).sum(axis=-1)
        # Without a negative image every precision is 1, which says nothing.
        both = np.where(negative.sum(axis=-1) > 0, positive.sum(axis=-1), 0)
        return macro(ratio(steps, both))

    title = "Average precision (AUPRC)"
    return Metric("auprc", title, histogram(task), True, compute, _one_class(task))


def sensitivity(task: Task, *, specificity: float = 0.9) -> Metric:
    """Return the sensitivity at the threshold that had this specificity on the validation images.

    The threshold is the lowest edge of a bin with at least the specificity among the tuning sums'
    negative images; the test images have no say in it. Several outputs: a threshold each, and the
    mean over those with positive test and negative validation images.

    Args:
        task: of the model.
        specificity: above 0, up to 1.

    Raises:
        ConfigError: the specificity is out of range.
    """
    if not 0 < specificity <= 1:
        raise ConfigError(f"sensitivity: specificity is {specificity:g}; needs 0 < it <= 1")

    def per_output(sums: Array, tuning: Array | None) -> Array:
        positive = _by_class(sums)[1]
        if tuning is None:
            return np.full(positive.shape[:-1], np.nan)
        rejected = ratio(*_rejected(tuning))
        # 1e-12: 9 of 10 is 0.9 whatever the rounding.
        edge = (rejected >= specificity - 1e-12).argmax(axis=-1)
        missed = np.cumsum(positive, axis=-1)
        edge = np.broadcast_to(edge, missed.shape[:-1])[..., None]
        share = ratio(np.take_along_axis(missed, edge, axis=-1)[..., 0], missed[..., -1])
        return np.where(np.isnan(rejected[..., -1]), np.nan, 1 - share)

    def compute(sums: Array, tuning: Array | None) -> Array:
        return macro(per_output(sums, tuning))

    def undefined(sums: Array, tuning: Array | None = None, /) -> str | None:
        if not np.isnan(compute(sums, tuning)):
            return None
        if tuning is None or not tuning.any():
            return "no validation images to choose the threshold on"
        if not _by_class(sums)[1].any():
            return "test set has no positive image"
        return "validation set has no negative image to choose the threshold on"

    title = f"Sensitivity at specificity {specificity:g}"
    return Metric("sensitivity", title, histogram(task), True, compute, undefined)


def resolution(sums: Array) -> Array:
    """Return a bound on |AUROC of the histogram - AUROC of the scores|.

    Half the share of (positive, negative) pairs that share a bin, averaged as the AUROC is.

    Args:
        sums: [..., m] of `histogram`.

    Returns:
        [...], nan where the AUROC is undefined.

    >>> resolution(np.repeat([[1.0, 0.0]], 1024, axis=1)[0]).item()
    nan
    """
    negative, positive = _by_class(sums)
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    return macro(ratio((positive * negative).sum(axis=-1) / 2, pairs))


def share_in_fullest_bin(sums: Array) -> Array:
    """Return the largest share of images whose scores fall in one bin; near 1 a model says nothing.

    Of several outputs, the one with the smallest share: a model has collapsed when all have.

    Args:
        sums: [..., m] of `histogram`.

    Returns:
        [...], nan where nothing was read.

    >>> share_in_fullest_bin(np.repeat([3.0, 1.0, 0.0], [1, 1, 2046])).item()
    0.75
    """
    negative, positive = _by_class(sums)
    images = negative + positive
    return np.asarray(ratio(images.max(axis=-1), images.sum(axis=-1)).min(axis=-1))


def _by_class(sums: Array) -> tuple[Array, Array]:
    """Return the negative and the positive images, each [..., outputs, bins]."""
    split = sums.reshape(*sums.shape[:-1], -1, 2, BINS)
    return split[..., 0, :], split[..., 1, :]


def _rejected(sums: Array) -> tuple[Array, Array]:
    """Return the negative images below the upper edge of each bin, and all of them."""
    below = np.cumsum(_by_class(sums)[0], axis=-1)
    return below, below[..., -1:]


def _one_class(task: Task) -> Reason:
    def undefined(sums: Array, tuning: Array | None = None, /) -> str | None:
        negative, positive = (part.sum(axis=-1).astype(int).tolist() for part in _by_class(sums))
        if any(map(min, zip(negative, positive, strict=True))):
            return None
        return _missing_class(task.labels, positive, negative)

    return undefined


def _missing_class(labels: Sequence[str], positive: Sequence[int], negative: Sequence[int]) -> str:
    if not any(positive) and not any(negative):
        return "no label of the test set was read"
    if len(positive) == 1:
        return f"test set has one class only: {positive[0]} positive, {negative[0]} negative"
    counts = [f"{name} {p}/{n}" for name, p, n in zip(labels, positive, negative, strict=True)]
    return f"no finding has both positive and negative test images: {', '.join(counts)}"
