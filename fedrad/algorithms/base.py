"""What a federated algorithm is: both halves, as functions of plain data.

The two verbs of `Sites` are the privacy boundary. Behind `mean` the server sees only a weighted
mean, however it comes about; an algorithm that says `gather` says that the server reads every
single reply.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Protocol

from fedrad.core.state import Bundle, State
from fedrad.training.local import Fitted, LocalTask

__all__ = [
    "PERSONAL",
    "Algorithm",
    "Handler",
    "Numbers",
    "Reply",
    "Request",
    "Sites",
    "fitted_numbers",
]

Numbers = dict[str, float]

PERSONAL = "personal"
"""The name, in a site's memory, of the model that the site keeps for itself."""


@dataclass(frozen=True)
class Reply:
    """What a site answers: arrays, and numbers that are sums and counts only."""

    arrays: Bundle = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """All that a site's half of an algorithm may look at.

    Args:
        site: the site's name.
        round: from 1.
        arrays: what the server sent; not to be changed.
        memory: what the site kept when it last answered; not to be changed.
        local: the site's data, model and budget.
    """

    site: str
    round: int
    arrays: Bundle
    memory: Bundle
    local: LocalTask


Handler = Callable[[Request], tuple[Reply, Bundle]]
"""A site's half: the reply, and the memory to keep at the site."""


class Sites(Protocol):
    """The federation of one round, as an algorithm's server half sees it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sites that take part in this round, sorted."""

    @property
    def rounds(self) -> int:
        """The rounds of the whole run."""

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        """Return the weighted mean of the replies' arrays and the sums of their numbers."""

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        """Yield each site's reply, sorted by site."""


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm.

    Args:
        init: initial model -> the server's state before round 1.
        round: (state, number, sites) -> the next state. No state is kept elsewhere.
        handlers: action -> the site's half.
        shared: the state's "model" is a result: one model for all.
        personal: each site's memory holds a model of its own under `PERSONAL`.
        pooled: trains on all sites' data in one place; only a simulation can.
    """

    init: Callable[[State], Bundle]
    round: Callable[[Bundle, int, Sites], Bundle]
    handlers: Mapping[str, Handler]
    shared: bool = True
    personal: bool = False
    pooled: bool = False


def fitted_numbers(fitted: Fitted) -> Numbers:
    """Return what a site tells of its training: counts, and the loss summed over steps.

    A private site tells no loss.

    >>> fitted_numbers(Fitted(state={}, examples=10, steps=4, loss=0.5))
    {'num-examples': 10.0, 'steps': 4.0, 'loss-sum': 2.0}
    """
    counts = {"num-examples": float(fitted.examples), "steps": float(fitted.steps)}
    return counts if isnan(fitted.loss) else counts | {"loss-sum": fitted.loss * fitted.steps}
