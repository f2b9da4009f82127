"""What a site tells of a model, held against how many images and patients it has.

Cells and tables of several sites are added up: a site whose cells count a million images would have
the pooled values to itself. Looked at are the arrays that are there, by their names.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from fedrad.core.state import State
from fedrad.metrics.scales import SCALES

__all__ = ["implausible_result"]

_FURTHEST = 72.0
"""Log-odds at which an end of a cell is told that is not told, either way."""
_ROUNDING = 1e-3
_TOLD_KINDS = 4
"""The largest number that says whether a part of a metric is told."""


def implausible_result(result: State, images: int, patients: int, columns: int = 1) -> str | None:
    """Return which array of a result cannot be true, or None.

    Args:
        result: of one model on one split; finite numbers.
        images: of the split, as the site told at the roll call.
        patients: of them.
        columns: labels of each image, `Task.columns`.

    >>> import torch
    >>> implausible_result({"size": torch.tensor([30, 24, 5])}, images=24, patients=24)
    'size tells of other images than the 24 it told'
    """
    size = result.get("size")
    if size is not None and not _is_size(size, images, patients):
        return f"size tells of other images than the {images} it told"
    for name, array in result.items():
        kind, _, of = name.partition("/")
        check = _CHECKS.get(kind)
        possible = check is None or not array.numel() or check(array, images)
        if not possible or _beyond(kind, of, array, images * columns):
            return f"{name} cannot be true of {images} images"
    return None


def _beyond(kind: str, of: str, array: Tensor, labels: int) -> bool:
    """Return whether a part counts more labels than there are, or no metric can have the value."""
    if not array.numel():
        return False
    if kind == "denominators":
        return bool((array > labels).any())
    if kind == "table":
        # Of calibration, images, their probabilities and the positive ones of each bin.
        times = 3 if of.startswith("calibration") else 1
        return float(array.sum()) > times * labels + _ROUNDING
    if kind == "parts" and of in SCALES:
        observed, scale = array[0], SCALES[of]
        low, high = scale.low - _ROUNDING, scale.high + _ROUNDING
        return bool(((observed < low) | (observed > high)).any())
    return False


def _is_size(size: Tensor, images: int, patients: int) -> bool:
    told = size.tolist()
    return len(told) == 3 and 0 <= told[0] <= images and 0 <= told[1] <= patients and told[2] > 0


def _cells(cells: Tensor, images: int) -> bool:
    """Return whether [outputs, 2, c, 4] are cells: lower and upper end, mean, images."""
    if cells.dim() != 4 or cells.shape[-1] != 4:
        return False
    lower, upper, mean, count = cells.unbind(-1)
    there = count > 0
    whole = bool(((count >= 0) & (count == count.round())).all())
    few = bool((count.sum((1, 2)) <= images).all())
    ends = bool((lower.abs() <= _FURTHEST).all() and (upper.abs() <= _FURTHEST).all())
    inside = bool((~there | ((lower <= mean) & (mean <= upper))).all())
    return whole and few and ends and inside


def _counts(counts: Tensor, images: int) -> bool:
    """Return whether [outputs, 4] count images, then patients; -1 is not told."""
    if counts.dim() != 2 or counts.shape[1] != 4:
        return False
    return bool(((counts >= -1) & (counts <= images)).all()) and bool(
        (counts[:, :2].sum(1) <= images).all()
    )


def _shares(shares: Tensor, images: int) -> bool:
    return bool(((shares >= 0) & (shares <= 1)).all())


def _fullest(fullest: Tensor, images: int) -> bool:
    """Return whether [outputs, 2] are a bin and the share of images in it."""
    if fullest.dim() != 2 or fullest.shape[1] != 2:
        return False
    return _shares(fullest[:, 1], images) and bool((fullest[:, 0].abs() <= 1e6).all())


def _table(table: Tensor, images: int) -> bool:
    return bool((table >= -1).all())


def _told(told: Tensor, images: int) -> bool:
    return bool(((told >= 0) & (told <= _TOLD_KINDS)).all())


def _not_negative(values: Tensor, images: int) -> bool:
    return bool((values >= 0).all())


_CHECKS: Mapping[str, Callable[[Tensor, int], bool]] = {
    "cells": _cells,
    "counts": _counts,
    "decided": _shares,
    "denominators": _not_negative,
    "fullest": _fullest,
    "table": _table,
    "told": _told,
}
