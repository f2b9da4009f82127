"""The rows of several sources as those of one: what the search for leaks reads."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from fedrad.data.base import Records, hashes, row_numbers
from fedrad.data.checks.sketch import SIDE, VIEWS

__all__ = ["image_of", "joined_rows"]


def joined_rows(sources: Sequence[Records]) -> Records:
    """Return the columns that the leak gate reads, of all sources, without their images."""
    first = sources[0]
    if len(sources) == 1:
        return first
    rows = sum(len(r.y) for r in sources)
    return replace(
        first,
        # A table's rows are small, and looked at themselves.
        x=np.concatenate([r.x for r in sources])
        if first.x.ndim == 2
        else np.empty((rows, 0), np.uint8),
        y=np.concatenate([r.y for r in sources]),
        patient=np.concatenate([r.patient for r in sources]),
        site=_joined([r.site for r in sources]),
        split=_joined([r.split for r in sources]),
        pixels=None
        if all(r.pixels is None for r in sources)
        else np.concatenate([_pixels(r, number) for number, r in enumerate(sources)]),
        attributes={},
        row=np.concatenate([row_numbers(r) for r in sources]),
        alike=np.concatenate([r.patient if r.alike is None else r.alike for r in sources]),
        sketches=None
        if all(r.sketches is None for r in sources)
        else np.concatenate([_sketches(r) for r in sources]),
    )


def _pixels(records: Records, source: int) -> np.ndarray:
    """Return the images' hashes; a row without an image is like no other."""
    if records.pixels is not None:
        return records.pixels
    return hashes(f"no image {source} {row}" for row in range(len(records)))


def _sketches(records: Records) -> np.ndarray:
    """Return the images' sketches; a row without one is compared with none."""
    if records.sketches is not None:
        return records.sketches
    return np.zeros((len(records), VIEWS, SIDE, SIDE), np.int8)


def image_of(sources: Sequence[Records]) -> Callable[[int], np.ndarray]:
    """Return what finds the image of a row of `joined_rows`."""
    ends = np.cumsum([len(records) for records in sources])

    def found_at(row: int) -> np.ndarray:
        source = int(np.searchsorted(ends, row, side="right"))
        found: np.ndarray = sources[source].x[row - (ends[source - 1] if source else 0)]
        return found

    return found_at


def _joined(parts: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.concatenate([part for part in parts if part is not None])
