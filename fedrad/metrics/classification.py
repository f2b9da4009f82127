"""Metrics of the decisions a model makes.

A decision is the most probable class, or, for each finding, whether its probability is at least
0.5.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.metrics.base import Array, Metric, Sample, Table, macro, ratio

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "confusion",
    "decided",
    "kappa_linear",
    "kappa_quadratic",
]


def confusion(task: Task, sample: Sample) -> Array:
    """Return how often each (true, decided) pair of classes occurs: [r, tables, k, k].

    Of the k classes of a multiclass task one table; else a table of two classes for each finding.
    Labels that were not read count nowhere.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.2], [0.5]]), np.array([[1.0], [1.0]]))
    >>> confusion(task, found).tolist()
    [[[[0.0, 0.0], [1.0, 1.0]]]]
    """
    classes = _classes(task)
    found = sample.weights @ _members(task, sample).astype(np.float64)
    return np.asarray(found.reshape(len(found), task.columns, classes, classes))


def decided(task: Task, scores: Array) -> NDArray[np.intp]:
    """Return the class that a model decides for: [n, tables]."""
    if task.name == "multiclass":
        return np.asarray(scores.argmax(axis=1, keepdims=True))
    return np.asarray((scores >= 0.5).astype(np.intp))


def accuracy(task: Task) -> Metric:
    """Return the share of right decisions; of several findings, the mean of their shares.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.2], [0.5]]), np.array([[1.0], [1.0]]))
    >>> accuracy(task).value(found).tolist()
    [0.5]
    """

    def parts(sample: Sample) -> Array:
        tables = confusion(task, sample)
        right = np.trace(tables, axis1=-2, axis2=-1)
        return ratio(np.asarray(right), tables.sum(axis=(-2, -1)))

    return Metric(
        "accuracy", "Accuracy", True, parts, macro, classwise=False, denominators=_images_read
    )


def balanced_accuracy(task: Task) -> Metric:
    """Return the mean over the classes of the share of their images that are recognised.

    Over the classes that are there; undefined with one class only. Of several findings, the mean.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.2], [0.5], [0.1]]), np.array([[1.0], [1.0], [0.0]]))
    >>> balanced_accuracy(task).value(found).tolist()
    [0.75]
    """
    classes = _classes(task)

    def parts(sample: Sample) -> Array:
        tables = confusion(task, sample)
        recalls = ratio(np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(axis=-1))
        return np.asarray(recalls.reshape(len(tables), -1))

    def combine(values: Array) -> Array:
        recalls = values.reshape(len(values), -1, classes)
        findings = [macro(recalls[:, table]) for table in range(recalls.shape[1])]
        several = (~np.isnan(recalls[0])).sum(axis=-1) > 1
        return macro(np.where(several, np.stack(findings, axis=1), np.nan))

    def images(sample: Sample) -> Array:
        return np.asarray(confusion(task, sample)[0].sum(axis=-1).ravel())

    title = "Balanced accuracy"
    return Metric(
        "balanced_accuracy", title, True, parts, combine, classwise=True, denominators=images
    )


def kappa_linear(task: Task) -> Metric:
    """Return Cohen's kappa with weights |i - j| between classes i and j.

    Undefined where chance alone would agree always. Of several findings, the mean.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sample(task, np.array([[0.2], [0.5]]), np.array([[0.0], [1.0]]))
    >>> kappa_linear(task).value(found).tolist()
    [1.0]
    """
    return _kappa_of(task, "kappa_linear", "Kappa (linear)", power=1)


def kappa_quadratic(task: Task) -> Metric:
    """Return Cohen's kappa with weights (i - j)^2 between classes i and j, for ordered grades.

    Undefined where chance alone would agree always. Of several findings, the mean.

    >>> from fedrad.metrics.base import sample
    >>> task = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8))
    >>> found = sample(task, np.eye(3), np.array([[0.0], [1.0], [2.0]]))
    >>> kappa_quadratic(task).value(found).tolist()
    [1.0]
    """
    return _kappa_of(task, "kappa_quadratic", "Kappa (quadratic)", power=2)


def _kappa_of(task: Task, name: str, title: str, *, power: int) -> Metric:
    classes = _classes(task)

    def sums(sample: Sample) -> Array:
        tables = confusion(task, sample)
        return np.asarray(tables.reshape(len(tables), -1))

    def of_sums(sums: Array) -> Array:
        return _kappa(sums.reshape(len(sums), -1, classes, classes), power)

    table = Table("confusion", sums, partial(_members, task), of_sums, counts=True)
    return Metric(
        name, title, True, lambda sample: of_sums(sums(sample)), macro, classwise=True, table=table
    )


def _kappa(tables: Array, power: int) -> Array:
    """Cohen 1968: 1 - observed / expected disagreement, both weighted."""
    place = np.arange(tables.shape[-1])
    weights = np.abs(place[:, None] - place).astype(np.float64) ** power
    observed = (weights * tables).sum(axis=(-2, -1))
    chance = tables.sum(axis=-1)[..., :, None] * tables.sum(axis=-2)[..., None, :]
    expected = ratio((weights * chance).sum(axis=(-2, -1)), tables.sum(axis=(-2, -1)))
    return 1 - ratio(observed, expected)


def _classes(task: Task) -> int:
    return task.outputs if task.name == "multiclass" else 2


def _members(task: Task, sample: Sample) -> NDArray[np.bool_]:
    """Return the images [n, cells] of each (table, true class, decided class)."""
    classes = _classes(task)
    read = ~np.isnan(sample.y)
    true = np.where(read, sample.y, 0).astype(np.intp)
    place = true * classes + decided(task, sample.scores)
    found = (place[..., None] == np.arange(classes**2)) & read[..., None]
    return np.asarray(found.reshape(len(sample.y), task.columns * classes**2))


def _images_read(sample: Sample) -> Array:
    return np.asarray((~np.isnan(sample.y)).sum(axis=0, dtype=np.float64))
