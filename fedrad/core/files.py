"""Files written whole or not at all, for processes that need nothing else of the house.

A file is written beside its place, flushed to the disk and renamed over it, so a reader finds the
old file or the new one, also after a crash or on a full disk.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedrad.errors import RunError

__all__ = ["replacing", "write_atomic"]


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file is untouched.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(Path(folder) / "a.txt", b"all of it")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'all of it'
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a file to write, which takes the place of another once all of it is on the disk.

    Raises:
        RunError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        # What failed above is what the reader must know, not that nothing could be cleared away.
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise RunError(
            f"{path.name} could not be written ({error.strerror}); the old one stands"
        ) from error
