"""Decoded images on the site's own disk: decoded once, then mapped into memory.

The folder is $FEDRAD_CACHE; without it a hospital's is in its `state_dir` (`kept_in`), everybody
else's is ~/.cache/fedrad. An entry is three files, `<key>.npy` with the images, `<key>.notes.npy`
with what else is known of each and `<key>.sketches.npy` with their sketches, written beside their
places and renamed: a reader finds all of an entry or nothing, and two writers of one key write the
same bytes.

An entry that is hardly older than a file it was made of is made again: a file may change twice
within one tick of a file system's clock, and then its times do not tell.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO

import numpy as np

from fedrad.data.checks.sketch import SIDE, VIEWS
from fedrad.data.reading.decode import Decoded
from fedrad.errors import DataError, MissingError

__all__ = ["Kept", "Misfits", "decoded", "folder", "kept_in", "key_of"]

_AT_ONCE = 256

_TICK_NS = 2_000_000_000
"""The coarsest step of a file system's times in use (FAT's), in nanoseconds."""

Decode = Callable[[int], Decoded]


@dataclass(frozen=True, eq=False)
class Kept:
    """Decoded images, and what is known of each.

    Attributes:
        images: uint8 [n, c, h, w], a read-only memmap.
        marks: uint64 [n], the fingerprints of their files' pixels.
        highest: int64 [n], the highest value of a 16-bit file; 0 for others.
        sketches: int8 [n, 3, 32, 32].
    """

    images: np.ndarray
    marks: np.ndarray
    highest: np.ndarray
    sketches: np.ndarray


class Misfits(Exception):
    """Images that cannot be decoded: rows from 0, and why."""

    def __init__(self, wrong: Sequence[tuple[int, DataError]]) -> None:
        super().__init__(f"{len(wrong)} images cannot be decoded")
        self.wrong = tuple(wrong)


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
    key: str,
    shape: tuple[int, int, int, int],
    decode: Decode,
    *,
    changed_ns: int = 0,
    threads: int | None = None,
) -> Kept:
    """Return images and what is known of them, decoding only what is not kept yet.

    Args:
        key: names all that the images depend on (see `key_of`).
        shape: n, c, h, w.
        decode: row -> an image uint8 [c, h, w] and what is known of it.
        changed_ns: when the last of the files changed, by its own file system's clock.
        threads: that decode at once; by default one a core, eight at most.

    Raises:
        MissingError: the folder cannot be written, or the disk is full.
        Misfits: images that cannot be decoded, by their rows.
    """
    files = _files(key)
    found = _kept(files, shape, changed_ns)
    if found is not None:
        return found
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        known, sketches = _write(files[0], shape, decode, threads or min(8, os.cpu_count() or 1))
        _whole(files[2], lambda file: np.save(file, sketches))
        _whole(files[1], lambda file: np.save(file, known))
    except OSError as error:
        raise MissingError(
            f"decoded images cannot be kept ({error.strerror}): set FEDRAD_CACHE to a folder "
            f"with {np.prod(shape) / 1e6:.0f} MB to spare"
        ) from None
    return Kept(np.load(files[0], mmap_mode="r"), known[0], known[1].astype(np.int64), sketches)


def _files(key: str) -> tuple[Path, Path, Path]:
    """Return the places of an entry's images, notes and sketches."""
    images, notes, sketches = (
        folder() / f"{key}{kind}.npy" for kind in ("", ".notes", ".sketches")
    )
    return images, notes, sketches


def _kept(files: tuple[Path, Path, Path], shape: tuple[int, ...], changed_ns: int) -> Kept | None:
    """Return an entry, or None when it is not there, not whole, or too new to be trusted."""
    images, notes, sketched = files
    try:
        if images.stat().st_mtime_ns - changed_ns < _TICK_NS:
            return None
        x, known = np.load(images, mmap_mode="r"), np.load(notes)
        sketches = np.load(sketched, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    whole = x.shape == shape and known.shape == (2, shape[0]) and len(sketches) == shape[0]
    return Kept(x, known[0], known[1].astype(np.int64), sketches) if whole else None


def _write(
    path: Path, shape: tuple[int, ...], decode: Decode, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decode into a .npy file and return what else is known of the images.

    Written, not mapped: a full disk is an error here, and a dead process under a map.

    Returns:
        Fingerprints and highest values, uint64 [2, n], and sketches, int8 [n, 3, 32, 32].

    Raises:
        Misfits: images that cannot be decoded.
    """
    known = np.zeros((2, shape[0]), np.uint64)
    sketches = np.zeros((shape[0], VIEWS, SIDE, SIDE), np.int8)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    wrong: list[tuple[int, DataError]] = []

    def tried(row: int) -> Decoded | DataError:
        try:
            return decode(row)
        except DataError as error:
            return error

    def fill(file: IO[bytes]) -> None:
        np.lib.format.write_array_header_1_0(file, header)
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, shape[0], _AT_ONCE):
                rows = range(start, min(start + _AT_ONCE, shape[0]))
                for row, one in zip(rows, pool.map(tried, rows), strict=True):
                    if isinstance(one, DataError):
                        wrong.append((row, one))
                        continue
                    assert one.image.shape == shape[1:] and one.image.dtype == np.uint8
                    file.write(one.image.tobytes())
                    known[:, row], sketches[row] = (one.mark, one.highest), one.sketch
        if wrong:
            raise Misfits(wrong)

    _whole(path, fill)
    return known, sketches


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
