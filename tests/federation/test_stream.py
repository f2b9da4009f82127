"""Streams over real gRPC and TLS on loopback: what is sent arrives, in turn and once."""

import re
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from broken_network import BrokenNetwork
from certificates import Certificates, certificates

from fedrad.algorithms.base import Frame
from fedrad.deployment.streams import split_pb2
from fedrad.deployment.streams.client import run_client_stream
from fedrad.deployment.streams.invitation import Invitation
from fedrad.deployment.streams.open_streams import Ended, OpenStreams
from fedrad.deployment.streams.protocol import HELLO, METHOD
from fedrad.deployment.streams.server import StreamServer
from fedrad.errors import ConfigError, DataError, SiteFailedError, TrainingDivergedError

Half = Generator[Frame, Frame, list[float]]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("pem"))


def server(pem: Certificates, **limits: Any) -> StreamServer:
    return StreamServer(
        bind="127.0.0.1:0",
        reach="localhost",
        certificate=pem.certificate,
        key=pem.key,
        ca=pem.ca,
        **limits,
    )


def port(invitation: Invitation) -> int:
    return int(invitation.address.rpartition(":")[2])


def half(numbers: list[float], width: int = 1) -> Half:
    """A site's half: sends each number, and collects the answers."""
    answers = []
    for number in numbers:
        answer = yield Frame("ask", {"x": torch.full((width,), number)}, {"n": number})
        answers.append(answer.arrays["y"][0].item())
    return answers


def serve(streams: OpenStreams) -> None:
    """The server's half: the double of each number, in whatever order they come."""
    for site, came in streams.arriving():
        if isinstance(came, Frame):
            streams[site].send(Frame("answer", {"y": 2 * came.arrays["x"]}))


def ask(streams: OpenStreams, site: str = "nord") -> Frame:
    """The site's next frame."""
    came = streams[site].receive()
    assert isinstance(came, Frame), came
    return came


def failure(streams: OpenStreams, site: str = "nord") -> str:
    """Why a site's stream ended."""
    while isinstance(came := streams[site].receive(), Frame):
        pass
    return str(came.failure)


@contextmanager
def opened(
    pem: Certificates, *sites: str, deadline: float = 10.0, **limits: Any
) -> Iterator[tuple[OpenStreams, dict[str, Invitation]]]:
    """A server that expects some sites."""
    with (
        server(pem, **limits) as own,
        own.open(sites, run="run", round=1, deadline=deadline) as found,
    ):
        yield found


@contextmanager
def playing(
    pem: Certificates, halves: dict[str, Half], **limits: Any
) -> Iterator[tuple[OpenStreams, dict[str, "Future[list[float]]"]]]:
    """A server, and sites that play their halves in threads."""
    with ThreadPoolExecutor() as pool, opened(pem, *halves, **limits) as (streams, invitations):
        futures = {
            site: pool.submit(run_client_stream, plays, invitations[site], site=site, patience=5.0)
            for site, plays in halves.items()
        }
        yield streams, futures


def test_sites_play_at_once_and_get_their_own_answers(pem: Certificates) -> None:
    halves = {f"s{k}": half([float(10 * k + j) for j in range(20)]) for k in range(4)}
    with playing(pem, halves) as (streams, futures):
        serve(streams)
        for k in range(4):
            assert futures[f"s{k}"].result(5) == [2.0 * (10 * k + j) for j in range(20)]


def test_a_slow_site_does_not_keep_the_others_waiting(pem: Certificates) -> None:
    """The fast site's hundred frames are answered while the slow one thinks about its first."""
    thinks = threading.Event()

    def slow() -> Half:
        assert thinks.wait(10)
        return (yield from half([1.0]))

    with playing(pem, {"fast": half([1.0] * 100), "slow": slow()}) as (streams, futures):
        serving = threading.Thread(target=serve, args=(streams,))
        serving.start()
        assert len(futures["fast"].result(10)) == 100
        thinks.set()
        assert futures["slow"].result(10) == [2.0]
        serving.join()


def test_one_stream_after_the_other_in_the_order_that_the_server_likes(pem: Certificates) -> None:
    """SplitFed v2: all streams are open, one is served to its end before the next."""
    halves = {name: half([1.0, 2.0]) for name in ("a", "b", "c")}
    with playing(pem, halves) as (streams, futures):
        for site in ("b", "c", "a"):
            for _ in range(2):
                frame = ask(streams, site)
                streams[site].send(Frame("answer", {"y": 2 * frame.arrays["x"]}))
            assert streams[site].receive() == Ended()
            assert futures[site].result(5) == [2.0, 4.0]


def test_what_a_frame_holds_arrives_bit_for_bit(pem: Certificates) -> None:
    arrays = {
        "z": torch.tensor([[float("nan"), -0.0]]),
        "z.scale": torch.tensor(0.5, dtype=torch.float16),
        "q": torch.tensor([-127, 3], dtype=torch.int8),
        "empty": torch.zeros(0, 4),
    }

    def one() -> Half:
        yield Frame("forward", arrays, {"loss": 1 / 3, "seen": 1e300})
        return []

    with playing(pem, {"nord": one()}) as (streams, _):
        frame = ask(streams)
        streams["nord"].send(Frame(""))
        assert streams["nord"].receive() == Ended()
    assert (frame.kind, frame.numbers) == ("forward", {"loss": 1 / 3, "seen": 1e300})
    assert list(frame.arrays) == list(arrays)
    for name, tensor in arrays.items():
        there = frame.arrays[name]
        assert (there.dtype, there.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(there.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


@pytest.mark.parametrize("marks", [(3_000,), (40_000, 90_000, 200_000, 201_000)])
def test_a_cut_connection_goes_on_where_it_was(pem: Certificates, marks: tuple[int, ...]) -> None:
    """Cut in the handshake and in the middle of frames; every frame is played once, in order."""
    asked: list[float] = []
    numbers = [float(n) for n in range(40)]
    with (
        ThreadPoolExecutor() as pool,
        opened(pem, "nord") as (streams, invited),
        BrokenNetwork(port(invited["nord"]), marks) as network,
    ):
        by_proxy = replace(invited["nord"], address=f"localhost:{network.port}")
        future = pool.submit(run_client_stream, half(numbers, width=2_000), by_proxy, site="nord")
        while isinstance(came := streams["nord"].receive(), Frame):
            asked.append(came.numbers["n"])
            streams["nord"].send(Frame("answer", {"y": 2 * came.arrays["x"]}))
        assert future.result(10) == [2 * n for n in numbers]
        assert network.cuts == len(marks) and network.connections > len(marks)
    assert asked == numbers


def test_a_connection_that_stays_away_fails_by_site_and_reason(pem: Certificates) -> None:
    with ThreadPoolExecutor() as pool, opened(pem, "nord", patience=0.5) as (streams, invited):
        with BrokenNetwork(port(invited["nord"])) as network:
            by_proxy = replace(invited["nord"], address=f"localhost:{network.port}")
            future = pool.submit(
                run_client_stream, half([1.0, 2.0]), by_proxy, site="nord", patience=0.5
            )
            ask(streams)
        streams["nord"].send(Frame("answer", {"y": torch.ones(1)}))
        assert re.search(r"its connection broke .* within 0.5 s", failure(streams))
        with pytest.raises(
            SiteFailedError, match=r"no connection to localhost:.* the port must be"
        ):
            future.result(10)


def test_a_site_that_stalls_mid_batch_is_named(pem: Certificates) -> None:
    done = threading.Event()

    def stalls() -> Half:
        yield Frame("ask", {"x": torch.ones(1)})
        done.wait(10)
        return []

    with playing(pem, {"nord": stalls()}, silence=0.3) as (streams, futures):
        ask(streams)
        streams["nord"].send(Frame(""))
        assert failure(streams) == "it stalled: connected, but no frame for 0.3 s"
        done.set()
        assert futures["nord"].result(5) == []


def test_a_site_that_never_comes_is_named(pem: Certificates) -> None:
    with opened(pem, "nord", deadline=0.2) as (streams, _):
        assert re.search(r"it did not open its stream within 0.2 s", failure(streams))
        assert list(streams.arriving()) == [
            ("nord", Ended("it did not open its stream within 0.2 s"))
        ]


def test_the_site_gives_up_at_the_rounds_deadline(pem: Certificates) -> None:
    with (
        playing(pem, {"nord": half([1.0])}, deadline=1.0) as (_, futures),
        pytest.raises(SiteFailedError, match="did not end within the round's 1 s"),
    ):
        futures["nord"].result(10)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (
            DataError("row 3: 'Erika' is no such label", rule="label-unknown", rows=(3,)),
            "^DataError: label-unknown, row 3; the site's own log says more$",
        ),
        (ConfigError("data.csv: ['/films/erika']"), "^ConfigError: the site's own log says more$"),
        (KeyError("/home/erika.mustermann"), "^KeyError$"),
        (
            TrainingDivergedError("round 1: no number"),
            "^TrainingDivergedError: round 1: no number$",
        ),
    ],
)
def test_a_site_that_fails_says_why_and_never_more(
    pem: Certificates, raised: Exception, told: str
) -> None:
    """An error's text can hold a path or a cell, and those a name."""

    def fails() -> Half:
        yield Frame("ask", {"x": torch.ones(1)})
        raise raised

    with playing(pem, {"nord": fails()}) as (streams, futures):
        ask(streams)
        streams["nord"].send(Frame(""))
        assert re.search(told, failure(streams))
        assert futures["nord"].exception(5) is raised


def test_when_the_coordinator_gives_up_the_sites_are_told(pem: Certificates) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        playing(pem, {"nord": half([1.0])}) as (streams, futures),
    ):
        ask(streams)
        raise ZeroDivisionError
    with pytest.raises(SiteFailedError, match="the coordinator has ended the round"):
        futures["nord"].result(5)


def test_a_frame_too_large_says_what_would_fit_at_either_side(pem: Certificates) -> None:
    halves = {"nord": half([1.0], width=10_000)}
    with playing(pem, halves, largest=20_000) as (streams, futures):
        assert re.search(r"ConfigError: a frame of 40.* than the 20000", failure(streams))
        with pytest.raises(ConfigError, match="smaller batch, a later cut, or activations: int8"):
            futures["nord"].result(5)
    with playing(pem, {"nord": half([1.0])}, largest=20_000) as (streams, _):
        ask(streams)
        with pytest.raises(SiteFailedError, match=r"nord: a frame of 40.* more than the 20000"):
            streams["nord"].send(Frame("answer", {"y": torch.zeros(10_000)}))


def call(
    invitation: Invitation,
    packets: list[bytes],
    *,
    site: str = "nord",
    secret: bytes = b"s" * 32,
    token: str | None = None,
    **hello: Any,
) -> grpc.Call:
    """Make a call by hand, as an attacker or a broken program would."""
    credentials = grpc.ssl_channel_credentials(invitation.ca.encode())
    channel = grpc.secure_channel(invitation.address, credentials)
    said = {"run": invitation.run, "round": invitation.round, "token": invitation.token}
    said |= {"site": site, "secret": secret} | ({"token": token} if token else {}) | hello

    def outbox() -> Iterator[bytes]:
        yield from packets
        time.sleep(2)

    metadata = ((HELLO, split_pb2.Hello(**said).SerializeToString()),)
    return channel.stream_stream(METHOD)(outbox(), metadata=metadata, timeout=10)


def packet(number: int = 1, acknowledged: int = 0, **changes: Any) -> bytes:
    """A packet by hand."""
    array = split_pb2.Array(name="x", dtype="float32", shape=[2, 3])
    data = changes.pop("data", bytes(24))
    for key, value in changes.items():
        if key == "shape":
            del array.shape[:]
            array.shape.extend(value)
        else:
            setattr(array, key, value)
    frame = split_pb2.Frame(kind="ask", arrays=[array])
    head = split_pb2.Head(number=number, acknowledged=acknowledged, frame=frame)
    return split_pb2.Packet(head=head, data=data).SerializeToString()


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        ([packet(number=2)], "packet 2 came where 1 was due"),
        ([packet(), packet()], "packet 1 came where 2 was due"),
        ([packet(), packet(number=2)], "packet 2 came before the last one was answered"),
        ([packet(acknowledged=5)], "packet 1 acknowledges 5; 0 was sent last"),
        ([packet()[:-9]], "bytes came that are no whole packet"),
        ([b""], "0 bytes came that are no whole packet"),
        ([b"\x0a\0\x12\0"], "packet 0 holds neither a frame nor an end"),
        ([packet(data=b"\0" * 23)], r"array 'x': float32 \[2, 3\] is 24 bytes; found 23"),
        ([packet(data=bytes(25))], "1 bytes came that are of no array in their frame"),
        ([packet(dtype="float64")], r"array 'x': float64 \[2, 3\] is 48 bytes; found 24"),
        ([packet(dtype="object")], "array 'x': type 'object' is not one of"),
        ([packet(shape=[3, 3])], r"float32 \[3, 3\] is 36 bytes"),
        ([packet(shape=[2**60, 2**60])], "found 24"),
        ([packet(shape=[0, 2**64 - 1], data=b"\0")], "a shape is larger than a tensor can be"),
    ],
)
def test_a_packet_that_breaks_a_rule_ends_the_stream_by_site_and_reason(
    pem: Certificates, packets: list[bytes], reason: str
) -> None:
    with opened(pem, "nord") as (streams, invited):
        broken = call(invited["nord"], packets)
        assert re.search(reason, failure(streams))
        with pytest.raises(grpc.RpcError, match=reason):
            next(broken)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": "guessed"}, "its token is not the one for this site, run and round"),
        ({"secret": b"short"}, "its secret is too short"),
        ({"site": "fremd"}, "no stream is expected from this site in this run and round"),
        ({"run": "another"}, "no stream is expected"),
        ({"round": 2}, "no stream is expected"),
    ],
)
def test_who_is_not_invited_is_refused_and_disturbs_nobody(
    pem: Certificates, changes: dict[str, Any], reason: str
) -> None:
    with ThreadPoolExecutor() as pool, opened(pem, "nord") as (streams, invited):
        with pytest.raises(grpc.RpcError, match=reason) as refused:
            next(call(invited["nord"], [packet()], **changes))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        future = pool.submit(run_client_stream, half([1.0, 2.0]), invited["nord"], site="nord")
        serve(streams)
        assert future.result(5) == [2.0, 4.0]


def test_the_token_of_another_site_opens_nothing(pem: Certificates) -> None:
    with opened(pem, "nord", "ost") as (_, invited):
        stolen = invited["ost"].token
        with pytest.raises(grpc.RpcError, match="not the one for this site"):
            next(call(invited["nord"], [], token=stolen))


def test_a_token_opens_one_conversation_and_no_other(pem: Certificates) -> None:
    """Who has read the token but does not know the secret cannot take the stream over."""
    with ThreadPoolExecutor() as pool, opened(pem, "nord") as (streams, invited):
        future = pool.submit(run_client_stream, half([1.0, 2.0]), invited["nord"], site="nord")
        first = ask(streams)
        with pytest.raises(grpc.RpcError, match="token was used before, by another"):
            next(call(invited["nord"], [packet(number=2, acknowledged=1)]))
        streams["nord"].send(Frame("answer", {"y": 2 * first.arrays["x"]}))
        serve(streams)
        assert future.result(5) == [2.0, 4.0]


def test_the_token_of_an_earlier_round_opens_nothing(pem: Certificates) -> None:
    with server(pem) as own:
        with own.open(["nord"], run="r", round=1, deadline=10.0) as (_, earlier):
            pass
        with (
            own.open(["nord"], run="r", round=2, deadline=10.0) as (_, invited),
            pytest.raises(grpc.RpcError, match="not the one for this site, run and round"),
        ):
            next(call(invited["nord"], [], token=earlier["nord"].token))


def test_a_certificate_of_another_authority_is_not_trusted(
    pem: Certificates, tmp_path: Path
) -> None:
    other = certificates(tmp_path).ca.read_text()
    with (
        opened(pem, "nord") as (_, invited),
        pytest.raises(SiteFailedError, match="no connection to localhost"),
    ):
        run_client_stream(
            half([1.0]), replace(invited["nord"], ca=other), site="nord", patience=0.2
        )


def test_a_port_that_is_taken_and_a_missing_file_are_told(pem: Certificates) -> None:
    with server(pem) as first:
        taken = StreamServer(
            bind=f"127.0.0.1:{first.port}", reach="localhost",
            certificate=pem.certificate, key=pem.key, ca=pem.ca,
        )  # fmt: skip
        with pytest.raises(ConfigError, match=r"nothing can listen on 127.0.0.1:.*is it taken"):
            taken.__enter__()
    with pytest.raises(ConfigError, match=r"none.pem cannot be read \(No such file"):
        server(replace(pem, certificate=pem.ca.parent / "none.pem"))


def test_an_invitation_never_prints_its_token(pem: Certificates) -> None:
    with opened(pem, "nord") as (_, invited):
        assert invited["nord"].token not in f"{invited['nord']} {invited['nord']!r}"
