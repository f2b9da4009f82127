"""A TCP relay on this machine that passes every byte on later: a long line, in user space."""

import asyncio
import contextlib
import threading

_CHUNK = 1 << 16


class SlowNetwork:
    """Holds every chunk of bytes for a while on its way to a port, and as long on its way back.

    Chunks that follow each other overlap, as on a long line: it delays, and leaves the rate alone.

    Args:
        target: port of this machine where the bytes go to.
        delay: seconds each way; may be set later.
    """

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self._target, self.delay = target, delay
        self._loop = asyncio.new_event_loop()
        listening = asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(listening)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.passed = 0
        self.most_held = 0
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "SlowNetwork":
        """Begin to pass bytes on."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._server.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _accept(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        far, to_far = await asyncio.open_connection("127.0.0.1", self._target)
        # Cancelled at the end, asyncio would report it as an error.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._pass(near, to_far), self._pass(far, to_near))
        to_near.close()
        to_far.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._send(held, sink))
        data = b"-"
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            held.put_nowait((self._loop.time() + self.delay, data))
            self.most_held = max(self.most_held, held.qsize())
        await sending

    async def _send(self, held: asyncio.Queue, sink: asyncio.StreamWriter) -> None:
        """Write each chunk when its time has come; an empty one is the end."""
        with contextlib.suppress(OSError):
            while True:
                due, data = await held.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    sink.write_eof()
                    return
                self.passed += len(data)
                sink.write(data)
                await sink.drain()
