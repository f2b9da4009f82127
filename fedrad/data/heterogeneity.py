"""How unlike the sites are: label shares, distances between them, and their sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedrad.config import Task
from fedrad.data.base import SiteData

__all__ = ["Heterogeneity", "heterogeneity"]


_COMPARED = 1_000
"""Sites that are compared pair by pair, at most."""
_TOLD = 100
"""Sites whose distances are told pair by pair, at most."""


@dataclass(frozen=True, eq=False)
class Heterogeneity:
    """What sets the sites' training data apart.

    Attributes:
        sites: names, in the order of the axes of `jensen_shannon`.
        label_share: site -> label -> share of the read training images that have it (multiclass:
            the share of that class); nan where none was read.
        jensen_shannon: [s, s] Jensen-Shannon distance of the label distributions, base 2 (0 alike,
            1 disjoint); multilabel: the root mean square over findings; nan where none was read.
            None with more than 1,000 sites, whose pairs are too many.
        size_gini: Gini coefficient of training images per site, from 0 (equal) below 1.
        effective_sites: 1 / (sum of squared shares of images), from 1 to the number of sites.
    """

    sites: tuple[str, ...]
    label_share: Mapping[str, Mapping[str, float]]
    jensen_shannon: np.ndarray | None
    size_gini: float
    effective_sites: float

    @property
    def farthest(self) -> float:
        """Return the largest of the distances, nan where none is known."""
        if self.jensen_shannon is None or np.isnan(self.jensen_shannon).all():
            return float("nan")
        return float(np.nanmax(self.jensen_shannon))

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers, with None for nan.

        Of more than 100 sites only the largest distance is told.
        """
        square = self.jensen_shannon if len(self.sites) <= _TOLD else None
        return {
            "sites": list(self.sites),
            "label_share": {
                site: {label: _plain(share) for label, share in shares.items()}
                for site, shares in self.label_share.items()
            },
            "jensen_shannon": None
            if square is None
            else [[_plain(value) for value in row] for row in square],
            "farthest": _plain(self.farthest),
            "size_gini": _plain(self.size_gini),
            "effective_sites": _plain(self.effective_sites),
        }


def heterogeneity(sites: Mapping[str, SiteData], task: Task) -> Heterogeneity:
    """Return what sets the sites' training data apart.

    >>> def site(name, y):
    ...     rows = {"train": np.arange(len(y)), "val": np.arange(0), "test": np.arange(0)}
    ...     return SiteData(name, np.zeros((len(y), 1)), np.array(y)[:, None], np.arange(len(y)),
    ...         rows)
    >>> task = Task(name="binary", labels=("lesion",), input=(1,))
    >>> found = heterogeneity({"a": site("a", [0.0, 0.0]), "b": site("b", [1.0, 1.0])}, task)
    >>> found.jensen_shannon.tolist(), found.effective_sites
    ([[0.0, 1.0], [1.0, 0.0]], 2.0)
    """
    names = tuple(sites)
    labels = [site.y[site.rows["train"]] for site in sites.values()]
    shares = np.stack([_shares(y, task) for y in labels])
    sizes = np.array([len(y) for y in labels], dtype=float)
    if task.name == "multiclass":
        distributions = shares[:, None, :]
    else:
        distributions = np.stack([1 - shares, shares], axis=-1)
    return Heterogeneity(
        sites=names,
        label_share={
            name: dict(zip(task.labels, map(float, row), strict=True))
            for name, row in zip(names, shares, strict=True)
        },
        jensen_shannon=_distances(distributions) if len(names) <= _COMPARED else None,
        size_gini=_gini(sizes),
        effective_sites=_effective(sizes),
    )


def _shares(y: np.ndarray, task: Task) -> np.ndarray:
    """Return [k], the share of each label among the read rows; nan where none is read."""
    if task.name == "multiclass":
        classes = np.arange(len(task.labels))
        hits, read = (y == classes).sum(0), (~np.isnan(y)).sum()
    else:
        hits, read = np.nansum(y, axis=0), (~np.isnan(y)).sum(0)
    with np.errstate(invalid="ignore"):
        shares: np.ndarray = hits / read
    return shares


def _distances(p: np.ndarray) -> np.ndarray:
    """Return [s, s] from distributions [s, findings, values]: sqrt of the mean divergence."""
    one, other = p[:, None], p[None, :]
    middle = (one + other) / 2
    divergence = (_relative(one, middle) + _relative(other, middle)) / 2
    # max: rounding can leave -1e-17 for equal distributions. nan stays nan.
    distances: np.ndarray = np.sqrt(np.maximum(divergence.mean(-1), 0))
    return distances


def _relative(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence in bits over the last axis; 0 log 0 is 0."""
    p, q = np.broadcast_arrays(p, q)
    terms = np.where(np.isnan(p) | np.isnan(q), np.nan, 0.0)
    held = p > 0
    terms[held] = p[held] * np.log2(p[held] / q[held])
    total: np.ndarray = terms.sum(-1)
    return total


def _gini(sizes: np.ndarray) -> float:
    if not sizes.sum():
        return float("nan")
    # The sum of all gaps |a - b|, without a table of pairs.
    gaps = 2 * ((2 * np.arange(len(sizes)) + 1 - len(sizes)) * np.sort(sizes)).sum()
    return float(gaps / (2 * len(sizes) * sizes.sum()))


def _effective(sizes: np.ndarray) -> float:
    if not sizes.sum():
        return float("nan")
    return float(1 / ((sizes / sizes.sum()) ** 2).sum())


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
