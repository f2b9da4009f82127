"""Decoded images on the site's own disk: decoded once, then mapped into memory.

The folder is $FEDRAD_CACHE; without it a hospital's is in its `state_dir` (`kept_in`), everybody
else's is ~/.cache/fedrad. An entry is three files, `<key>.npy` with images,
`<key>.pixels.npy` with their fingerprints and `<key>.sketches.npy` with their sketches, written
beside their places and renamed: a reader finds all of an entry or nothing, and two writers of one
key write the same bytes.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np

from fedrad.data.sketch import SIDE, VIEWS
from fedrad.errors import MissingError

__all__ = ["decoded", "folder", "kept_in", "key_of"]

_AT_ONCE = 256

Decode = Callable[[int], tuple[np.ndarray, int, np.ndarray]]


_KEPT_IN: ContextVar[Path | None] = ContextVar("kept_in", default=None)


@contextmanager
def kept_in(place: Path | None) -> Iterator[None]:
    """Keep what is decoded inside in a folder, unless $FEDRAD_CACHE names another.

    A service's home may be read only, or not there at all.

    >>> with kept_in(Path("/srv/nord/state/cache")):
    ...     "FEDRAD_CACHE" in os.environ or str(folder()) == "/srv/nord/state/cache"
    True
    """
    before = _KEPT_IN.set(place)
    try:
        yield
    finally:
        _KEPT_IN.reset(before)


def folder() -> Path:
    """Return the folder of decoded images: $FEDRAD_CACHE, that of `kept_in`, or in the home."""
    named, own = os.environ.get("FEDRAD_CACHE"), _KEPT_IN.get()
    return Path(named) if named else own or Path.home() / ".cache" / "fedrad"


def key_of(parts: Iterable[str]) -> str:
    """Return the name under which what the parts describe is kept.

    >>> key_of(["a", "b"]) == key_of(["ab"])
    False
    """
    digest = blake2b(digest_size=16)
    for part in parts:
        # The length first: "a", "b" must not be "ab".
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def decoded(
    key: str, shape: tuple[int, int, int, int], decode: Decode, *, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, their fingerprints and their sketches, decoding only what is not kept yet.

    Args:
        key: names all that the images depend on (see `key_of`).
        shape: n, c, h, w.
        decode: row -> uint8 [c, h, w], fingerprint and sketch of the image in its source.
        threads: that decode at once; by default one a core, eight at most.

    Returns:
        uint8 [n, c, h, w], a read-only memmap, uint64 [n], and int8 [n, 3, 32, 32], a memmap.

    Raises:
        MissingError: the folder cannot be written, or the disk is full.
    """
    images, pixels, sketched = (
        folder() / f"{key}{kind}.npy" for kind in ("", ".pixels", ".sketches")
    )
    found = _kept(images, pixels, sketched, shape)
    if found is not None:
        return found
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        prints, sketches = _write(images, shape, decode, threads or min(8, os.cpu_count() or 1))
        _whole(sketched, lambda file: np.save(file, sketches))
        _whole(pixels, lambda file: np.save(file, prints))
    except OSError as error:
        raise MissingError(
            f"decoded images cannot be kept ({error.strerror}): set FEDRAD_CACHE to a folder "
            f"with {np.prod(shape) / 1e6:.0f} MB to spare"
        ) from None
    return np.load(images, mmap_mode="r"), prints, sketches


def _kept(
    images: Path, pixels: Path, sketched: Path, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return an entry, or None when it is not there or not whole."""
    try:
        x, prints = np.load(images, mmap_mode="r"), np.load(pixels)
        sketches = np.load(sketched, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    whole = x.shape == shape and len(prints) == len(sketches) == shape[0]
    return (x, prints, sketches) if whole else None


def _write(
    path: Path, shape: tuple[int, ...], decode: Decode, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decode into a .npy file and return the fingerprints and sketches.

    Written, not mapped: a full disk is an error here, and a dead process under a map.
    """
    prints = np.zeros(shape[0], np.uint64)
    sketches = np.zeros((shape[0], VIEWS, SIDE, SIDE), np.int8)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}

    def fill(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, shape[0], _AT_ONCE):
                rows = range(start, min(start + _AT_ONCE, shape[0]))
                for row, (image, mark, small) in zip(rows, pool.map(decode, rows), strict=True):
                    assert image.shape == shape[1:] and image.dtype == np.uint8
                    file.write(image.tobytes())
                    prints[row], sketches[row] = mark, small

    _whole(path, fill)
    return prints, sketches


def _whole(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Let `fill` write a file beside the path, and rename it there when it is whole."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
