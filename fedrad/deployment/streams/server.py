"""The coordinator's end of split learning's streams: one gRPC call for each site and round.

Sites open the calls; nothing connects to a hospital. A call is admitted by its token before
anything of it is read. Its connection may break and come again: the conversation goes on where it
was (`link`), and the algorithm, which runs in the coordinator's own thread, does not notice.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError

from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.invitation import Admission, Invitation, new_token
from fedrad.deployment.streams.open_streams import Limits, OpenStreams
from fedrad.deployment.streams.protocol import HELLO, METHOD, PING, WELCOME
from fedrad.deployment.streams.session import ResumableSession
from fedrad.errors import ConfigError

__all__ = ["LARGEST_PACKET", "StreamServer"]

log = logging.getLogger(__name__)

LARGEST_PACKET = 256 << 20
"""Bytes of one packet, at most, unless the server is told otherwise."""

_CALLS = 1024


@dataclass
class _Session:
    """One site's conversation in one round."""

    link: ResumableSession
    admission: Admission


class StreamServer:
    """Takes the sites' streams, with TLS always.

    Args:
        bind: address and port to listen on, "0.0.0.0:9094"; port 0 is any free one.
        reach: host, or host:port, that sites reach this server under; a name in its certificate.
            Without a port it is the one listened on.
        certificate, key, ca: paths of PEM files; the CA's is sent to the sites.
        largest: most bytes of one packet.
        patience: seconds that a broken connection may stay away.
        silence: seconds that a connected site may take for one frame.

    Raises:
        ConfigError: a file is missing, or the port is taken.
    """

    def __init__(
        self,
        *,
        bind: str,
        reach: str,
        certificate: Path,
        key: Path,
        ca: Path,
        largest: int = LARGEST_PACKET,
        patience: float = 60.0,
        silence: float = 600.0,
    ) -> None:
        self._bind, self._reach = bind, reach
        self._ca = _pem(ca).decode()
        self._credentials = grpc.ssl_server_credentials([(_pem(key), _pem(certificate))])
        self._largest, self._patience, self._silence = largest, patience, silence
        self._sessions: dict[tuple[str, str, int], _Session] = {}
        self._door = threading.Lock()
        self._server: Any = None
        self.port = 0

    def __enter__(self) -> "StreamServer":
        """Listen."""
        options = [
            *PING,
            ("grpc.max_receive_message_length", self._largest),
            ("grpc.max_send_message_length", self._largest),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            # Without it a second server could listen on the same port, and take every other site.
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.server(ThreadPoolExecutor(_CALLS, "stream"), options=options)
        service, method = METHOD[1:].split("/")
        handler = grpc.stream_stream_rpc_method_handler(self._play)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        try:
            self.port = self._server.add_secure_port(self._bind, self._credentials)
        except RuntimeError:
            raise ConfigError(
                f"streams: nothing can listen on {self._bind}; is it taken?"
            ) from None
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and break off what is still open."""
        self._server.stop(grace=0.5).wait()

    @contextmanager
    def open(
        self, sites: Collection[str], *, run: str, round: int, deadline: float
    ) -> Iterator[tuple[OpenStreams, dict[str, Invitation]]]:
        """Expect a stream from each of some sites; all are over when the block ends.

        Args:
            sites: their names.
            run: what tells this run from all others.
            round: its number.
            deadline: seconds until all streams must have ended.

        Yields:
            The streams, and what each site is to be told.
        """
        limits = Limits(deadline, time.monotonic() + deadline, self._patience, self._silence)
        lock = threading.Lock()
        arrived = threading.Condition(lock)
        invited = {site: self._invitation(run, round, deadline) for site in sorted(sites)}
        sessions = {
            (site, run, round): _Session(
                ResumableSession(first=False, largest=self._largest, lock=lock, arrived=arrived),
                Admission(invitation.token),
            )
            for site, invitation in invited.items()
        }
        with self._door:
            self._sessions |= sessions
        try:
            links = {site: session.link for (site, _, _), session in sessions.items()}
            yield OpenStreams(links, limits), invited
        finally:
            with self._door:
                for key in sessions:
                    del self._sessions[key]
            for session in sessions.values():
                session.link.fail("the coordinator has ended the round")

    def _invitation(self, run: str, round: int, deadline: float) -> Invitation:
        address = self._reach if ":" in self._reach else f"{self._reach}:{self.port}"
        return Invitation(address, new_token(), run, round, self._ca, self._largest, deadline)

    def _play(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Serve one call: read in a thread of its own, write in this one."""
        link, connection = self._admit(context)
        if not context.add_callback(lambda: link.disconnect(connection)):
            link.disconnect(connection)
        reading = threading.Thread(target=_read, args=(link, connection, requests), daemon=True)
        reading.start()
        yield from link.packets(connection)
        if link.failure is not None and not link.ended:
            context.abort(grpc.StatusCode.ABORTED, link.failure)

    def _admit(self, context: Any) -> tuple[ResumableSession, int]:
        """Return the link of a call that may come in, and the number of its connection."""
        given = dict(context.invocation_metadata())
        try:
            hello = split_pb2.Hello.FromString(given.get(HELLO, b""))
        except DecodeError:
            hello = split_pb2.Hello()
        with self._door:
            session = self._sessions.get((hello.site, hello.run, hello.round))
            refused = (
                "no stream is expected from this site in this run and round"
                if session is None
                else session.admission.refusal(hello.token, hello.secret)
            )
        if session is None or refused is not None:
            # Not the algorithm's affair: a stranger must not be able to end a hospital's stream.
            log.warning("a stream was refused: %s", refused)
            _refuse(context, grpc.StatusCode.UNAUTHENTICATED, refused or "")
        try:
            connection, received = session.link.connect(hello.received)
        except ValueError as error:
            session.link.fail(str(error))
            _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        welcome = split_pb2.Welcome(received=received)
        context.send_initial_metadata(((WELCOME, welcome.SerializeToString()),))
        return session.link, connection


def _refuse(context: Any, code: grpc.StatusCode, reason: str) -> NoReturn:
    context.abort(code, reason)
    raise AssertionError("grpc's abort raises")


def _read(link: ResumableSession, connection: int, requests: Iterator[bytes]) -> None:
    try:
        for raw in requests:
            link.take(connection, raw)
    except ValueError as error:
        link.fail(str(error))
    except grpc.RpcError:
        log.info("a stream's connection broke")
    except Exception as error:
        # What this stumbles over is what came from the site: it ends that site's stream.
        log.info("a packet cannot be read", exc_info=error)
        link.fail(f"a packet cannot be read ({type(error).__name__})")
    finally:
        link.disconnect(connection)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"streams: {path} cannot be read ({error.strerror})") from None
