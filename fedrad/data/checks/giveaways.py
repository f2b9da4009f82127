"""Features of a table that are the label in another guise."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from fedrad.data.checks.oddities import Oddity
from fedrad.errors import ConfigError

__all__ = ["check_features", "giveaways"]

_FEW = 10
"""Rows of each class, at least, before it says anything that a feature tells them apart."""
_VALUES = 20
_LEAST = 30
"""Labelled rows, at least, before it says anything that a feature ranks the labels."""
_RANKED = 0.98
"""AUROC of a single feature, either way round, above which it is told."""


def check_features(features: Sequence[str], others: Mapping[str, Sequence[str | None]]) -> None:
    """Refuse a feature whose column is the label, or says who or where a patient is.

    Args:
        features: columns that the network sees.
        others: what a column is -> the columns that are it.

    Raises:
        ConfigError: names the first such feature.

    >>> check_features(["age", "sick"], {"the label": ["sick"]})
    Traceback (most recent call last):
    fedrad.errors.ConfigError: features: 'sick' is the label; leave it out of the features
    """
    for name in features:
        for what, columns in others.items():
            if name in columns:
                raise ConfigError(f"features: '{name}' is {what}; leave it out of the features")


def giveaways(
    x: np.ndarray, y: np.ndarray, features: Sequence[str], labels: Sequence[str]
) -> tuple[Oddity, ...]:
    """Return which single features tell a label in every row, or in nearly every one.

    The label's copy, its negation, any recoding of it, and a number that a threshold turns into it;
    and a feature that alone ranks the two classes with an AUROC above 0.98, or below 0.02.

    Args:
        x: [n, f or more].
        y: [n, k]; nan is not read.
        features: names of the first f columns of x.
        labels: names of the k columns of y.
    """
    return tuple(
        Oddity(
            site="",
            rule="feature-tells-label",
            found=f"Feature '{feature}' alone {found}.",
            mend=f"leave '{feature}' out if it is made from the label or known only after it; "
            "if it is a finding of its own, say accept: [feature-tells-label].",
        )
        for k, label in enumerate(labels)
        for f, feature in enumerate(features)
        for found in _giveaway(x[:, f], y[:, k], label)
    )


def _giveaway(feature: np.ndarray, label: np.ndarray, name: str) -> Iterator[str]:
    """Yield what a feature alone does with a label, if it is too good to be a finding."""
    if _tells(feature, label):
        yield f"tells '{name}' in every row"
        return
    area = _area(feature, label)
    if area is not None and max(area, 1 - area) > _RANKED:
        rows = int((~np.isnan(label)).sum())
        # Rounded down, so that 0.9996 is not told as 1.
        told = np.floor(1000 * max(area, 1 - area)) / 1000
        yield f"ranks '{name}' with an AUROC of {told:.3f} over {rows:,} labelled rows"


def _area(feature: np.ndarray, label: np.ndarray) -> float | None:
    """Return the AUROC of a feature as a score; None with too few rows or without two classes."""
    read = ~np.isnan(label)
    feature, label = feature[read], label[read]
    classes, counts = np.unique(label, return_counts=True)
    if len(label) < _LEAST or len(classes) != 2 or counts.min() < _FEW:
        return None
    ill = label == classes[1]
    above = rankdata(feature)[ill].sum() - counts[1] * (counts[1] + 1) / 2
    return float(above / (counts[0] * counts[1]))


def _tells(feature: np.ndarray, label: np.ndarray) -> bool:
    """Return whether every label follows from the feature, by its value or by a threshold."""
    read = ~np.isnan(label)
    feature, label = feature[read], label[read]
    classes, counts = np.unique(label, return_counts=True)
    if len(classes) < 2 or counts.min() < _FEW:
        return False
    values, place = np.unique(feature, return_inverse=True)
    low, high = np.full(len(values), np.inf), np.full(len(values), -np.inf)
    np.minimum.at(low, place, label)
    np.maximum.at(high, place, label)
    if (low < high).any():
        return False
    # Of many values each row has its own, and any label follows; unless it changes but once.
    return len(values) <= min(_VALUES, len(feature) // _FEW) or bool(
        (np.diff(low) != 0).sum() == len(classes) - 1
    )
