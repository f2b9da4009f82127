"""What split learning's stream costs on top of a bare gRPC stream that moves the same bytes.

    python experiments/benchmarks/stream.py

A site, in a process of its own, sends a tensor and waits for one of the same size, again and again,
over loopback with TLS: by fedrad's stream, and by a bare bidirectional gRPC stream whose messages
are as many bytes made beforehand. Tokens, numbers, tensors to bytes and back are fedrad's cost.

Runs alternate (bare, fedrad, bare, fedrad, ...), and the ratio is taken pair by pair.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

import grpc
import torch

from fedrad.algorithms.base import Frame
from fedrad.deployment.streams.client import run_client_stream
from fedrad.deployment.streams.invitation import Invitation
from fedrad.deployment.streams.server import StreamServer

SIZES = {"100 kB": 100_000, "1 MB": 1_000_000, "13 MB": 12_845_056}
WARM_UP = 5
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def trips(count: int, step: Callable[[], object]) -> list[float]:
    """Seconds of each round trip after the first few."""
    seconds = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


def written(size: int) -> bytes:
    """Bytes as a tensor has: `bytes(size)` is one page of zeros, over and over, read from cache."""
    return b"\1" * size


def bare_site(address: str, ca: bytes, size: int, count: int, told: Connection) -> None:
    """Round trips of a bare stream."""
    message = written(size)
    outbox: SimpleQueue[bytes | None] = SimpleQueue()
    credentials = grpc.ssl_channel_credentials(ca)
    with grpc.secure_channel(address, credentials, options=OPTIONS) as channel:
        call = channel.stream_stream("/bench.Bare/Play")(iter(outbox.get, None))

        def step() -> None:
            outbox.put(message)
            next(call)

        told.send(trips(count, step))
        outbox.put(None)


def bare(pem: Path, size: int, count: int) -> list[float]:
    """A bare stream: the server answers each message with one made beforehand."""
    message = written(size)

    def serve(requests: Iterator[bytes], _: object) -> Iterator[bytes]:
        for _request in requests:
            yield message

    handler = grpc.stream_stream_rpc_method_handler(serve)
    service = grpc.method_handlers_generic_handler("bench.Bare", {"Play": handler})
    server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
    server.add_generic_rpc_handlers((service,))
    pair = [((pem / "server.key").read_bytes(), (pem / "server.pem").read_bytes())]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    server.start()
    ca = (pem / "ca.crt").read_bytes()
    found = in_a_process(bare_site, f"localhost:{port}", ca, size, count)
    server.stop(None).wait()
    return found()


def fedrad_site(invitation: Invitation, size: int, count: int, told: Connection) -> None:
    """Round trips of fedrad's stream."""

    def half() -> Generator[Frame, Frame, list[float]]:
        z, seconds = torch.zeros(size // 4), []
        for _ in range(WARM_UP + count):
            start = time.perf_counter()
            yield Frame("forward", {"z": z})
            seconds.append(time.perf_counter() - start)
        return seconds[WARM_UP:]

    told.send(run_client_stream(half(), invitation, site="nord"))


def fedrad(pem: Path, size: int, count: int) -> list[float]:
    """The stream of fedrad: the server answers each tensor with one of the same size."""
    g = torch.zeros(size // 4)
    with (
        StreamServer(
            bind="127.0.0.1:0",
            reach="localhost",
            certificate=pem / "server.pem",
            key=pem / "server.key",
            ca=pem / "ca.crt",
        ) as server,
        server.open(["nord"], run="bench", round=1, deadline=600.0) as (streams, invitations),
    ):
        found = in_a_process(fedrad_site, invitations["nord"], size, count, wait=False)
        while isinstance(streams["nord"].receive(), Frame):
            streams["nord"].send(Frame("backward", {"g": g}))
        return found()


def in_a_process(
    target: Callable[..., None], *arguments: object, wait: bool = True
) -> Callable[[], list[float]]:
    """Start a site's process; what is returned waits for its answer."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, theirs))
    process.start()

    def answer() -> list[float]:
        found: list[float] = ours.recv()
        process.join()
        return found

    if not wait:
        return answer
    found = answer()
    return lambda: found


def measure(name: str, pem: Path, pairs: int, seconds: float) -> dict[str, float | str]:
    """Return medians of one size."""
    size = SIZES[name]
    count = max(20, int(seconds * 200_000_000 / size))
    ratios, ours, theirs = [], [], []
    for _ in range(pairs):
        plain, own = bare(pem, size, count), fedrad(pem, size, count)
        ratios.append(sum(plain) / sum(own))
        ours.append(statistics.median(own))
        theirs.append(statistics.median(plain))
    return {
        "size": name,
        "throughput_of_bare": statistics.median(ratios),
        "fedrad_median_ms": 1000 * statistics.median(ours),
        "bare_median_ms": 1000 * statistics.median(theirs),
        "fedrad_mb_per_s_each_way": size / 1e6 / statistics.median(ours),
    }


def write_certificates(folder: Path) -> None:
    """A certificate authority and a server's certificate, for this run only."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "federation"))
    from certificates import certificates

    certificates(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="about, of each run")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        write_certificates(Path(folder))
        for name in SIZES:
            one = measure(name, Path(folder), arguments.pairs, arguments.seconds)
            found.append(one)
            print(
                f"{one['size']}: {one['throughput_of_bare']:.2f} of a bare stream's throughput, "
                f"{one['fedrad_mb_per_s_each_way']:.0f} MB/s each way; median round trip "
                f"{one['fedrad_median_ms']:.2f} ms (bare {one['bare_median_ms']:.2f})",
                flush=True,
            )
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
