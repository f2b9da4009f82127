"""Images that look unlike the others of their site, or sites unlike others: inverted, turned.

Each image is shrunk to 16 x 16 and compared, by correlation, with the site's median image. An
inverted one (a MONOCHROME1 film read as MONOCHROME2) correlates negatively; a turned or mirrored
one fits the median better once it is turned back. Sites whose images have no common layout are
left alone: there the comparison says nothing. Where about half of a site is inverted its median is
grey, and the direction in which its images differ most takes the median's place.
"""

from collections.abc import Callable, Mapping

import numpy as np

__all__ = ["between", "shrunk", "surprises", "typical", "unlike"]

_SIDE = 16
_MOST = 2000
"""Images that the median is taken over."""
_LAYOUT = 0.5
"""Median correlation with the median image, below which a site has no common layout."""
_MARGIN = 0.15
_CLEAR = 0.1
_INVERTED = -0.3
"""Correlation below which an image, or a site's typical one, is called inverted."""
_FEWEST = 8
"""Images of which a site has a typical one."""

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
    return unlike(shrunk(x))


def unlike(small: np.ndarray) -> dict[str, np.ndarray]:
    """Return what `surprises` does, of images that are shrunk already."""
    flat = small.std((1, 2)) < 1.0
    found = {"blank": np.flatnonzero(flat)}
    seen = np.flatnonzero(~flat)
    reference = typical(small)
    if reference is not None:
        found |= {what: seen[rows] for what, rows in _turned(small[seen], reference).items()}
    return {what: rows for what, rows in found.items() if len(rows)}


def typical(small: np.ndarray) -> np.ndarray | None:
    """Return [16, 16], the layout that most images of a site share, or None where they share none.

    Args:
        small: float64 [n, 16, 16], as `shrunk` makes them.
    """
    seen = small[small.std((1, 2)) >= 1.0]
    if len(seen) < _FEWEST:
        return None
    some = seen[:: max(1, len(seen) // _MOST)]
    median: np.ndarray = np.median(some, axis=0)
    if median.std() >= 1.0 and np.median(_correlation(some, median[None])) >= _LAYOUT:
        return median
    unit = some - some.mean((1, 2), keepdims=True)
    unit /= np.sqrt((unit**2).sum((1, 2), keepdims=True))
    leading = np.linalg.svd(unit.reshape(len(some), -1), full_matrices=False)[2][0]
    along = unit.reshape(len(some), -1) @ leading
    if np.median(np.abs(along)) < _LAYOUT:
        return None
    side: np.ndarray = leading.reshape(_SIDE, _SIDE) * (1 if (along > 0).mean() >= 0.5 else -1)
    return side


def between(one: np.ndarray, other: np.ndarray) -> str | None:
    """Return how one site's typical image lies to another's: inverted, turned ..., None for alike.

    >>> films = np.tile(np.arange(16.0)[:, None], (1, 16))
    >>> between(films, 255 - films), between(films, films)
    ('inverted', None)
    """
    found = [what for what, rows in _turned(one[None], other).items() if len(rows)]
    return found[0] if found else None


def _turned(small: np.ndarray, reference: np.ndarray) -> dict[str, np.ndarray]:
    """Return how images [n, 16, 16] lie to a reference [16, 16] -> those of which it is so."""
    upright = _correlation(small, reference[None])
    found = {"inverted": upright < _INVERTED}
    others = {what: _correlation(small, turn(reference[None])) for what, turn in _TURNS.items()}
    best = np.max(list(others.values()), axis=0)
    # A turn is believed where the image fits the turned layout as the others fit theirs.
    turned = (best > upright + _MARGIN) & (best > _LAYOUT) & ~found["inverted"]
    for what, fit in others.items():
        found[what] = turned & (fit == best)
    # A broad film among tall ones has its black margins elsewhere: it fits both turns alike.
    quarter, three = "turned by 90 degrees", "turned by 270 degrees"
    clear = np.abs(others[quarter] - others[three]) > _CLEAR
    found |= {quarter: found[quarter] & clear, three: found[three] & clear}
    return {what: np.flatnonzero(rows) for what, rows in found.items()}


def shrunk(x: np.ndarray) -> np.ndarray:
    """Return float64 [n, 16, 16], the mean grey level of each cell of images uint8 [n, c, h, w]."""
    return np.stack([_shrunk(image) for image in x]) if len(x) else np.zeros((0, _SIDE, _SIDE))


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
