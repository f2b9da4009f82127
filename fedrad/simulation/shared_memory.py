"""Bundles in memory that forked processes share: written once, read in place, never pickled."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch

from fedrad.core.state import Bundle

__all__ = ["Layout", "SharedArea"]

_ALIGN = 64  # bytes, a cache line


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a bundle lie in a shared area; small, and safe to send through a pipe.

    Args:
        arrays: (state, name, dtype, shape, offset in bytes) of each array.
        size: bytes in use.
    """

    arrays: tuple[tuple[str, str, str, tuple[int, ...], int], ...]
    size: int


class SharedArea:
    """An anonymous file in memory that a process and those forked from it map.

    One side writes, the other reads; that both do not happen at once is the callers' affair.

    >>> area = SharedArea("doctest")
    >>> layout = area.write({"model": {"w": torch.arange(3.0)}})
    >>> area.read(layout)["model"]["w"].tolist()
    [0.0, 1.0, 2.0]
    """

    def __init__(self, name: str) -> None:
        self._file = os.memfd_create(f"fedrad-{name}")
        self._map: mmap.mmap | None = None

    def write(self, bundle: Bundle) -> Layout:
        """Write a bundle over what was there, and return where its arrays lie."""
        layout = _layout(bundle)
        self._grow(layout.size)
        for (name, key, *_), target in zip(layout.arrays, self._arrays(layout), strict=True):
            target.copy_(bundle[name][key])
        return layout

    def read(self, layout: Layout) -> Bundle:
        """Return views of the arrays; they change with the next write."""
        bundle: Bundle = {}
        for (name, key, *_), value in zip(layout.arrays, self._arrays(layout), strict=True):
            bundle.setdefault(name, {})[key] = value
        return bundle

    def close(self) -> None:
        """Let go of the file; views that are still held stay valid."""
        os.close(self._file)

    def _grow(self, size: int) -> None:
        if os.fstat(self._file).st_size < size:
            os.ftruncate(self._file, size)

    def _arrays(self, layout: Layout) -> Iterator[torch.Tensor]:
        if not layout.arrays:
            return
        # The other side may have made the file longer since it was mapped here.
        if self._map is None or len(self._map) < layout.size:
            self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        for _, _, dtype, shape, offset in layout.arrays:
            kind = getattr(torch, dtype)
            count = prod(shape)
            if count:
                flat = torch.frombuffer(self._map, dtype=kind, count=count, offset=offset)
                yield flat.view(shape)
            else:
                yield torch.empty(shape, dtype=kind)


def _layout(bundle: Bundle) -> Layout:
    arrays, at = [], 0
    for name, state in bundle.items():
        for key, value in state.items():
            dtype = str(value.dtype).removeprefix("torch.")
            arrays.append((name, key, dtype, tuple(value.shape), at))
            at += -(-value.numel() * value.element_size() // _ALIGN) * _ALIGN
    return Layout(tuple(arrays), at)
