"""What a federated algorithm is: both halves, as functions of plain data.

The verbs of `Sites` are the privacy boundary. Behind `mean` the server sees only a weighted mean,
however it comes about; an algorithm that says `gather` says that the server reads every single
reply; one that says `stream` exchanges many messages with each site within a round and reads them.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import isnan
from typing import Protocol

from fedrad.algorithms.split.cut_plan import CutPlan
from fedrad.core.state import Bundle, State
from fedrad.training.local import Fitted, LocalTask
from fedrad.training.server import ServerTask

__all__ = [
    "CHANGE",
    "PERSONAL",
    "Algorithm",
    "Frame",
    "Handler",
    "Numbers",
    "Reply",
    "Request",
    "Sites",
    "Stream",
    "StreamHandler",
    "Streams",
    "fitted_numbers",
    "own_model",
]

Numbers = dict[str, float]

CHANGE = "change"
"""The name, in a reply, of what training changed in the model that was sent: after - before."""

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


@dataclass(frozen=True)
class Frame:
    """One message of a stream.

    Args:
        kind: what it is, such as "forward"; the algorithm's own word.
        arrays: by name; any dtype and shape, moved as they are. A lower precision is in the arrays
            already (`core.wire`), so that every runtime moves the same bits.
        numbers: plain values.
    """

    kind: str
    arrays: State = field(default_factory=dict)
    numbers: Numbers = field(default_factory=dict)


StreamHandler = Callable[[Request], Generator[Frame, Frame, tuple[Reply, Bundle]]]
"""A site's half of a stream: each `yield` sends a frame and receives the next one.

The site speaks first, both sides in turn, one frame at a time. What it returns is the reply that
ends the stream, and the memory to keep at the site.
"""


class Stream(Protocol):
    """A stream to one site, as the server sees it."""

    def receive(self) -> Frame:
        """Wait for the site's next frame.

        Raises:
            SiteFailedError: the site failed, was silent too long, or has ended the stream.
        """

    def send(self, frame: Frame) -> None:
        """Send the frame that the site waits for."""

    def result(self) -> Reply:
        """Wait for the end of the stream, and return the site's reply.

        Raises:
            SiteFailedError: the site failed, was silent too long, or sent another frame.
        """


class Streams(Protocol):
    """The open streams of a round, by site."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sites whose streams were opened and have not failed, sorted."""

    def __getitem__(self, site: str) -> Stream:
        """Return the stream to a site."""

    def arriving(self) -> Iterator[tuple[str, Frame]]:
        """Yield each frame as it comes, until every site has ended its stream.

        A site that fails is left out from then on, while the quorum is met without it.

        Whoever takes a frame sends the answer before it asks for the next. The order of sites is
        the runtime's affair (`local`: one site after the other), so nothing may depend on it.
        """


class Sites(Protocol):
    """The federation of one round, as an algorithm's server half sees it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sites that take part in this round, sorted."""

    @property
    def rounds(self) -> int:
        """The rounds of the whole run."""

    @property
    def server(self) -> ServerTask:
        """What the server itself computes with, in split learning."""

    def note(self, key: str, value: object) -> None:
        """Write something that the server drew or found into the round's record."""

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        """Return the weighted mean of the replies' arrays and the sums of their numbers."""

    def gather(self, action: str, send: Bundle) -> Iterator[tuple[str, Reply]]:
        """Yield each site's reply, sorted by site."""

    def stream(self, action: str, send: Mapping[str, Bundle]) -> AbstractContextManager[Streams]:
        """Open a stream to each site named, with what is sent to it at the start.

        All streams have ended when the block ends without an error; after one, they are broken off.
        """

    def average(
        self, replies: Iterable[tuple[str, Reply]], *, weight: str = "num-examples"
    ) -> Reply:
        """Return the bits that `mean` would return of the same replies."""


@dataclass(frozen=True)
class Algorithm:
    """A federated algorithm.

    Args:
        init: initial model -> the server's state before round 1.
        round: (state, number, sites) -> the next state. No state is kept elsewhere.
        handlers: action -> the site's half.
        streams: action -> the site's half of a stream; no action is in both.
        shared: the state's "model" is a result: one model for all.
        personal: each site's memory holds a model of its own under `PERSONAL`.
        pooled: trains on all sites' data in one place; only a simulation can.
        home_rounds: the last so many rounds are each site's own, so all sites take part in them,
            however few are drawn for a round of the common model.
        relays: one model meets all sites of a round, one after another.
        cut: where the network is cut, if sites hold only their parts of it.
        changes: sites send what training changed, under `CHANGE`, and no model.
    """

    init: Callable[[State], Bundle]
    round: Callable[[Bundle, int, Sites], Bundle]
    handlers: Mapping[str, Handler]
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
    shared: bool = True
    personal: bool = False
    pooled: bool = False
    local_rounds: int = 0
    relays: bool = False
    cut: CutPlan | None = None
    changes: bool = False


def own_model(fitted: Fitted) -> Bundle:
    """Return what a site keeps of its own training; a site that took no step has no model.

    >>> sorted(own_model(Fitted(state={}, examples=10, steps=4, loss=0.5)))
    ['personal']
    >>> own_model(Fitted(state={}, examples=0, steps=0, loss=0.0))
    {}
    """
    return {PERSONAL: fitted.state} if fitted.steps else {}


def fitted_numbers(fitted: Fitted) -> Numbers:
    """Return what a site tells of its training: counts, and the loss summed over steps.

    A private site tells no loss.

    >>> fitted_numbers(Fitted(state={}, examples=10, steps=4, loss=0.5))
    {'num-examples': 10.0, 'steps': 4.0, 'loss-sum': 2.0}
    """
    counts = {"num-examples": float(fitted.examples), "steps": float(fitted.steps)}
    return counts if isnan(fitted.loss) else counts | {"loss-sum": fitted.loss * fitted.steps}
