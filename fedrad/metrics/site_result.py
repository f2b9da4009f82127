"""What a site tells of a model on its images: values of metrics, and cells that others can add.

A `Disclosure` says what may be told. On one machine nobody is kept from anything; a hospital tells
nothing of fewer than `min_cell` patients, rounds, and draws with a key of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

from fedrad.config import Task
from fedrad.core.state import State
from fedrad.metrics.base import Array, Metric, Sample
from fedrad.metrics.cells import Cells, cells_of, from_array, log_odds, mixed
from fedrad.metrics.classification import decided
from fedrad.metrics.influence import groups_of, influences, multiplied

__all__ = [
    "SIMULATED",
    "Disclosure",
    "Normal",
    "SiteResult",
    "Told",
    "class_cells",
    "hospital_disclosure",
    "result_of",
]

_BINS = 1024


@dataclass(frozen=True)
class Disclosure:
    """What a site may tell of a model on its images.

    Args:
        min_cell: least patients behind any number.
        digits: to which values are rounded; None is not at all.
        most_cells: cells of one class at most, which also is the length of their arrays.
        noise: standard deviation of what is added to each patient's influence before it is drawn,
            in those of the influences; each model has noise of its own.
        training_labels: whether labels of training images may be counted to others.
    """

    min_cell: int = 1
    digits: int | None = None
    most_cells: int | None = None
    noise: float = 0.0
    training_labels: bool = True


SIMULATED = Disclosure()
"""Nothing is kept back: everything is on one machine."""

_DIGITS = 4
_MOST_CELLS = 256
_NOISE = 1.0


def hospital_disclosure(min_cell: int = 5) -> Disclosure:
    """Return what a hospital tells.

    Args:
        min_cell: least patients behind any number, by the hospital's policy.
    """
    return Disclosure(min_cell, _DIGITS, _MOST_CELLS, _NOISE)


Normal = Callable[[str, int], Array]
"""(purpose, count) -> standard normal numbers, the same for every model at a site."""


class Told(IntEnum):
    """Whether a part of a metric was told, and if not, why."""

    VALUE = 0
    UNDEFINED = 1
    """No image to say it of."""
    WITHHELD = 2
    """Too few patients of a class."""
    NO_THRESHOLD = 3
    """The validation images gave no threshold."""
    NO_DRAWS = 4
    """The value is told; without one of the patients it would be undefined, so it has no draws."""


@dataclass(frozen=True, eq=False)
class SiteResult:
    """What a site tells of one model on one split of its images.

    Attributes:
        parts: metric -> [1 + b, p]: observed, then draws (`influence`); nan where not told.
        told: metric -> [p] of `Told`.
        denominators: metric -> [p] as `Metric.denominators`; 0 where not told.
        cells: [outputs][negative, positive] of scores.
        tables: table -> [m] sums; nan where a cell is too small to be told.
        counts: int [outputs, 4]: images, then patients, without the finding and with it; -1 where
            not told.
        fullest: [outputs, 2] the bin of log-odds with the most images, and their share; 0 where
            it is below one half.
        decided: [tables, classes] share of the images that are given each class.
        images, patients: of the split.
        min_cell: of the site.
    """

    parts: Mapping[str, Array]
    told: Mapping[str, NDArray[np.int64]]
    denominators: Mapping[str, Array]
    cells: Sequence[tuple[Cells, Cells]]
    tables: Mapping[str, Array]
    counts: NDArray[np.int64]
    fullest: Array
    decided: Array
    images: int
    patients: int
    min_cell: int = 1

    def as_state(self, length: int | None = None) -> State:
        """Return arrays of finite numbers, as a message carries them.

        Args:
            length: of the arrays of cells; None is that of the longest.
        """
        most = max((len(one) for pair in self.cells for one in pair), default=0)
        size = most if length is None else length
        found: dict[str, np.ndarray] = {
            "cells": np.array([[one.as_array(size) for one in pair] for pair in self.cells]),
            "counts": self.counts,
            "fullest": self.fullest,
            "decided": self.decided,
            "size": np.array([self.images, self.patients, self.min_cell], np.int64),
        }
        for name, values in self.parts.items():
            found[f"parts/{name}"] = np.nan_to_num(values)
            found[f"told/{name}"] = self.told[name]
            found[f"denominators/{name}"] = self.denominators[name]
        for name, values in self.tables.items():
            found[f"table/{name}"] = np.nan_to_num(values, nan=-1.0)
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in found.items()}

    @classmethod
    def from_state(cls, state: State) -> "SiteResult":
        """Return what `as_state` made arrays of; what a message left out is empty."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
        told = _under("told/", arrays)
        parts = {}
        for name, values in _under("parts/", arrays).items():
            known = np.isin(told[name], (Told.VALUE, Told.NO_DRAWS))
            found = np.where(known, values, np.nan)
            found[1:, told[name] == Told.NO_DRAWS] = np.nan
            parts[name] = found
        tables = _under("table/", arrays)
        images, patients, min_cell = arrays["size"].tolist()
        return cls(
            parts=parts,
            told=told,
            denominators=_under("denominators/", arrays),
            cells=[(from_array(pair[0]), from_array(pair[1])) for pair in arrays.get("cells", ())],
            tables={n: np.where((a < 0).any(), np.nan, a) for n, a in tables.items()},
            counts=arrays.get("counts", np.full((0, 4), -1)),
            fullest=arrays.get("fullest", np.zeros((0, 2))),
            decided=arrays.get("decided", np.zeros((0, 2))),
            images=images,
            patients=patients,
            min_cell=min_cell,
        )


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def result_of(
    task: Task,
    metrics: Sequence[Metric],
    sample: Sample,
    patient: NDArray[np.generic],
    *,
    draws: int,
    normal: Normal,
    disclosure: Disclosure,
) -> SiteResult:
    """Return what a site tells of a model.

    Args:
        task: of the model.
        metrics: that are asked for.
        sample: the split's images, each once; scores are probabilities, thresholds log-odds.
        patient: [n] of each image.
        draws: b.
        normal: what they are made of; nobody else may be able to foretell it.
        disclosure: what may be told.
    """
    counts, patients = _counts(sample, patient), len(np.unique(patient))
    group = groups_of(patient)
    found = influences(metrics, sample, group) if draws else _observed(metrics, sample)
    parts, told, denominators = {}, {}, {}
    for metric in metrics:
        name, (value, psi) = metric.name, found[metric.name]
        told[name] = _told(task, metric, sample, found[name], counts, patients, disclosure)
        known = np.isin(told[name], (Told.VALUE, Told.NO_DRAWS))
        value = np.where(known, _rounded(value, disclosure), np.nan)
        # Draws of their own for each metric: only models are compared, one metric at a time.
        drawn = normal(name, draws * len(psi)).reshape(draws, len(psi))
        parts[name] = multiplied(value, _noised(name, psi, normal, disclosure), drawn)
        whole = np.zeros(len(value)) if metric.denominators is None else metric.denominators(sample)
        denominators[name] = np.where(known, whole, 0.0)
    return SiteResult(
        parts=parts,
        told=told,
        denominators=denominators,
        cells=class_cells(sample, patient, disclosure),
        tables=_tables(metrics, sample, patient, disclosure),
        counts=_told_counts(counts, disclosure),
        fullest=_fullest(sample, patient, disclosure),
        decided=_decided(task, sample, patients >= disclosure.min_cell),
        images=len(sample.y),
        patients=patients,
        min_cell=disclosure.min_cell,
    )


def class_cells(
    sample: Sample, patient: NDArray[np.generic], disclosure: Disclosure
) -> list[tuple[Cells, Cells]]:
    """Return the cells of each output's negative and positive images."""
    scores = log_odds(sample.scores)
    counts = _counts(sample, patient)
    found = []
    few = np.asarray(_small(counts[:, 2:], disclosure).any(axis=1))
    for output, small in enumerate(few):
        pair = []
        for value in (0.0, 1.0):
            # Of a small class the other's cells would tell the size: together they are all images.
            rows = np.flatnonzero((sample.truth[:, output] == value) & ~small)
            pair.append(
                cells_of(
                    scores[rows, output],
                    patient[rows],
                    min_cell=disclosure.min_cell,
                    most=disclosure.most_cells,
                )
            )
        found.append((pair[0], pair[1]))
    return found


def _noised(name: str, psi: Array, normal: Normal, disclosure: Disclosure) -> Array:
    """Return influences with noise of this model's own.

    Many models paired over the same patients would else tell, by their covariances, who differs
    between two of them. The noise of two models is independent, so covariances of models keep
    their mean; the variance of one is larger by a factor of 1 + noise ** 2.
    """
    if not disclosure.noise or not len(psi):
        return psi
    # The same influences get the same noise, so asking again averages nothing away.
    which = blake2b(np.ascontiguousarray(psi).tobytes(), digest_size=16).hexdigest()
    own = normal(f"{name} own {which}", psi.size).reshape(psi.shape)
    return np.asarray(psi + disclosure.noise * own * np.sqrt(np.mean(psi**2, axis=0)))


def _observed(metrics: Sequence[Metric], sample: Sample) -> dict[str, tuple[Array, Array]]:
    found = {metric.name: metric.parts(sample)[0] for metric in metrics}
    return {name: (value, np.zeros((0, len(value)))) for name, value in found.items()}


def _counts(sample: Sample, patient: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return [outputs, 4]: images and patients, without and with the finding."""
    rows = []
    for truth in sample.truth.T:
        of = [patient[truth == value] for value in (0.0, 1.0)]
        rows.append([*(len(one) for one in of), *(len(np.unique(one)) for one in of)])
    return np.array(rows, np.int64).reshape(-1, 4)


def _told_counts(counts: NDArray[np.int64], disclosure: Disclosure) -> NDArray[np.int64]:
    small = np.asarray(_small(counts[:, 2:], disclosure).any(axis=1))
    return np.where(small[:, None], -1, counts)


def _small(patients: NDArray[np.int64], disclosure: Disclosure) -> NDArray[np.bool_]:
    return np.asarray((patients > 0) & (patients < disclosure.min_cell))


def _told(
    task: Task,
    metric: Metric,
    sample: Sample,
    found: tuple[Array, Array],
    counts: NDArray[np.int64],
    patients: int,
    disclosure: Disclosure,
) -> NDArray[np.int64]:
    value, psi = found
    told = np.full(len(value), int(Told.VALUE), np.int64)
    told[np.isnan(psi).any(axis=0)] = Told.NO_DRAWS
    told[np.isnan(value)] = Told.UNDEFINED
    if metric.specificity is not None:
        edges = sample.thresholds.get(metric.name)
        unknown = np.isnan(edges) if edges is not None else np.ones(len(value), np.bool_)
        told[unknown] = Told.NO_THRESHOLD
    if patients < disclosure.min_cell:
        told[:] = Told.WITHHELD
    elif metric.classwise:
        small = np.asarray(_small(counts[:, 2:], disclosure).any(axis=1))
        if task.name == "multiclass" and not metric.ranks:
            small = np.full(len(value), bool(small.any()))
        # A finding of two classes can have a part for each.
        told[np.repeat(small, len(value) // len(small))] = Told.WITHHELD
    return told


def _rounded(value: Array, disclosure: Disclosure) -> Array:
    return value if disclosure.digits is None else value.round(disclosure.digits)


def _tables(
    metrics: Sequence[Metric],
    sample: Sample,
    patient: NDArray[np.generic],
    disclosure: Disclosure,
) -> dict[str, Array]:
    found = {}
    for table in {m.table.name: m.table for m in metrics if m.table}.values():
        sums = table.sums(sample)[0]
        cells = [patient[cell] for cell in table.members(sample).T if cell.any()]
        if disclosure.min_cell > 1 and not all(_enough(cell, disclosure) for cell in cells):
            sums = np.full_like(sums, np.nan)
        found[table.name] = sums
    return found


def _enough(patient: NDArray[np.generic], disclosure: Disclosure) -> bool:
    """Return whether images are of enough patients, none of whom has more than half of them."""
    return len(np.unique(patient)) >= disclosure.min_cell and mixed(patient)


def _fullest(sample: Sample, patient: NDArray[np.generic], disclosure: Disclosure) -> Array:
    """Return the bin of each output's scores with the most images, and their share."""
    found = np.zeros((sample.scores.shape[1], 2))
    if not len(sample.y):
        return found
    place = np.arcsinh(log_odds(sample.scores)) / np.arcsinh(36.0)
    bins = np.floor(_BINS / 2 * (1 + place)).clip(0, _BINS - 1).astype(np.intp)
    for output, column in enumerate(bins.T):
        most = int(np.bincount(column).argmax())
        inside = column == most
        share = float(inside.mean())
        if share >= 0.5 and (disclosure.min_cell <= 1 or _enough(patient[inside], disclosure)):
            found[output] = most, round(share, 4)
    return found


def _decided(task: Task, sample: Sample, told: bool) -> Array:
    classes = task.outputs if task.name == "multiclass" else 2
    found = decided(task, sample.scores)
    if not told or not len(found):
        return np.zeros((task.columns, classes))
    return np.asarray((found[..., None] == np.arange(classes)).mean(axis=0).round(4))
