"""The streams of a round with one empty hospital: no frame comes, and a reply at once."""

from collections.abc import Iterator

from fedrad.algorithms.base import Frame, Reply

__all__ = ["EmptyStreams"]


class EmptyStreams:
    """The streams to a hospital that has nothing to send (`algorithms.base.Streams`).

    Args:
        site: its name.
        reply: that ends its stream.
    """

    def __init__(self, site: str, reply: Reply) -> None:
        self._site, self._reply = site, reply

    @property
    def names(self) -> tuple[str, ...]:
        """Return the hospital's name."""
        return (self._site,)

    def __getitem__(self, site: str) -> "EmptyStreams":
        """Return the only stream."""
        return self

    def arriving(self) -> Iterator[tuple[str, Frame]]:
        """Yield nothing."""
        yield from ()

    def receive(self) -> Frame:
        """Return that the hospital will take no step."""
        return Frame("ready", numbers={"steps": 0.0})

    def send(self, frame: Frame) -> None:
        """Do nothing."""

    def result(self) -> Reply:
        """Return the reply."""
        return self._reply
