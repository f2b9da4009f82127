"""The streams of a round as an algorithm sees them: bytes counted, failures named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.common.constant import ErrorCode

from fedrad.algorithms.base import Frame, Reply
from fedrad.core.state import num_bytes
from fedrad.errors import SiteFailedError, TrainingDivergedError
from fedrad.rounds.records import bundle_of, numbers_of
from fedrad.rounds.site_streams import LOST, FrameStream, FrameStreams

__all__ = ["MeteredStreams", "StreamBroken", "Traffic"]


_LOST = {
    LOST,
    ErrorCode.CLIENT_APP_CRASHED,
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
}


class StreamBroken(SiteFailedError):
    """A site or its connection was lost in mid-stream; the round can be run again."""


@dataclass
class Traffic:
    """What a round took: bytes of arrays that crossed, without framing, and gradient steps."""

    down: int = 0
    up: int = 0
    steps: int = 0


class MeteredStreams:
    """The open streams of a round, by site (`algorithms.base.Streams`).

    Args:
        channels: of the grid.
        sites: to which they lead.
        traffic: is added to.
    """

    def __init__(self, channels: FrameStreams, sites: Sequence[str], traffic: Traffic) -> None:
        self.failed: dict[str, str] = {}
        self._channels = channels
        self._streams = {site: _Counted(site, channels[site], traffic) for site in sites}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the sites that have not failed, sorted."""
        return tuple(sorted(self._streams.keys() - self.failed.keys()))

    @property
    def broken(self) -> bool:
        """Return whether all sites that failed were lost; none said no, and none made a mistake."""
        return all(self._streams[site].broken for site in self.failed)

    def __getitem__(self, site: str) -> "_Counted":
        """Return the stream to a site."""
        return self._streams[site]

    def arriving(self) -> Iterator[tuple[str, Frame]]:
        """Yield each frame as it comes; a site that fails is noted and left out."""
        for site, came in self._channels.arriving():
            frame = self._streams[site].take(came)
            if frame is not None:
                yield site, frame
            elif reason := self._streams[site].failure:
                self._streams[site].check()
                self.failed[site] = reason


class _Counted:
    """The stream to one site (`algorithms.base.Stream`)."""

    def __init__(self, site: str, channel: FrameStream, traffic: Traffic) -> None:
        self._site, self._channel, self._traffic = site, channel, traffic
        self._reply: Message | None = None

    @property
    def failure(self) -> str | None:
        """Return why the site could not come to the end, if it could not."""
        if self._reply is None or not self._reply.has_error():
            return None
        return self._reply.error.reason or "unknown error"

    @property
    def broken(self) -> bool:
        """Return whether the stream was lost on its way."""
        reason = self.failure
        if reason is None or self._reply is None:
            return False
        # SiteFailedError is also what a site says whose connection was lost, or who came too late.
        return self._reply.error.code in _LOST or reason.startswith(SiteFailedError.__name__)

    def take(self, came: Frame | Message) -> Frame | None:
        """Return a frame, counted; None when the stream has ended."""
        if isinstance(came, Frame):
            self._traffic.up += num_bytes({"frame": came.arrays})
            return came
        self._reply = came
        return None

    def receive(self) -> Frame:
        """Wait for the site's next frame."""
        frame = self.take(self._channel.receive())
        if frame is None:
            self._raise_failure()
            raise SiteFailedError(f"{self._site}: it ended its stream; another frame was due")
        return frame

    def send(self, frame: Frame) -> None:
        """Send the frame that the site waits for."""
        self._traffic.down += num_bytes({"frame": frame.arrays})
        self._channel.send(frame)

    def result(self) -> Reply:
        """Wait for the end of the stream, and return the site's reply."""
        if self._reply is None and self.take(self._channel.receive()) is not None:
            raise SiteFailedError(f"{self._site}: it sent a frame; the end was due")
        self._raise_failure()
        assert self._reply is not None
        reply = Reply(bundle_of(self._reply.content), numbers_of(self._reply.content))
        self._traffic.up += num_bytes(reply.arrays)
        self._traffic.steps += int(reply.numbers.get("steps", 0))
        return reply

    def check(self) -> None:
        """Raise TrainingDivergedError if that is how the stream ended."""
        reason = self.failure or ""
        if reason.startswith(TrainingDivergedError.__name__):
            raise TrainingDivergedError(reason.partition(": ")[2])

    def _raise_failure(self) -> None:
        self.check()
        if self.failure:
            kind = StreamBroken if self.broken else SiteFailedError
            raise kind(f"{self._site}: {self.failure}")
