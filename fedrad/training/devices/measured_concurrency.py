"""How many sites a device trains at once, and in which of several ways."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

__all__ = ["at_once", "fastest", "sites_that_fit"]

T = TypeVar("T")
R = TypeVar("R")


def sites_that_fit(free: int, peak_of_one: int, sites: int, *, share: float = 0.8) -> int:
    """Return how many sites fit a device's memory at once, by the measured peak of one; 1 at least.

    Args:
        free: bytes of the device that nobody uses.
        peak_of_one: bytes that training one site took at its highest.
        sites: that there are.
        share: of the free memory to plan with; sites differ.

    >>> sites_that_fit(free=10_000, peak_of_one=1_000, sites=100)
    8
    """
    return max(1, min(sites, int(free * share) // max(1, peak_of_one)))


def at_once(
    train: Callable[[Sequence[T]], list[R]], sites: Sequence[T], most: int
) -> tuple[list[R], int]:
    """Train sites in groups, with half as many at once whenever the device's memory is full.

    Args:
        train: trains a group, and may be called again with a part of one that it could not.
        sites: all of them, in order.
        most: sites in a group.

    Returns:
        What came of the sites in their order, and how many went at once in the end.

    Raises:
        torch.OutOfMemoryError: one site alone does not fit.
    """
    found: list[R] = []
    while len(found) < len(sites):
        try:
            found += train(sites[len(found) : len(found) + most])
        except torch.OutOfMemoryError:
            if most == 1:
                raise
            most //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return found, most


def fastest(ways: Mapping[str, Callable[[], object]], *, turns: int = 2) -> tuple[str, str]:
    """Try ways to do the same, and return the fastest one's name and a sentence of why.

    The first turn of each, in which libraries warm up, is not counted. A way that does not fit the
    device's memory is left out.

    Raises:
        torch.OutOfMemoryError: no way fits.
    """
    seconds: dict[str, float] = {}
    for name, way in ways.items():
        try:
            seconds[name] = min([_seconds(way) for _ in range(turns + 1)][1:])
        except torch.OutOfMemoryError:
            continue
    if not seconds:
        raise torch.OutOfMemoryError("no way of training fits the device's memory")
    best = min(seconds, key=lambda name: seconds[name])
    told = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    return best, f"{best}: the fastest of {told}"


def _seconds(way: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
