"""What coordinator and hospital processes do alike: hold a lock, hear signals, end a child."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrad.errors import ConfigError

__all__ = ["is_locked", "locked", "stop", "stop_signals"]


@contextmanager
def locked(path: Path, problem: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends.

    Raises:
        ConfigError: another process holds it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise ConfigError(f"{problem} (process {who})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Return whether a process holds a lock."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def stop_signals() -> Callable[[], bool]:
    """Return whether this process has been asked to stop."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _frame: asked.append(signum))
    return lambda: bool(asked)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child, by force where it does not go by itself."""
    child.terminate()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
