"""The relay by which a long line is made where the kernel cannot."""

import socket
import threading
import time

from slow_network import SlowNetwork


def echo(listening: socket.socket) -> None:
    """Send one connection's bytes back."""
    connection, _ = listening.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def test_bytes_come_back_whole_and_later_by_twice_the_delay() -> None:
    """And a long message is not held piece after piece: that would lower the rate, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=echo, args=(listening,), daemon=True).start()
        with SlowNetwork(listening.getsockname()[1], delay=0.1) as network:
            line = socket.create_connection(("127.0.0.1", network.port))
            began = time.monotonic()
            line.sendall(b"short")
            assert line.recv(5) == b"short"
            assert time.monotonic() - began >= 0.2
            sent, found = bytes(range(256)) * 8192, b""
            threading.Thread(target=line.sendall, args=(sent,)).start()
            began = time.monotonic()
            while len(found) < len(sent):
                found += line.recv(1 << 16)
            assert found == sent and time.monotonic() - began >= 0.2
            # Pieces that were held one after the other would never be on the line together.
            assert network.most_held > 2
            line.close()
