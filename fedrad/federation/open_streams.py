"""The streams of one round, as the algorithm's server half sees them, and how long it waits."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedrad.algorithms.base import Frame
from fedrad.errors import SiteFailed, TrainingDiverged
from fedrad.federation.link import Link

__all__ = ["Limits", "OpenStreams", "SiteStream"]


@dataclass(frozen=True)
class Limits:
    """How long is waited: seconds in all, without a connection, and for one frame."""

    deadline: float
    ends: float
    patience: float
    silence: float

    def overdue(self, link: Link) -> str | None:
        """Return what a link is late with, or None."""
        now = time.monotonic()
        if now > self.ends:
            came = "its stream did not end" if link.opened else "it did not open its stream"
            return f"{came} within {self.deadline:g} s"
        if not link.opened or link.ended or not link.waits():
            return None
        if not link.connected and now - link.since > self.patience:
            return f"its connection broke and did not come back within {self.patience:g} s"
        if link.connected and now - link.since > self.silence:
            return f"it stalled: connected, but no frame for {self.silence:g} s"
        return None

    def left(self, link: Link) -> float:
        """Return the seconds after which a link must be looked at again."""
        ends = self.ends
        if link.opened and not link.ended:
            ends = min(ends, link.since + (self.silence if link.connected else self.patience))
        # A little later than the limit, so that it is past it then.
        return max(0.0, ends - time.monotonic()) + 0.01


class SiteStream:
    """The stream to one site, as the algorithm's server half sees it."""

    def __init__(self, site: str, link: Link, limits: Limits) -> None:
        self._site, self._link, self._limits = site, link, limits

    def receive(self) -> Frame:
        """Wait for the site's next frame.

        Raises:
            SiteFailed: the site failed, stalled, broke a rule of the stream, or ended it.
            TrainingDiverged: the site's loss or weights are no numbers any more.
        """
        with self._link.lock:
            while True:
                frame = self._link.pop()
                if frame is not None:
                    return frame
                self.check()
                if self._link.ended:
                    raise SiteFailed(f"{self._site}: it ended its stream; another frame was due")
                self._link.arrived.wait(self._limits.left(self._link))

    def send(self, frame: Frame) -> None:
        """Send the frame that the site waits for.

        Raises:
            SiteFailed: the frame is larger than the stream takes.
        """
        try:
            self._link.send(frame)
        except ValueError as error:
            raise SiteFailed(f"{self._site}: {error}") from None

    def finish(self) -> None:
        """Wait for the site's last word.

        Raises:
            SiteFailed: as `receive`, or the site sent another frame.
            TrainingDiverged: as `receive`.
        """
        with self._link.lock:
            while not self._link.ended:
                self.check()
                if self._link.pop() is not None:
                    raise SiteFailed(f"{self._site}: it sent a frame; the end was due")
                self._link.arrived.wait(self._limits.left(self._link))
            self.check()

    def check(self) -> None:
        """Raise if the site failed or is overdue; the link's lock must be held."""
        if self._link.failure is not None:
            kind, _, text = self._link.failure.partition(": ")
            if kind == TrainingDiverged.__name__:
                raise TrainingDiverged(text)
            raise SiteFailed(f"{self._site}: {self._link.failure}")
        late = self._limits.overdue(self._link)
        if late is not None:
            raise SiteFailed(f"{self._site}: {late}")

    def pop(self) -> Frame | None:
        """Return a frame that has arrived; the link's lock must be held."""
        return self._link.pop()

    @property
    def ended(self) -> bool:
        """Return whether the site has said its last word."""
        return self._link.ended


class OpenStreams(Mapping[str, SiteStream]):
    """The streams of one round, by site.

    Args:
        links: to the sites; they share one lock and one condition.
        limits: how long is waited.
    """

    def __init__(self, links: Mapping[str, Link], limits: Limits) -> None:
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

    def arriving(self) -> Iterator[tuple[str, Frame]]:
        """Yield each frame as it comes, whichever site's, until all have ended.

        Raises:
            SiteFailed, TrainingDiverged: as `SiteStream.receive`, of any site.
        """
        order = sorted(self._streams)
        while (found := self._next(order)) is not None:
            # Behind all others next time: a fast site does not keep a slow one waiting.
            order.remove(found[0])
            order.append(found[0])
            yield found

    def _next(self, order: list[str]) -> tuple[str, Frame] | None:
        links = list(self._links.values())
        if not links:
            return None
        with links[0].lock:
            while True:
                for site in order:
                    frame = self._streams[site].pop()
                    if frame is not None:
                        return site, frame
                for stream in self._streams.values():
                    stream.check()
                if all(stream.ended for stream in self._streams.values()):
                    return None
                links[0].arrived.wait(min(self._limits.left(link) for link in links))

    def fail(self, site: str, reason: str) -> None:
        """Note that a site cannot play its stream, as another channel says."""
        self._links[site].fail(reason)
