"""The site's end of split learning's stream: runs its half against the coordinator's server.

The call is opened from the hospital, outwards. A connection that breaks is made again, and the
conversation goes on where it was: the site's half, a generator, keeps its place and its graph.
"""

import logging
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from queue import SimpleQueue
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]

from fedrad.algorithms.base import Frame
from fedrad.core.printable import printable
from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.invitation import Invitation
from fedrad.deployment.streams.protocol import HELLO, METHOD, PING, WELCOME
from fedrad.deployment.streams.session import ResumableSession
from fedrad.errors import ConfigError, SiteFailedError, about_the_question, outward_of

__all__ = ["run_client_stream", "streams_over_grpc"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_BROKEN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL}
"""What a connection that was cut looks like; every other status is the server's own word."""
_PAUSE_S = (0.05, 2.0)
"""Before connecting again: the first time, and at most."""


def run_client_stream(
    half: Generator[Frame, Frame, T], invitation: Invitation, *, site: str, patience: float = 60.0
) -> T:
    """Run a site's half of a stream to its end, and return what it returns.

    Args:
        half: yields the site's frames and is sent the server's.
        invitation: where to, and with which token.
        site: its name.
        patience: seconds for which a connection is tried again.

    Raises:
        SiteFailedError: the server cannot be reached, refused the stream, or ended the round.
        Exception: whatever the half raises; the server is told what `outward_of` says.
    """
    calls = _Calls(invitation, site, patience)
    try:
        answer: Frame | None = None
        while True:
            try:
                frame = next(half) if answer is None else half.send(answer)
            except StopIteration as done:
                calls.end("")
                result: T = done.value
                return result
            calls.send(frame)
            answer = calls.receive()
    except SiteFailedError:
        raise
    except Exception as error:
        calls.end(outward_of(error))
        raise
    finally:
        half.close()
        calls.close()


def streams_over_grpc(
    gate: Callable[[Generator[Frame, Frame, T]], Generator[Frame, Frame, T]] = lambda half: half,
) -> Callable[[Mapping[str, Any]], Callable[[Generator[Frame, Frame, T], str], T] | None]:
    """Return what finds an invitation in a message's settings, and opens the stream it names.

    Args:
        gate: what a half of a stream passes through before its frames leave.
    """

    def invited(
        config: Mapping[str, Any],
    ) -> Callable[[Generator[Frame, Frame, T], str], T] | None:
        invitation = Invitation.of(config)
        if invitation is None:
            return None
        return lambda half, site: run_client_stream(gate(half), invitation, site=site)

    return invited


class _Calls:
    """The site's link, over one call after the other."""

    def __init__(self, invitation: Invitation, site: str, patience: float) -> None:
        self._invitation, self._site, self._patience = invitation, site, patience
        self._link = ResumableSession(first=True, largest=invitation.largest)
        self._secret = secrets.token_bytes(32)
        self._ends = time.monotonic() + invitation.deadline
        self._broken_since = time.monotonic()
        self._connection = 0
        self._channel: Any = None
        self._call: Any = None

    def send(self, frame: Frame) -> None:
        """Send a frame, on this connection or on the next.

        Raises:
            ConfigError: it is larger than the server takes.
        """
        try:
            self._link.send(frame)
        except ValueError as error:
            with about_the_question():
                raise ConfigError(str(error)) from None

    def receive(self) -> Frame:
        """Wait for the server's answer.

        Raises:
            SiteFailedError: the server cannot be reached, refused the stream, or ended the round.
        """
        while True:
            raw = self._next()
            if raw is None:
                raise SiteFailedError("the coordinator ended the stream before its time")
            try:
                self._link.take(self._connection, raw)
            except ValueError as error:
                raise SiteFailedError(
                    f"the coordinator broke a rule of the stream: {error}"
                ) from None
            except Exception as error:
                what = type(error).__name__
                raise SiteFailedError(
                    f"a packet of the coordinator cannot be read ({what})"
                ) from None
            with self._link.lock:
                frame = self._link.pop()
            if frame is not None:
                return frame

    def end(self, failure: str) -> None:
        """Say the last word, and wait until the server has it, if it is still there."""
        self._link.end(failure)
        try:
            while self._next() is not None:
                pass
        except SiteFailedError as error:
            # The server has all the frames that it asked for; only this word may be lost.
            log.warning("the end of the stream was not acknowledged: %s", error)

    def close(self) -> None:
        """Break off whatever is open."""
        self._link.disconnect(self._connection)
        if self._channel is not None:
            self._channel.close()

    def _next(self) -> bytes | None:
        """Return the call's next packet, or None at its end; a broken call is made anew."""
        pause = _PAUSE_S[0]
        while True:
            try:
                if self._call is None:
                    self._connect()
                raw: bytes | None = next(self._call, None)
                self._broken_since = time.monotonic()
                return raw
            except grpc.RpcError as error:
                self._break(error)
            time.sleep(pause)
            pause = min(2 * pause, _PAUSE_S[1])

    def _connect(self) -> None:
        invitation = self._invitation
        credentials = grpc.ssl_channel_credentials(invitation.ca.encode())
        options = [
            *PING,
            ("grpc.max_receive_message_length", invitation.largest),
            ("grpc.max_send_message_length", invitation.largest),
            # A pool shared between channels would also share the pauses between attempts.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.secure_channel(invitation.address, credentials, options=options)
        ready: SimpleQueue[int | None] = SimpleQueue()
        self._call = self._channel.stream_stream(METHOD)(
            _outbox(self._link, ready),
            metadata=((HELLO, self._hello().SerializeToString()),),
            timeout=max(0.1, self._ends - time.monotonic()),
        )
        welcome = dict(self._call.initial_metadata() or ()).get(WELCOME)
        if welcome is None:
            ready.put(None)
            return
        received = split_pb2.Welcome.FromString(welcome).received
        try:
            self._connection, _ = self._link.connect(received)
        except ValueError as error:
            raise SiteFailedError(f"the stream cannot go on: {error}") from None
        finally:
            ready.put(self._connection)

    def _hello(self) -> split_pb2.Hello:
        return split_pb2.Hello(
            site=self._site,
            run=self._invitation.run,
            round=self._invitation.round,
            token=self._invitation.token,
            secret=self._secret,
            received=self._link.received,
        )

    def _break(self, error: grpc.RpcError) -> None:
        """Let go of a broken call, to make another; or say why there will be none.

        Raises:
            SiteFailedError: the server said no, or the patience is at its end.
        """
        self.close()
        self._call = None
        code, told = error.code(), error.details()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise SiteFailedError(
                f"the stream did not end within the round's {self._invitation.deadline:g} s"
            )
        if code not in _BROKEN:
            raise SiteFailedError(f"the coordinator refused or ended the stream: {printable(told)}")
        if time.monotonic() - self._broken_since > self._patience:
            # What gRPC found on the way, a proxy or an address inside, is for this site's people.
            log.warning("no connection to %s: %s", self._invitation.address, told)
            raise SiteFailedError(
                f"no connection to {self._invitation.address} for {self._patience:g} s; "
                "the port must be open outwards, and the name must be in the server's certificate"
            )
        log.info("the stream's connection broke (%s); connecting again", code.name)


def _outbox(link: ResumableSession, ready: "SimpleQueue[int | None]") -> Iterator[bytes]:
    """Yield what is to be sent on a call, once the server has said what it has received."""
    connection = ready.get()
    if connection is not None:
        yield from link.packets(connection)
