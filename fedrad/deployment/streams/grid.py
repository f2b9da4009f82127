"""A Grid whose sites open streams over gRPC, after one ordinary message each.

The message carries where the stream goes and its token; the site's ordinary reply ends the stream.
What a site says by the one way, and what is found out by the other, come together here.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from flwr.app import Error, Message
from flwr.serverapp import Grid

from fedrad.algorithms.base import Frame
from fedrad.deployment.streams.frame_rules import FrameRules
from fedrad.deployment.streams.open_streams import Ended, OpenStreams, SiteStream
from fedrad.deployment.streams.server import StreamServer
from fedrad.rounds.grid_wrapper import GridWrapper
from fedrad.rounds.records import config_of
from fedrad.rounds.site_streams import LOST

__all__ = ["GrpcStreams", "StreamGrid", "grpc_streams"]

log = logging.getLogger(__name__)

_POLL_S = 0.05
_BROKE_A_RULE = 103
"""Code of an error: the site sent what it may not; unlike a lost stream it is not repeated."""

Rules = Callable[[Message], FrameRules]
"""The message that opens a stream -> what the site may send in it."""


@contextmanager
def grpc_streams(
    grid: Grid,
    server: StreamServer,
    messages: Mapping[str, Message],
    *,
    deadline: float,
    rules: Rules | None = None,
) -> Iterator["GrpcStreams"]:
    """Send each site its message with an invitation, and take the streams that they open.

    Args:
        grid: carries the messages and the replies.
        server: takes the streams.
        messages: by site; the invitation is added to each.
        deadline: seconds until all must have replied.
        rules: of the frames that a site sends; without them all are taken.
    """
    ruled = {} if rules is None else {site: rules(one) for site, one in messages.items()}
    config = config_of(next(iter(messages.values())).content) if messages else {}
    number = int(config.get("server-round", 0))
    with server.open(messages, run=_run(config), round=number, deadline=deadline) as opened:
        streams, invitations = opened
        for site, message in messages.items():
            message.content.config_records["config"].update(invitations[site].config())
        ids = dict(zip(grid.push_messages(messages.values()), messages, strict=True))
        replies = _Replies(grid, ids, streams)
        replies.start()
        try:
            yield GrpcStreams(streams, replies, messages, time.monotonic() + deadline, ruled)
        finally:
            replies.stop()


class GrpcStreams:
    """The open streams of a round (`channels.Channels`)."""

    def __init__(
        self,
        streams: OpenStreams,
        replies: "_Replies",
        messages: Mapping[str, Message],
        ends: float,
        rules: Mapping[str, FrameRules] | None = None,
    ) -> None:
        self._rules, self._broken = rules or {}, dict[str, str]()
        self._streams, self._replies = streams, replies
        self._messages, self._ends = messages, ends

    def __getitem__(self, site: str) -> "_Channel":
        """Return the stream to a site."""
        return _Channel(self, site, self._streams[site])

    def arriving(self) -> Iterator[tuple[str, Frame | Message]]:
        """Yield what comes, from whichever site, until every site has replied."""
        ended: dict[str, Ended] = {}
        for site, came in self._streams.arriving():
            if isinstance(came, Frame):
                if self.looked(site, came) is came:
                    yield site, came
            else:
                # Its reply is on its way, and slower than frames: the others go on meanwhile.
                ended[site] = came
        for site, end in ended.items():
            yield site, self.reply(site, end)

    def looked(self, site: str, frame: Frame) -> Frame | Ended:
        """Return a frame that breaks no rule; one that does ends its stream."""
        rules = self._rules.get(site)
        wrong = rules.fault(frame) if rules else None
        if wrong is None:
            return frame
        self._broken[site] = wrong
        self._streams.fail(site, wrong)
        return Ended(wrong)

    def reply(self, site: str, end: Ended) -> Message:
        """Return the reply of a site whose stream has ended, or why there is none."""
        if site in self._broken:
            error = Error(_BROKE_A_RULE, self._broken[site])
            return Message(error, reply_to=self._messages[site])
        broken = end.failure is not None
        reply = self._replies.wait(site, 0.0 if broken else self._ends - time.monotonic())
        if reply is not None:
            return reply
        reason = end.failure or "its stream ended, but its reply did not come in time"
        return Message(Error(LOST, reason), reply_to=self._messages[site])


class _Channel:
    """The stream to one site (`channels.Channel`)."""

    def __init__(self, channels: GrpcStreams, site: str, stream: SiteStream) -> None:
        self._channels, self._site, self._stream = channels, site, stream

    def receive(self) -> Frame | Message:
        came = self._stream.receive()
        if isinstance(came, Frame):
            came = self._channels.looked(self._site, came)
        return came if isinstance(came, Frame) else self._channels.reply(self._site, came)

    def send(self, frame: Frame) -> None:
        self._stream.send(frame)


class _Replies(threading.Thread):
    """Pulls the sites' replies while the streams are open.

    A site that fails before its stream is open says so by its reply alone.
    """

    def __init__(self, grid: Grid, ids: Mapping[str, str], streams: OpenStreams) -> None:
        super().__init__(name="replies", daemon=True)
        self._grid, self._waiting, self._streams = grid, dict(ids), streams
        self._found: dict[str, Message] = {}
        self._changed = threading.Condition()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Pull until all have come or nobody waits any more."""
        try:
            while self._waiting and not self._stopped.wait(_POLL_S):
                # Another one first each time: a grid may hand out replies in the order asked for,
                # and a site that failed must not be kept behind one that runs.
                first = next(iter(self._waiting))
                self._waiting[first] = self._waiting.pop(first)
                for reply in self._grid.pull_messages(list(self._waiting)):
                    self._keep(self._waiting.pop(reply.metadata.reply_to_message_id), reply)
        except Exception as error:
            log.exception("replies cannot be pulled")
            for site in self._waiting.values():
                self._streams.fail(site, f"replies cannot be pulled: {type(error).__name__}")

    def wait(self, site: str, seconds: float) -> Message | None:
        """Return a site's reply, or None if it does not come in so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: site in self._found, max(0.0, seconds))
            return self._found.get(site)

    def stop(self) -> None:
        """Pull no more."""
        self._stopped.set()
        self.join()

    def _keep(self, site: str, reply: Message) -> None:
        with self._changed:
            self._found[site] = reply
            self._changed.notify_all()
        self._streams.fail(site, "it replied before the end of its stream")


class StreamGrid(GridWrapper):
    """A Grid, and streams over gRPC beside it.

    Args:
        grid: carries the messages.
        server: takes the streams; is listening already.
        rules: of the frames that a site sends; without them all are taken.
    """

    def __init__(self, grid: Grid, server: StreamServer, rules: Rules | None = None) -> None:
        super().__init__(grid)
        self._server, self._rules = server, rules

    @contextmanager
    def streams(self, messages: Mapping[str, Message], *, deadline: float) -> Iterator[GrpcStreams]:
        """Open a stream to each site by its message; they are broken off when the block ends."""
        with grpc_streams(
            self._grid, self._server, messages, deadline=deadline, rules=self._rules
        ) as channels:
            yield channels

    def __getattr__(self, name: str) -> Any:
        """Return what else the grid has: the sites that it has met, whether it is slow."""
        return getattr(self._grid, name)


def _run(config: Mapping[str, Any]) -> str:
    """Return what tells this arm and seed of this experiment from all others."""
    text = "\x1f".join(str(config.get(key, "")) for key in ("experiment", "arm", "seed"))
    return sha256(text.encode()).hexdigest()[:16]
