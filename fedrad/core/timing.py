"""Where a process's time goes: seconds by purpose."""

import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["PURPOSES", "PhaseTimer"]

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

PURPOSES = ("training", "data", "aggregation", "messages", "evaluation")
"""Training is gradient steps alone. Messages are all that lies between a question and an answer
and is none of the others: loading and copying weights, site memory, Flower's records."""


class PhaseTimer:
    """A stop watch with one hand a purpose; what begins within another stops that meanwhile.

    >>> meter = PhaseTimer()
    >>> with meter.spent("training"):
    ...     batches = list(meter.each("data", range(3)))
    >>> [name for name, seconds in meter.seconds.items() if seconds]
    ['training', 'data']
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PURPOSES, 0.0)
        self.first_training: float | None = None
        """When the first step began, in seconds since 1970."""
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def spent(self, purpose: str) -> Iterator[None]:
        """Count what happens inside to a purpose."""
        self._begin(purpose)
        try:
            yield
        finally:
            self._end()

    def each(self, purpose: str, items: Iterable[T]) -> Iterator[T]:
        """Yield items, and count the time that making them takes to a purpose."""
        found = iter(items)
        while True:
            self._begin(purpose)
            try:
                item = next(found)
            except StopIteration:
                return
            finally:
                self._end()
            yield item

    def during(self, purpose: str, talk: Generator[T, S, R]) -> Generator[T, S, R]:
        """Run a generator, and count its own time, without that of whoever answers it."""
        answer: Any = None
        while True:
            with self.spent(purpose):
                try:
                    item = talk.send(answer)
                except StopIteration as end:
                    found: R = end.value
                    return found
            answer = yield item

    def take(self) -> dict[str, float]:
        """Return the seconds so far, and count from zero again."""
        if self._stack:
            self._settle()
        taken, self.seconds = self.seconds, dict.fromkeys(PURPOSES, 0.0)
        return taken

    def _begin(self, purpose: str) -> None:
        self._settle()
        self._stack.append(purpose)
        if self.first_training is None and purpose == "training":
            self.first_training = time.time()

    def _end(self) -> None:
        self._settle()
        self._stack.pop()

    def _settle(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now
