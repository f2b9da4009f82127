"""Images that look unlike the others of their site: blank, inverted, turned.

Each image is shrunk to 16 x 16 and compared, by correlation, with the site's median image. An
inverted one (a MONOCHROME1 film read as MONOCHROME2) correlates negatively; a turned or mirrored
one fits the median better once it is turned back. Sites whose images have no common layout are
left alone: there the comparison says nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np

__all__ = ["surprises"]

_SIDE = 16
_MOST = 2000
"""Images that the median is taken over."""
_LAYOUT = 0.5
"""Median correlation with the median image, below which a site has no common layout."""
_MARGIN = 0.15

_TURNS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "turned by 90 degrees": lambda x: np.rot90(x, 1, (1, 2)),
    "turned by 180 degrees": lambda x: np.rot90(x, 2, (1, 2)),
    "turned by 270 degrees": lambda x: np.rot90(x, 3, (1, 2)),
    "upside down": lambda x: x[:, ::-1],
}


def surprises(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is unusual -> the images (from 0) of which it is so.

    Args:
        x: uint8 [n, c, h, w].

    Mirrored left to right is not looked for: chest films are too symmetric to tell.

    >>> films = np.tile(np.arange(16, dtype=np.uint8)[:, None] * 16, (8, 1, 1, 16))
    >>> films[3] = 255 - films[3]
    >>> surprises(films)
    {'inverted': array([3])}
    """
    small = np.stack([_shrunk(image) for image in x]) if len(x) else np.zeros((0, _SIDE, _SIDE))
    flat = small.std((1, 2)) < 1.0
    found = {"blank": np.flatnonzero(flat)}
    seen = np.flatnonzero(~flat)
    if len(seen) >= 8:
        found |= {what: seen[rows] for what, rows in _unlike(small[seen]).items()}
    return {what: rows for what, rows in found.items() if len(rows)}


def _unlike(small: np.ndarray) -> dict[str, np.ndarray]:
    median = np.median(small[:: max(1, len(small) // _MOST)], axis=0)[None]
    if median.std() < 1.0:
        return {}
    upright = _correlation(small, median)
    if np.median(upright) < _LAYOUT:
        return {}
    found = {"inverted": upright < -0.3}
    others = {what: _correlation(small, turn(median)) for what, turn in _TURNS.items()}
    best = np.max(list(others.values()), axis=0)
    # A turn is believed where the image fits the turned layout as the others fit theirs.
    turned = (best > upright + _MARGIN) & (best > _LAYOUT) & ~found["inverted"]
    for what, fit in others.items():
        found[what] = turned & (fit == best)
    return {what: np.flatnonzero(rows) for what, rows in found.items()}


def _shrunk(image: np.ndarray) -> np.ndarray:
    """Return [16, 16], the mean grey level of each cell of an image [c, h, w]."""
    grey = image.mean(0, dtype=np.float64)
    rows = np.linspace(0, grey.shape[0], _SIDE + 1).astype(int)[:-1]
    columns = np.linspace(0, grey.shape[1], _SIDE + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(grey, rows, 0), columns, 1)
    counts = np.add.reduceat(np.add.reduceat(np.ones_like(grey), rows, 0), columns, 1)
    cells: np.ndarray = sums / counts
    return cells


def _correlation(images: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return [n], Pearson's correlation of each image with another."""
    one = images - images.mean((1, 2), keepdims=True)
    two = other - other.mean((1, 2), keepdims=True)
    norms = np.sqrt((one**2).sum((1, 2)) * (two**2).sum((1, 2)))
    found: np.ndarray = (one * two).sum((1, 2)) / norms
    return found
