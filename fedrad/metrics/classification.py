"""Metrics of the decisions a model makes, from a confusion matrix that sites can add.

A decision is the most probable class, or, for each finding, whether its probability is at least
0.5.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.metrics.base import Array, Cells, Metric, Statistic, counting, macro, ratio

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "confusion",
    "kappa_linear",
    "kappa_quadratic",
    "one_class",
]


def confusion(task: Task) -> Statistic:
    """Return the statistic that counts (true, decided) classes.

    Its sums are [k * k], true class first, for the k classes of a multiclass task; else
    [outputs * 2 * 2], one table a finding. Labels that were not read count nowhere.

    >>> from fedrad.metrics.base import sums
    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> found = sums([confusion(task)], np.array([[0.2], [0.5]]), np.array([[1.0], [1.0]]))
    >>> found["confusion"].tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    classes = _classes(task)

    def decide(scores: Array) -> NDArray[np.intp]:
        if task.name == "multiclass":
            return np.asarray(scores.argmax(axis=1, keepdims=True))
        return (scores >= 0.5).astype(np.intp)

    def cells(scores: Array, y: Array) -> Cells:
        rows, tables = np.nonzero(~np.isnan(y))
        truth = y[rows, tables].astype(np.intp)
        columns = (tables * classes + truth) * classes + decide(scores)[rows, tables]
        return Cells(rows, columns, task.columns * classes**2)

    return counting("confusion", cells)


def accuracy(task: Task) -> Metric:
    """Return the share of right decisions; of several findings, the mean of their shares.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> accuracy(task).compute(np.array([30.0, 10.0, 5.0, 5.0]), None).item()
    0.7
    """

    def per_table(tables: Array) -> Array:
        right = np.trace(tables, axis1=-2, axis2=-1)
        return ratio(np.asarray(right), tables.sum(axis=(-2, -1)))

    return _metric(task, "accuracy", "Accuracy", per_table)


def balanced_accuracy(task: Task) -> Metric:
    """Return the mean over the classes of the share of their images that are recognised.

    Over the classes that are there; undefined with one class only. Of several findings, the mean.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> balanced_accuracy(task).compute(np.array([30.0, 10.0, 5.0, 5.0]), None).item()
    0.625
    """

    def per_table(tables: Array) -> Array:
        images = tables.sum(axis=-1)
        recalls = ratio(np.diagonal(tables, axis1=-2, axis2=-1), images)
        return np.where((images > 0).sum(axis=-1) > 1, macro(recalls, axes=2), np.nan)

    return _metric(task, "balanced_accuracy", "Balanced accuracy", per_table)


def kappa_linear(task: Task) -> Metric:
    """Return Cohen's kappa with weights |i - j| between classes i and j.

    Undefined where chance alone would agree always. Of several findings, the mean.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> kappa_linear(task).compute(np.array([10.0, 0.0, 0.0, 10.0]), None).item()
    1.0
    """
    return _metric(task, "kappa_linear", "Kappa (linear)", lambda tables: _kappa(tables, 1))


def kappa_quadratic(task: Task) -> Metric:
    """Return Cohen's kappa with weights (i - j)^2 between classes i and j, for ordered grades.

    Undefined where chance alone would agree always. Of several findings, the mean.

    >>> task = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8))
    >>> kappa_quadratic(task).compute(np.diag([5.0, 5.0, 5.0]).ravel(), None).item()
    1.0
    """
    return _metric(task, "kappa_quadratic", "Kappa (quadratic)", lambda tables: _kappa(tables, 2))


def one_class(task: Task, sums: Array) -> bool:
    """Return whether every image was given one and the same class; of all findings, if several.

    Args:
        task: of the model.
        sums: [m] of `confusion`.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> one_class(task, np.array([30.0, 0.0, 5.0, 0.0]))
    True
    """
    decided = (_tables(task, sums).sum(axis=-2) > 0).sum(axis=-1)
    return bool((decided == 1).any() and (decided <= 1).all())


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


def _tables(task: Task, sums: Array) -> Array:
    """Return [..., tables, true class, decided class]."""
    return sums.reshape(*sums.shape[:-1], -1, _classes(task), _classes(task))


def _metric(task: Task, name: str, title: str, per_table: Callable[[Array], Array]) -> Metric:
    def compute(sums: Array, tuning: Array | None) -> Array:
        return macro(per_table(_tables(task, sums)))

    def undefined(sums: Array, tuning: Array | None = None, /) -> str | None:
        if not np.isnan(compute(sums, None)):
            return None
        if not sums.any():
            return "no label of the test set was read"
        return _missing_class(task, _tables(task, sums).sum(axis=-1))

    return Metric(name, title, confusion(task), True, compute, undefined)


def _missing_class(task: Task, images: Array) -> str:
    """Return the reason, from the images [tables, true class]."""
    if len(images) > 1:
        return "no finding has both positive and negative test images"
    names = task.labels if task.name == "multiclass" else ("negative", "positive")
    counts = [f"{n:.0f} {name}" for n, name in zip(images[0], names, strict=True)]
    return f"test set has one class only: {', '.join(reversed(counts))}"
