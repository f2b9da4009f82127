"""A TCP proxy on this machine whose connections can be cut or stopped."""

import contextlib
import socket
import threading


class BrokenNetwork:
    """Passes bytes on to a port until it is told otherwise.

    Args:
        port: where the bytes go to; may be set later, as `target`.
        cut_after: bytes towards the port, counted over all connections, at which all connections
            are reset, one mark after the other.
    """

    def __init__(self, port: int = 0, cut_after: tuple[int, ...] = ()) -> None:
        self.target, self._marks = port, list(cut_after)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        self.passed = self.cuts = self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "BrokenNetwork":
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Reset all connections, and take no more."""
        # close() alone would not wake the thread that accepts.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        self.cuts += 1
        connections, self._open = self._open, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def stop(self) -> None:
        """Pass nothing on, and let all connections stand."""
        self._flows.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                self.connections += 1
                self._open += [near, far]
                for pair in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                self._flows.wait()
                if counted:
                    self.passed += len(data)
                    if self._marks and self.passed > self._marks[0]:
                        self._marks.pop(0)
                        self.cut()
                        return
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
