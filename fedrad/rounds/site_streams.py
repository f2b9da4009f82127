"""What a Grid that has streams gives: a channel to each site, frame for frame, in turn.

A Grid says so by a method `streams(messages, deadline=...)`. A site's half is a generator made by
its client app's door (`client.Door`); here it is called in this process.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from flwr.app import Context, Message

from fedrad.algorithms.base import Frame
from fedrad.errors import SiteFailedError

__all__ = [
    "LOST",
    "CalledStreams",
    "ClientCoroutine",
    "FrameStream",
    "FrameStreams",
    "StreamHandlerFactory",
    "StreamingGrid",
]

LOST = 102
"""Code of an error that the coordinator found out; those in a site's own words have others."""

ClientCoroutine = Generator[Frame, Frame, Message]
"""A site's half of a stream; what it returns is the site's reply to the message that opened it."""

StreamHandlerFactory = Callable[[Message, Context], ClientCoroutine]
"""(the message that opens a stream, the node's context) -> the site's half of the stream."""


class FrameStream(Protocol):
    """A stream to one site."""

    def receive(self) -> Frame | Message:
        """Wait for the site's next frame, or for the reply that ends the stream."""

    def send(self, frame: Frame) -> None:
        """Send the frame that the site waits for."""


class FrameStreams(Protocol):
    """The open streams, by site."""

    def __getitem__(self, site: str) -> FrameStream:
        """Return the stream to a site."""

    def arriving(self) -> Iterator[tuple[str, Frame | Message]]:
        """Yield what comes, from whichever site, until every stream has ended with a reply."""


class StreamingGrid(Protocol):
    """A Grid that can open streams."""

    def streams(
        self, messages: Mapping[str, Message], *, deadline: float
    ) -> AbstractContextManager[FrameStreams]:
        """Open a stream to each site by its message; they are broken off when the block ends."""


class CalledStreams:
    """Streams to halves in this process: a frame is an argument of a call.

    A half runs only while somebody receives from it, so the sites take turns, and one model can
    serve them all. Those that arrive do so site by site, each to its end.
    """

    def __init__(self, halves: Mapping[str, ClientCoroutine]) -> None:
        self._channels = {site: _Called(site, half) for site, half in sorted(halves.items())}

    def __getitem__(self, site: str) -> FrameStream:
        """Return the stream to a site."""
        return self._channels[site]

    def arriving(self) -> Iterator[tuple[str, Frame | Message]]:
        """Yield each site's frames and its reply, one site after the other."""
        for site, channel in self._channels.items():
            while not channel.ended:
                yield site, channel.receive()

    def close(self) -> None:
        """Break off what has not ended."""
        for channel in self._channels.values():
            channel.close()


class _Called:
    def __init__(self, site: str, half: ClientCoroutine) -> None:
        self._site, self._half = site, half
        self._answer: Frame | None = None
        self._begun = self.ended = False

    def receive(self) -> Frame | Message:
        if self.ended or (self._begun and self._answer is None):
            raise SiteFailedError(f"{self._site}: its stream waits for no frame")
        answer, self._answer = self._answer, None
        try:
            frame = next(self._half) if answer is None else self._half.send(answer)
        except StopIteration as end:
            self.ended = True
            message: Message = end.value
            return message
        self._begun = True
        return frame

    def send(self, frame: Frame) -> None:
        self._answer = frame

    def close(self) -> None:
        self._half.close()
