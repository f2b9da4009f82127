"""What a metric is: numbers of a sample of scored images, each image counted by a weight.

The same function gives what was observed (every weight 1), what it would be without one patient
(that patient's weights 0; `influence`), and what several sites have together (`pooling`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.errors import TrainingDivergedError

__all__ = [
    "Array",
    "Metric",
    "Sample",
    "Table",
    "macro",
    "one_vs_rest",
    "ratio",
    "sample",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Scored images, and how often each counts.

    Attributes:
        scores: [n, outputs] probabilities, or anything in their order for metrics of ranks.
        y: [n, columns], nan where not read.
        truth: [n, outputs] 0 or 1, nan where not read; of a multiclass task one class each.
        weights: [r, n] how often each image counts; row 0 is what was observed.
        thresholds: metric -> [outputs] the log-odds from which an image is called positive.
    """

    scores: Array
    y: Array
    truth: Array
    weights: Array
    thresholds: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Counts that sites can add, from which a metric of all their images follows.

    Attributes:
        name: unique for what is counted.
        sums: sample -> [r, m].
        members: sample -> bool [n, cells], the images of each cell; a cell is told to others only
            where it holds enough patients.
        parts: sums [r, m] -> [r, p], as `Metric.parts`.
        counts: whether the sums are numbers of images, one a cell.
    """

    name: str
    sums: Callable[[Sample], Array]
    members: Callable[[Sample], NDArray[np.bool_]]
    parts: Callable[[Array], Array]
    counts: bool


@dataclass(frozen=True)
class Metric:
    """A number of a sample, the mean of its parts.

    Attributes:
        name: in YAML and results.
        title: for readers.
        higher_is_better: False for errors.
        parts: sample -> [r, p], a number for each finding or class; nan where undefined.
        combine: [r, p] -> [r], the metric; a part that is undefined in row 0 is left out, one that
            is so in another row makes that row nan.
        classwise: whether a part is about the images of one class, or of two set against each
            other, and not about all of a finding.
        denominators: sample -> [p], the images of which each part is the mean; the part of several
            sites is then the mean of theirs, weighted by these. None where it is not.
        table: what gives the part of several sites instead; None of both for metrics of ranks,
            which the sites' cells give (`cells`).
        specificity: on the validation images, at which the metric's threshold lies; None for most.
    """

    name: str
    title: str
    higher_is_better: bool
    parts: Callable[[Sample], Array]
    combine: Callable[[Array], Array]
    classwise: bool
    denominators: Callable[[Sample], Array] | None = None
    table: Table | None = None
    specificity: float | None = None

    def value(self, sample: Sample) -> Array:
        """Return the metric [r] of a sample, nan where it is undefined."""
        return self.combine(self.parts(sample))

    @property
    def ranks(self) -> bool:
        """Return whether the metric is one of the order of scores."""
        return self.denominators is None and self.table is None


def sample(
    task: Task,
    scores: Array,
    y: Array,
    *,
    weights: Array | None = None,
    thresholds: Mapping[str, Array] | None = None,
) -> Sample:
    """Return a sample of scored images.

    Args:
        task: of the model.
        scores: [n, outputs] probabilities.
        y: [n, columns], nan where not read; the index of the class for multiclass.
        weights: [r, n]; each image once, if not given.
        thresholds: metric -> [outputs].

    Raises:
        TrainingDivergedError: a score is no finite number.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
    >>> sample(task, np.array([[0.5]]), np.array([[1.0]])).weights.tolist()
    [[1.0]]
    """
    scores, y = np.asarray(scores, np.float64), np.asarray(y, np.float64)
    if len(scores) != len(y) or (weights is not None and weights.shape[1:] != (len(y),)):
        found = None if weights is None else weights.shape
        raise ValueError(f"{len(scores)} scores, {len(y)} labels and weights {found} do not fit")
    if not np.isfinite(scores).all():
        raise TrainingDivergedError("a score of the model is no finite number")
    times = np.ones((1, len(y))) if weights is None else np.asarray(weights, np.float64)
    return Sample(scores, y, one_vs_rest(task, y), times, dict(thresholds or {}))


def one_vs_rest(task: Task, y: Array) -> Array:
    """Return labels as one column an output: 0, 1, or nan where not read.

    Args:
        task: multiclass turns the index of the class into one column a class.
        y: [n, columns].

    Returns:
        [n, outputs].

    >>> task = Task(name="multiclass", labels=("a", "b", "c"), input=(1, 8, 8))
    >>> one_vs_rest(task, np.array([[2.0], [np.nan]])).tolist()
    [[0.0, 0.0, 1.0], [nan, nan, nan]]
    """
    if task.name != "multiclass":
        return y
    return np.where(np.isnan(y), np.nan, (y == np.arange(task.outputs)).astype(np.float64))


def ratio(part: Array, whole: Array) -> Array:
    """Return part / whole, nan where whole is zero.

    >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
    [0.5, nan]
    """
    return np.asarray(np.divide(part, np.where(whole == 0, np.nan, whole)))


def macro(values: Array) -> Array:
    """Return the mean over the parts that are defined in what was observed.

    Args:
        values: [r, p]; row 0 is what was observed. A row that lacks an observed part is nan: over
            fewer it is the mean of something else.

    Returns:
        [r]; nan if no part is defined.

    >>> macro(np.array([[0.5, np.nan], [0.25, 1.0], [np.nan, 1.0]])).tolist()
    [0.5, 0.25, nan]
    """
    observed = ~np.isnan(values[0])
    total = np.where(observed, values, 0).sum(axis=-1)
    return ratio(total, np.full(len(values), observed.sum(), np.float64))
