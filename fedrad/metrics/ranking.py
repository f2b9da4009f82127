"""Metrics of how scores rank images: AUROC, average precision, sensitivity at a specificity.

Of one sample they are exact. Of several sites they come from each site's cells of scores
(`cells`), whose remaining error is bounded (`pooling`).
"""

from collections.abc import Callable

import numpy as np

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.metrics.base import Array, Metric, Sample, macro, ratio
from fedrad.metrics.cells import log_odds

__all__ = ["auprc", "auroc", "sensitivity"]


def auroc(task: Task) -> Metric:
    """Return the area under the ROC curve: the share of (positive, negative) pairs in order.

    Ties count half. Several outputs: the mean over those with both classes (one-vs-rest for
    multiclass).

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.2], [0.4], [0.4]]), np.array([[0.0], [0.0], [1.0]]))
    >>> auroc(task).value(found).tolist()
    [0.75]
    """
    return Metric("auroc", "AUROC", True, _each_output(_auroc), macro, classwise=True)


def auprc(task: Task) -> Metric:
    """Return the average precision: precision weighted by each step of recall, no interpolation.

    A useless model scores the prevalence. Several outputs: the mean over those with both classes.
    Images of one score share one step.
    """
    title = "Average precision (AUPRC)"
    return Metric("auprc", title, True, _each_output(_auprc), macro, classwise=True)


def sensitivity(task: Task, *, specificity: float = 0.9) -> Metric:
    """Return the sensitivity at the threshold that had this specificity on the validation images.

    The threshold is the lowest with at least the specificity among the validation images'
    negatives; the test images have no say in it. Several outputs: a threshold each, and the mean
    over those with positive test and negative validation images.

    Args:
        task: of the model.
        specificity: above 0, up to 1.

    Raises:
        ConfigError: the specificity is out of range.
    """
    if not 0 < specificity <= 1:
        raise ConfigError(f"sensitivity: specificity is {specificity:g}; needs 0 < it <= 1")

    def parts(sample: Sample) -> Array:
        edge = sample.thresholds.get("sensitivity", np.full(sample.scores.shape[1], np.nan))
        positive = np.nan_to_num(sample.truth)
        found = sample.weights @ (positive * (log_odds(sample.scores) >= edge))
        return np.where(np.isnan(edge), np.nan, ratio(found, sample.weights @ positive))

    def positives(sample: Sample) -> Array:
        return np.asarray(np.nan_to_num(sample.truth).sum(axis=0))

    return Metric(
        "sensitivity",
        f"Sensitivity at specificity {specificity:g}",
        True,
        parts,
        macro,
        classwise=True,
        denominators=positives,
        specificity=specificity,
    )


def _each_output(one: Callable[[Array, Array], Array]) -> Callable[[Sample], Array]:
    """Return parts [r, outputs] by a function of negatives and positives [r, g], by score."""

    def parts(sample: Sample) -> Array:
        outputs = range(sample.scores.shape[1])
        return np.stack([one(*_by_score(sample, output)) for output in outputs], axis=1)

    return parts


def _by_score(sample: Sample, output: int) -> tuple[Array, Array]:
    """Return how often negatives and positives have each score, both [r, g], scores rising."""
    read = np.flatnonzero(~np.isnan(sample.truth[:, output]))
    order = read[np.argsort(sample.scores[read, output], kind="stable")]
    if not len(order):
        empty = np.zeros((len(sample.weights), 1))
        return empty, empty
    scores = sample.scores[order, output]
    starts = np.flatnonzero(np.concatenate([[True], scores[1:] != scores[:-1]]))
    weights, positive = sample.weights[:, order], sample.truth[order, output]
    counts = [np.add.reduceat(weights * of, starts, axis=1) for of in (1 - positive, positive)]
    return counts[0], counts[1]


def _auroc(negative: Array, positive: Array) -> Array:
    below = np.cumsum(negative, axis=1) - negative / 2
    return ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def _auprc(negative: Array, positive: Array) -> Array:
    negative, positive = negative[:, ::-1], positive[:, ::-1]
    found = np.cumsum(positive, axis=1)
    called = found + np.cumsum(negative, axis=1)
    steps = positive * ratio(found, called)
    # Without a negative image every precision is 1, which says nothing.
    both = np.where(negative.sum(axis=1) > 0, positive.sum(axis=1), 0)
    return ratio(np.nansum(steps, axis=1), both)
