"""Pairs of images that are likely one film: saved again, made smaller, framed, turned, inverted.

Two steps. First numbers that no turn, mirror image or inversion changes, so that one product of
matrices finds all pairs that could pass; then each such pair is turned in all eight ways and
compared. Only fine structure counts (what differs from its surroundings): two people's films agree
in the large. docs/leaks.md has the measurements from which the two limits come.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fedrad.data.checks.sketch import SIDE, VIEWS

__all__ = ["MOST_PAIRS", "Pairs", "look_alike", "turned"]

COARSE = 0.96
"""Least correlation of fine structure on 16 x 16 means."""
FINE = 0.90
"""Least correlation of fine structure on 32 x 32 means."""
MOST_PAIRS = 10_000
"""Pairs that are looked for; of more it is said that they are at least so many."""
_CLIP = 2.5
_NUMBERS = 48
_BLOCK = 1024
"""Rows at once: what is compared stays in a core's cache, which halves the time."""
_CHUNK = 8192
_SAMPLE = 4096

Wanted = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows that look alike, two by two.

    Attributes:
        one, other: int64 [m], places in the sketches, one < other.
        turn: int64 [m], which of the eight turns of `other` looks like `one`; see `turned`.
    """

    one: np.ndarray
    other: np.ndarray
    turn: np.ndarray

    def __len__(self) -> int:
        return len(self.one)


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """Return an image turned by 90 degrees `turn` % 4 times, from 4 on as a mirror image.

    Args:
        image: [..., h, w].
        turn: 0 to 7; 0 changes nothing.
    """
    rotated = np.rot90(image, turn % 4, axes=(-2, -1))
    return rotated if turn < 4 else rotated[..., ::-1]


def look_alike(sketches: np.ndarray, wanted: Wanted) -> Pairs:
    """Return the pairs of images that look alike.

    Args:
        sketches: int8 [n, 3, 32, 32]; see `sketch`.
        wanted: (int64 [m], int64 [m]) -> bool [m], which pairs are of interest.
    """
    found: list[Pairs] = []
    for view in range(VIEWS):
        small = sketches[:, view]
        if view and np.array_equal(small, sketches[:, 0]):
            continue
        found.extend(_of_one_view(small, np.flatnonzero(small.any(axis=(1, 2))), wanted))
    return _once(found)


def _of_one_view(small: np.ndarray, rows: np.ndarray, wanted: Wanted) -> Iterator[Pairs]:
    count = 0
    for one, other in _candidates(_unturned(small, rows)):
        one, other = rows[one], rows[other]
        keep = wanted(one, other)
        one, other = one[keep], other[keep]
        for start in range(0, len(one), _CHUNK):
            some = _compared(small, one[start : start + _CHUNK], other[start : start + _CHUNK])
            count += len(some)
            yield some
            if count >= MOST_PAIRS:
                return


def _once(found: list[Pairs]) -> Pairs:
    """Return each pair once, sorted."""
    if not found:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none)
    one, other, turn = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("one", "other", "turn")
    )
    _, first = np.unique(np.stack([one, other]), axis=1, return_index=True)
    first = first[:MOST_PAIRS]
    return Pairs(one[first], other[first], turn[first])


def _fine(small: np.ndarray) -> np.ndarray:
    """Return float32 [n, k, k] of norm 1: what differs from its surroundings, outliers cut.

    A single bright pixel, a letter or a hard edge must not decide alone. All of it commutes with
    turns and mirror images.
    """
    k = small.shape[1]
    framed = np.pad(small.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = sum(framed[:, i : i + k, j : j + k] for i in range(3) for j in range(3)) / 9
    fine = framed[:, 1:-1, 1:-1] - around
    limit = _CLIP * np.sqrt((fine**2).mean(axis=(1, 2), keepdims=True))
    fine = np.clip(fine, -limit, limit)
    norm = np.sqrt((fine**2).sum(axis=(1, 2), keepdims=True))
    unit: np.ndarray = fine / np.where(norm > 0, norm, 1)
    return unit


def _halved(small: np.ndarray) -> np.ndarray:
    n, k, _ = small.shape
    halved: np.ndarray = small.reshape(n, k // 2, 2, k // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    return halved


def _unturned(small: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return float32 [r, d], numbers that no turn, mirror image or inversion changes.

    A mirror image or inversion changes signs of the cosine transform, a turn by 90 degrees also
    swaps u and v: so |c(u, v)| + |c(v, u)| and ||c(u, v)| - |c(v, u)|| stay. Two images are never
    farther apart in these numbers than in their best turn, so no pair is lost; nor by keeping the
    directions in which the images differ most.
    """
    side = SIDE // 2
    cosine = _cosine(side)
    upper = np.triu_indices(side)
    halves = np.where(upper[0] == upper[1], 0.5, np.sqrt(0.5)).astype(np.float32)
    parts = []
    for start in range(0, len(rows), _CHUNK):
        c = np.abs(cosine @ _fine(_halved(small[rows[start : start + _CHUNK]])) @ cosine.T)
        one, other = c[:, upper[0], upper[1]], c[:, upper[1], upper[0]]
        parts.append(np.concatenate([halves * (one + other), halves * np.abs(one - other)], axis=1))
    numbers = np.concatenate(parts) if parts else np.empty((0, 2 * len(upper[0])), np.float32)
    sample = numbers[:: max(1, len(numbers) // _SAMPLE)]
    centre = sample.mean(axis=0) if len(sample) else 0.0
    _, directions = np.linalg.eigh((sample - centre).T @ (sample - centre))
    kept: np.ndarray = (numbers - centre) @ directions[:, ::-1][:, :_NUMBERS]
    return kept


def _cosine(size: int) -> np.ndarray:
    """Return the orthonormal cosine transform (DCT-II), float32 [size, size]."""
    u, i = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * u * (2 * i + 1) / (2 * size))
    matrix[0] = np.sqrt(1 / size)
    single: np.ndarray = matrix.astype(np.float32)
    return single


def _candidates(numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (one, other), one < other, all pairs that are near enough, block by block."""
    square = (numbers**2).sum(axis=1, keepdims=True) / 2
    ones = np.ones_like(square)
    left = np.concatenate([numbers, -square, -ones], axis=1)
    right = np.concatenate([numbers, ones, square], axis=1)
    # Of vectors of norm 1 with correlation r, the squared distance is 2 (1 - r).
    limit = -(1 - COARSE) - 1e-5
    for i in range(0, len(numbers), _BLOCK):
        for j in range(i, len(numbers), _BLOCK):
            near = left[i : i + _BLOCK] @ right[j : j + _BLOCK].T > limit
            if not near.any():
                continue
            # Of a flat array: numpy finds them there three times as fast.
            one, other = np.divmod(np.flatnonzero(near), near.shape[1])
            one, other = one + i, other + j
            yield one[one < other], other[one < other]


def _compared(small: np.ndarray, one: np.ndarray, other: np.ndarray) -> Pairs:
    """Return the pairs that pass both limits in one of the eight turns."""
    coarse = _fine(_halved(small[one]))
    rest = _fine(_halved(small[other]))
    by_turn = np.stack([np.abs(_product(coarse, turned(rest, turn))) for turn in range(8)])
    turn = by_turn.argmax(axis=0)
    passed = np.flatnonzero(by_turn.max(axis=0, initial=0) >= COARSE)
    one, other, turn = one[passed], other[passed], turn[passed]
    fine, rest = _fine(small[one]), _fine(small[other])
    alike = np.zeros(len(one), np.float32)
    for number in np.unique(turn):
        these = turn == number
        alike[these] = np.abs(_product(fine[these], turned(rest[these], int(number))))
    keep = alike >= FINE
    return Pairs(one[keep], other[keep], turn[keep])


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    product: np.ndarray = (one * other).sum(axis=(1, 2))
    return product
