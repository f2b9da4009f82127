"""Metrics as summed sufficient statistics: sites send sums, never scores.

A `Statistic` maps every image to a row of terms; its sums over images are all that a metric needs.
So the sums of two sites add up to those of the pooled images, and a pooled AUROC comes from added
histograms, not from averaged AUROCs. Bootstrap replicates are weighted sums of the same terms.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.errors import TrainingDiverged

__all__ = [
    "Array",
    "Cells",
    "Metric",
    "Reason",
    "Statistic",
    "counting",
    "macro",
    "one_vs_rest",
    "ratio",
    "sums",
]

Array = NDArray[np.float64]
Weights = NDArray[np.integer] | NDArray[np.floating]

_CHUNK = 4_000_000  # numbers in a temporary array, 32 MB


@dataclass(frozen=True)
class Cells:
    """The ones of a matrix of terms that is zero elsewhere.

    Attributes:
        rows: [e] the image of each one.
        columns: [e] its place among the m sums; a pair of row and column occurs once.
        size: m.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    size: int


@dataclass(frozen=True)
class Statistic:
    """A sum over images. Law: `sums(a) + sums(b) == sums(a ++ b)`.

    Attributes:
        name: unique for what is summed; statistics of one name are summed once.
        terms: (scores [n, outputs] probabilities, y [n, columns]) -> [n, m]; what was not read
            (nan) adds 0.
        cells: the ones of `terms`, for statistics that count; `sums` then skips the zeros.

    >>> images = Statistic("images", lambda scores, y: np.ones((len(y), 1)))
    >>> sums([images], np.zeros((3, 1)), np.zeros((3, 1)))["images"].tolist()
    [[3.0]]
    """

    name: str
    terms: Callable[[Array, Array], Array]
    cells: Callable[[Array, Array], Cells] | None = None


class Reason(Protocol):
    """Says why a metric is undefined, or None where it is defined."""

    def __call__(self, sums: Array, tuning: Array | None = None, /) -> str | None:
        """Return the reason for the sums [m] of one test set (and of one tuning set)."""


@dataclass(frozen=True)
class Metric:
    """A number computed from the sums of one statistic.

    Attributes:
        name: in YAML and results.
        title: for readers.
        statistic: what sites sum.
        higher_is_better: False for errors.
        compute: (sums [..., m], tuning sums [..., m] or None) -> [...], nan where undefined.
            The tuning sums are those of the validation images, for thresholds.
        undefined: the reason in words, for sums [m]; None if the metric is defined.
    """

    name: str
    title: str
    statistic: Statistic
    higher_is_better: bool
    compute: Callable[[Array, Array | None], Array]
    undefined: Reason


def counting(name: str, cells: Callable[[Array, Array], Cells]) -> Statistic:
    """Return the statistic that counts cells, with the dense terms that follow from them.

    >>> which = lambda scores, y: Cells(np.arange(len(y)), y[:, 0].astype(int), 2)
    >>> classes = counting("classes", which)
    >>> sums([classes], np.zeros((3, 1)), np.array([[0], [1], [1]]))["classes"].tolist()
    [[1.0, 2.0]]
    """

    def terms(scores: Array, y: Array) -> Array:
        found = cells(scores, y)
        dense = np.zeros((len(y), found.size))
        dense[found.rows, found.columns] = 1
        return dense

    return Statistic(name, terms, cells)


def sums(
    statistics: Iterable[Statistic], scores: Array, y: Array, weights: Weights | None = None
) -> dict[str, Array]:
    """Return the sums of each statistic over the images, and over each bootstrap replicate.

    Args:
        statistics: those of one name are summed once.
        scores: [n, outputs] probabilities.
        y: [n, columns], nan where not read.
        weights: [b, n] how often each image is in each replicate, or None.

    Returns:
        Statistic's name -> [1 + b, m]; row 0 is what was observed, the others the replicates.

    Raises:
        TrainingDiverged: a score is no finite number.

    Memory beside the result is bounded: images come in chunks.

    >>> images = Statistic("images", lambda scores, y: np.ones((len(y), 1)))
    >>> x = np.zeros((2, 1))
    >>> sums([images], x, x, np.array([[2, 0], [5, 1]]))["images"].tolist()
    [[2.0], [2.0], [6.0]]
    """
    scores, y = np.asarray(scores, np.float64), np.asarray(y, np.float64)
    replicates = np.zeros((0, len(y))) if weights is None else weights
    if replicates.shape[1:] != (len(y),) or len(scores) != len(y):
        raise ValueError(
            f"{len(scores)} scores, {len(y)} labels and weights {replicates.shape}: images differ"
        )
    if not np.isfinite(scores).all():
        raise TrainingDiverged("a score of the model is no finite number")
    unique = {statistic.name: statistic for statistic in statistics}
    return {name: _sums(one, scores, y, replicates) for name, one in unique.items()}


def one_vs_rest(task: Task, y: Array) -> Array:
    """Return labels as one column an output: 0, 1, or nan where not read.

    Args:
        task: multiclass turns the index of the class into one column a class.
        y: [n, columns].

    Returns:
        [n, outputs].

    >>> from fedrad.config import Task
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


def macro(values: Array, *, axes: int = 1) -> Array:
    """Return the mean over the findings or classes that are defined in what was observed.

    Args:
        values: [..., k], [...] being nothing or [1 + b]: observed, then replicates. A replicate
            that lacks an observed finding is nan: over fewer it is the mean of something else.
        axes: how many of the last axes belong to one sample, if there are several such means.

    Returns:
        [...]; nan if no finding is defined.

    >>> macro(np.array([[0.5, np.nan], [0.25, 1.0], [np.nan, 1.0]])).tolist()
    [0.5, 0.25, nan]
    """
    observed = ~np.isnan(values.reshape(-1, *values.shape[-axes:])[0])
    total = np.where(observed, values, 0).sum(axis=-1)
    return ratio(total, observed.sum(axis=-1, dtype=np.float64))


def _sums(statistic: Statistic, scores: Array, y: Array, weights: Weights) -> Array:
    add = _add_terms if statistic.cells is None else _add_cells
    # No image at all still has m sums, all zero.
    size = statistic.terms(scores[:0], y[:0]).shape[1]
    total = np.zeros((1 + len(weights), size))
    wide = 1 + len(weights) + (size if statistic.cells is None else 0)
    for part in _chunks(len(y), max(1, _CHUNK // wide)):
        add(total, statistic, scores[part], y[part], weights[:, part])
    return total


def _chunks(length: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, length, step))


def _add_terms(
    total: Array, statistic: Statistic, scores: Array, y: Array, weights: Weights
) -> None:
    terms = statistic.terms(scores, y)
    total[0] += terms.sum(axis=0)
    total[1:] += weights.astype(np.float64) @ terms


def _add_cells(
    total: Array, statistic: Statistic, scores: Array, y: Array, weights: Weights
) -> None:
    assert statistic.cells is not None
    cells = statistic.cells(scores, y)
    if not len(cells.rows):
        return
    order = np.argsort(cells.columns, kind="stable")
    columns, starts = np.unique(cells.columns[order], return_index=True)
    total[0] += np.bincount(cells.columns, minlength=cells.size)
    # Entries of one column stand together, so one reduceat adds them for all replicates.
    entries = weights[:, cells.rows[order]]
    total[1:, columns] += np.add.reduceat(entries, starts, axis=1, dtype=np.float64)
