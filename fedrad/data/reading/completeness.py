"""Files of images that a decoder reads without a word although a part of them is lost.

A JPEG that was cut and closed again, or whose lost part was filled with zeros, decodes to a picture
with a grey lower half. libjpeg warns, and Pillow does not pass the warning on. A PNG keeps a check
sum of each of its parts, which Pillow does not look at for pixels.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["missing_part"]

_MARK = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_OTHER = b"\x39\x5c\xa7\x63\xd2\x1e\xb5\x86"
"""Bytes that are no picture's end; none is ff, which would be a mark."""
_EDGE = 8
_ZEROS = bytes(32)
_CHECKED = (b"IHDR", b"PLTE", b"IDAT")


@dataclass(frozen=True)
class _Scan:
    """What a JPEG's marks say: where its last scan lies, and how it is built."""

    start: int
    end: int
    scans: int
    progressive: bool
    restarts: int
    """Marks that the only scan should hold; 0 where it holds none."""


def missing_part(raw: bytes, pixels: np.ndarray) -> str | None:
    """Return in words what is lost of an image's file, or None.

    Args:
        raw: the whole file, which a decoder has taken for a PNG or JPEG.
        pixels: [h, w] or [h, w, c] as decoded.
    """
    if raw.startswith(b"\x89PNG"):
        return _png_loss(raw)
    scan = _scan_of(raw)
    if scan is None:
        return None
    if scan.restarts and len(_RESTART.findall(raw, scan.start, scan.end)) < scan.restarts:
        return "parts of it are missing"
    # A flat edge is what a lost part looks like. Most films have none, and are decoded once.
    edge = pixels[-_EDGE:].reshape(-1, *pixels.shape[2:])
    flat = bool((edge == edge[0]).all())
    if flat or scan.progressive or _ZEROS in raw[scan.start : scan.end]:
        return _jpeg_loss(raw, scan)
    return None


def _jpeg_loss(raw: bytes, scan: _Scan) -> str | None:
    """Say whether the last scan holds too little or too much for the picture that it makes.

    Bytes after a whole scan change nothing; where a part is lost, they are read in its place. And
    the last bytes of a whole scan are the picture's last pixels; fillers after it are nobody's.
    """
    before = _pixels(raw)
    if not _same(before, _pixels(raw[: scan.end] + 32 * _OTHER + raw[scan.end :])):
        return "its lower part is missing"
    last = max(scan.start, scan.end - len(_OTHER))
    spoilt = raw[:last] + _OTHER[: scan.end - last] + raw[scan.end :]
    if _ZEROS in raw[scan.start : scan.end] and _same(before, _pixels(spoilt)):
        return "its lower part is filled with zeros"
    return None


def _pixels(raw: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(raw), formats=("JPEG",)) as image:
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError):
        return None


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and np.array_equal(one, other)


def _scan_of(raw: bytes) -> _Scan | None:
    """Return where a JPEG's last scan lies, or None where its marks say nothing that is known."""
    at, scans, interval = 2, 0, 0
    found: _Scan | None = None
    frame: tuple[int, ...] = ()
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            return found
        mark = raw[at + 1]
        if mark == 0xFF:  # a filler
            at += 1
            continue
        if mark == 0xD9:
            return found
        length = int.from_bytes(raw[at + 2 : at + 4])
        body = raw[at + 4 : at + 2 + length]
        if mark in (0xC0, 0xC1, 0xC2):
            frame = (mark, *_frame(body))
        elif mark == 0xDD:
            interval = int.from_bytes(body[:2])
        at += 2 + length
        if mark == 0xDA:
            end = _MARK.search(raw, at)
            scans += 1
            if end is None or not frame:
                return None
            restarts = -(-_units(frame, body[0]) // interval) - 1 if interval else 0
            progressive = frame[0] == 0xC2
            found = _Scan(
                at, end.start(), scans, progressive, 0 if progressive or scans > 1 else restarts
            )
            at = end.start()
    return found


def _frame(body: bytes) -> tuple[int, ...]:
    """Return height, width, and each component's samples across and down."""
    height, width, number = struct.unpack(">HHB", body[1:6])
    samples = [body[7 + 3 * k] for k in range(number)]
    return height, width, *(half for s in samples for half in (s >> 4, s & 15))


def _units(frame: tuple[int, ...], components: int) -> int:
    """Return the units that a scan of all components counts between its restart marks."""
    _, height, width, *samples = frame
    across, down = max(samples[::2]), max(samples[1::2])
    if components == 1:
        across = down = 1
    return -(-width // (8 * across)) * -(-height // (8 * down))


def _png_loss(raw: bytes) -> str | None:
    at = 8
    while at + 12 <= len(raw):
        length = int.from_bytes(raw[at : at + 4])
        kind, body = raw[at + 4 : at + 8], raw[at + 4 : at + 8 + length]
        told = raw[at + 8 + length : at + 12 + length]
        if kind in _CHECKED and zlib.crc32(body).to_bytes(4) != told:
            return "a part of it was changed (its check sum differs)"
        at += 12 + length
    return None
