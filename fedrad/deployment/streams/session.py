"""One side's half of a conversation, which outlives the connections that carry it.

Law: the other side receives what was sent here, each packet once and in its order, over however
many connections. Both sides speak in turn, so at most one packet a direction is ever under way or
waiting: that is the flow control, and all that must be kept in order to send it again.
"""

import threading
import time
from collections.abc import Iterator

from fedrad.algorithms.base import Frame
from fedrad.core.printable import printable
from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.frames import frame_from, packet_of, packet_with

__all__ = ["ResumableSession"]


class ResumableSession:
    """Packets in turn with one other side.

    Args:
        first: this side speaks first (the site does).
        largest: most bytes of a packet.
        lock: guards this link; links that are waited for together share one.
        arrived: is notified, under the lock, when something is here or has changed.
    """

    def __init__(
        self,
        *,
        first: bool,
        largest: int,
        lock: "threading.Lock | None" = None,
        arrived: threading.Condition | None = None,
    ) -> None:
        self.lock = lock or threading.Lock()
        self.arrived = arrived or threading.Condition(self.lock)
        self._to_send = threading.Condition(self.lock)
        self._first, self._largest = first, largest
        self._sent = self._received = self._connection = 0
        self._kept: bytes | None = None
        self._inbox: Frame | None = None
        self.connected = False
        self.ended = False
        self.failure: str | None = None
        self.since = time.monotonic()
        """When the connection came or broke, or the last packet went or came."""

    @property
    def received(self) -> int:
        """Return the number of the last packet that was received."""
        return self._received

    @property
    def opened(self) -> bool:
        """Return whether the other side ever connected."""
        return self._connection > 0

    def send(self, frame: Frame) -> None:
        """Send a frame, on this connection or on the next.

        Raises:
            ValueError: it is larger than a packet may be.
            RuntimeError: it is the other side's turn.
        """
        self._send(frame)

    def end(self, failure: str = "") -> None:
        """Send the last word instead of a frame: nothing, or why this side cannot go on."""
        self._send(split_pb2.End(failure=failure))

    def take(self, connection: int, raw: bytes) -> None:
        """Take in what a connection delivered; of a connection that was given up, nothing.

        Raises:
            ValueError: the bytes are no packet, or not the packet that is due.
        """
        head, data = packet_of(raw)
        frame = frame_from(head.frame, data) if head.HasField("frame") else None
        with self.lock:
            if connection != self._connection:
                return
            self._expect(head)
            self._received, self._kept = head.number, None
            self._inbox, self.ended = frame, frame is None
            if frame is None:
                self.failure = printable(head.end.failure) or self.failure
                self._to_send.notify_all()
            self.since = time.monotonic()
            self.arrived.notify_all()

    def pop(self) -> Frame | None:
        """Return what has arrived, if anything has; the lock must be held."""
        frame, self._inbox = self._inbox, None
        return frame

    def waits(self) -> bool:
        """Return whether a packet of the other side is due or here; the lock must be held."""
        return not self.ended and not self._my_turn()

    def connect(self, received: int) -> tuple[int, int]:
        """Begin a connection, in place of any other.

        Args:
            received: the number of the last packet that the other side has received.

        Returns:
            The connection's number, and that of the last packet received before it.

        Raises:
            ValueError: that is neither the last packet nor the one before that is kept here.
        """
        with self.lock:
            if received != self._sent and (received != self._sent - 1 or self._kept is None):
                raise ValueError(
                    f"the other side has received packet {received}; {self._sent} was sent last"
                )
            if received == self._sent:
                self._kept = None
            self._connection += 1
            self.connected, self.since = True, time.monotonic()
            self._to_send.notify_all()
            return self._connection, self._received

    def disconnect(self, connection: int) -> None:
        """Note that a connection is over, unless another has taken its place."""
        with self.lock:
            if connection == self._connection and self.connected:
                self.connected, self.since = False, time.monotonic()
                self._to_send.notify_all()
                self.arrived.notify_all()

    def fail(self, reason: str) -> None:
        """Note why this conversation cannot go on, if it has not ended; the first reason stands."""
        with self.lock:
            self.note(reason)

    def note(self, reason: str) -> None:
        """Do what `fail` does; the lock must be held."""
        if not self.ended:
            self.failure = self.failure or reason
        self._to_send.notify_all()
        self.arrived.notify_all()

    def packets(self, connection: int) -> Iterator[bytes]:
        """Yield what is to be sent on a connection, until it or the conversation is over."""
        last: bytes | None = None
        while True:
            with self.lock:
                while self._goes_on(connection) and (self._kept is None or self._kept is last):
                    self._to_send.wait()
                if not self._goes_on(connection):
                    return
                last = self._kept
            assert last is not None
            yield last

    def _goes_on(self, connection: int) -> bool:
        over = self.ended or self.failure is not None
        return connection == self._connection and self.connected and not over

    def _my_turn(self) -> bool:
        return self._sent - self._received == (0 if self._first else -1)

    def _send(self, content: Frame | split_pb2.End) -> None:
        with self.lock:
            if not self._my_turn():
                raise RuntimeError("a frame was sent before the other side answered the last one")
            number, acknowledged = self._sent + 1, self._received
        raw = packet_with(number, acknowledged, content)
        if len(raw) > self._largest:
            raise ValueError(
                f"a frame of {len(raw)} bytes is more than the {self._largest} that are taken; "
                "use a smaller batch, a later cut, or activations: int8"
            )
        with self.lock:
            self._sent, self._kept = number, raw
            self.since = time.monotonic()
            self._to_send.notify()

    def _expect(self, head: split_pb2.Head) -> None:
        """Check that a packet is the one that is due; the lock must be held."""
        if head.number != self._received + 1:
            raise ValueError(f"packet {head.number} came where {self._received + 1} was due")
        if head.acknowledged != self._sent:
            raise ValueError(
                f"packet {head.number} acknowledges {head.acknowledged}; {self._sent} was sent last"
            )
        if self._my_turn():
            raise ValueError(f"packet {head.number} came before the last one was answered")
