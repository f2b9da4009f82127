"""The streams of one round, as the algorithm's server half sees them, and how long it waits."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedrad.algorithms.base import Frame
from fedrad.deployment.streams.session import ResumableSession
from fedrad.errors import SiteFailedError

__all__ = ["Ended", "Limits", "OpenStreams", "SiteStream"]


@dataclass(frozen=True)
class Limits:
    """How long is waited: seconds in all, without a connection, and for one frame."""

    deadline: float
    ends: float
    patience: float
    silence: float

    def overdue(self, link: ResumableSession) -> str | None:
        """Return what a link is late with, or None."""
        now = time.monotonic()
        if link.ended or link.failure is not None:
            return None
        if now > self.ends:
            came = "its stream did not end" if link.opened else "it did not open its stream"
            return f"{came} within {self.deadline:g} s"
        if not link.opened or not link.waits():
            return None
        if not link.connected and now - link.since > self.patience:
            return f"its connection broke and did not come back within {self.patience:g} s"
        if link.connected and now - link.since > self.silence:
            return f"it stalled: connected, but no frame for {self.silence:g} s"
        return None

    def left(self, link: ResumableSession) -> float:
        """Return the seconds after which a link must be looked at again."""
        ends = self.ends
        if link.opened and link.waits():
            ends = min(ends, link.since + (self.silence if link.connected else self.patience))
        # A little later than the limit, so that it is past it then.
        return max(0.0, ends - time.monotonic()) + 0.01


@dataclass(frozen=True)
class Ended:
    """The end of a stream.

    Args:
        failure: None, or why the site or its stream could not go on.
    """

    failure: str | None = None


class SiteStream:
    """The stream to one site, as the coordinator sees it."""

    def __init__(self, site: str, link: ResumableSession, limits: Limits) -> None:
        self._site, self._link, self._limits = site, link, limits

    def receive(self) -> Frame | Ended:
        """Wait for the site's next frame, or for the end of its stream, and say which came."""
        with self._link.lock:
            while (came := self.look()) is None:
                self._link.arrived.wait(self._limits.left(self._link))
            return came

    def send(self, frame: Frame) -> None:
        """Send the frame that the site waits for; to a stream that has failed, nothing.

        Raises:
            SiteFailedError: the frame is larger than the stream takes.
        """
        try:
            self._link.send(frame)
        except ValueError as error:
            raise SiteFailedError(f"{self._site}: {error}") from None

    def look(self) -> Frame | Ended | None:
        """Return what has come, if anything has; the link's lock must be held."""
        frame = self._link.pop()
        if frame is not None:
            return frame
        late = self._limits.overdue(self._link)
        if late is not None:
            self._link.note(late)
        over = self._link.failure is not None or self._link.ended
        return Ended(self._link.failure) if over else None


class OpenStreams(Mapping[str, SiteStream]):
    """The streams of one round, by site.

    Args:
        links: to the sites; they share one lock and one condition.
        limits: how long is waited.
    """

    def __init__(self, links: Mapping[str, ResumableSession], limits: Limits) -> None:
        self._links, self._limits = links, limits
        self._streams = {site: SiteStream(site, link, limits) for site, link in links.items()}

    def __getitem__(self, site: str) -> SiteStream:
        """Return the stream to a site."""
        return self._streams[site]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the sites."""
        return iter(self._streams)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self._streams)

    def arriving(self) -> Iterator[tuple[str, Frame | Ended]]:
        """Yield what comes, from whichever site, until the end of every stream has come."""
        order = sorted(self._streams)
        while order:
            site, came = self._next(order)
            # Behind all others next time: a fast site does not keep a slow one waiting.
            order.remove(site)
            if isinstance(came, Frame):
                order.append(site)
            yield site, came

    def _next(self, order: list[str]) -> tuple[str, Frame | Ended]:
        links = [self._links[site] for site in order]
        with links[0].lock:
            while True:
                for site in order:
                    came = self._streams[site].look()
                    if came is not None:
                        return site, came
                links[0].arrived.wait(min(self._limits.left(link) for link in links))

    def fail(self, site: str, reason: str) -> None:
        """Note that a site cannot run its stream, as another channel says."""
        self._links[site].fail(reason)
