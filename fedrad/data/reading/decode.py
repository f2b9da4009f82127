"""One image file in, one uint8 array of the task's size out.

Read are PNG (1, 8 and 16 bits, grey, palette or colour) and JPEG, turned upright as their EXIF
says. Transparency is ignored.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from fedrad.data.checks.sketch import sketch
from fedrad.data.fingerprint import image_fingerprint
from fedrad.data.reading.completeness import missing_part
from fedrad.errors import DataError

__all__ = ["Decoded", "Fit", "decode_image", "grey_or_colour", "resized"]

Fit = Literal["pad", "squeeze", "crop"]

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

_OTHERS: Mapping[bytes, str] = {
    b"II*\x00": "a TIFF",
    b"MM\x00*": "a TIFF",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"PK\x03\x04": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer, and not the image it stands for",
    b"<": "a page of text",
}
_ORIENTATION = 0x0112
_UPRIGHT: Mapping[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}
"""EXIF 2.32, tag 274: what turns an image upright; 1 is upright as it is stored."""
_SPLIT: Mapping[str, tuple[str, str, str]] = {
    "RGB;16B": ("RGB", "RGB;16B", "RGB;16L"),
    "RGBA;16B": ("RGBA", "RGBA;16B", "RGBA;16L"),
}
"""A 16-bit PNG's kind -> Pillow's mode, and the kinds by which its upper and lower bytes are read.

Pillow keeps the upper bytes of colours alone. "16L" takes the byte that is the lower one here.
"""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image at the task's size, and what is known of its file.

    Attributes:
        image: uint8 [c, h, w].
        mark: the fingerprint of the full-size pixels, upright.
        sketch: int8 [3, 32, 32], by which near copies are known (see `sketch`).
        highest: the highest value of a 16-bit file; 0 for others.
    """

    image: np.ndarray
    mark: int
    sketch: np.ndarray
    highest: int = 0


def decode_image(path: Path, size: tuple[int, int, int], *, fit: Fit, bits: int) -> Decoded:
    """Return an image at the task's size, upright.

    Args:
        path: of the file.
        size: c, h, w; c is 1 (colour becomes grey) or 3 (grey becomes colour).
        fit: see `resized`.
        bits: that a 16-bit file's values use, grey or colour; 2**bits - 1 becomes 255.

    Raises:
        DataError: the file is no whole PNG or JPEG, or has values above 2**bits - 1; the caller
            knows the row.
    """
    raw, pixels, orientation = _read(path, size[0])
    lost = missing_part(raw, pixels)
    if lost:
        raise _refused(f"the image is no whole PNG or JPEG file ({lost})")
    if orientation in _UPRIGHT:
        pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels))
    highest = 0
    whole, mark = pixels, image_fingerprint(pixels)
    if pixels.dtype != np.uint8:
        highest = int(pixels.max(initial=0))
        pixels = _narrow(pixels, bits, highest)
    if pixels.ndim == 3 and size[0] == 1:
        # Of 16-bit colours; 8-bit ones are grey by now.
        pixels = grey_or_colour(Image.fromarray(pixels), 1)
    if pixels.ndim == 2 and size[0] == 3:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    seen = resized(pixels, size[1:], fit=fit)
    return Decoded(seen, mark, sketch(whole, seen), highest)


def _refused(text: str) -> DataError:
    return DataError(text, rule="image-not-whole")


def _read(path: Path, channels: int) -> tuple[bytes, np.ndarray, int]:
    """Return a file's bytes, its pixels as stored, and its EXIF orientation.

    Returns:
        pixels: uint8 [h, w] for one channel, [h, w, 3] for three; or, of 16 bits, uint16 or int32
            [h, w] or [h, w, 3].
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _refused(f"the image cannot be read ({error.strerror})") from None
    try:
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as file:
            assert isinstance(file, ImageFile)
            kind = _kind(file)
            file.load()
            orientation = file.getexif().get(_ORIENTATION, 1)
            if kind in _SPLIT or kind == "LA;16B":
                return raw, _wide(raw, kind), orientation
            wide = file.mode.startswith("I")
            pixels = np.asarray(file) if wide else grey_or_colour(file, channels)
            return raw, pixels, orientation
    except Image.DecompressionBombError as error:
        sizes = re.findall(r"\d+", str(error))
        raise _refused(
            f"the image has {int(sizes[0]):,} pixels, more than {int(sizes[1]):,}, which no film "
            "has; it may be whole: make it smaller, such as by mogrify -resize 4096x4096"
        ) from None
    except UnidentifiedImageError:
        raise _refused(f"the image is no whole PNG or JPEG file (it {_instead(raw)})") from None
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise _refused(f"the image is no whole PNG or JPEG file ({reason})") from None


def _kind(image: ImageFile) -> str:
    """Return how Pillow names the file's pixels, such as "RGB;16B"; "" where it says nothing."""
    args = image.tile[0].args if image.tile else ""
    return args if isinstance(args, str) else ""


def _wide(raw: bytes, kind: str) -> np.ndarray:
    """Return uint16 [h, w] of a 16-bit PNG in grey with alpha, [h, w, 3] of one in colour."""
    if kind == "LA;16B":
        # Four bytes a pixel, read as four channels: grey's two bytes, then alpha's.
        four = _as(raw, "RGBA", "RGBA").astype(np.uint16)
        grey: np.ndarray = four[..., 0] << 8 | four[..., 1]
        return grey
    mode, upper, lower = _SPLIT[kind]
    high, low = (_as(raw, mode, kind)[..., :3].astype(np.uint16) for kind in (upper, lower))
    colours: np.ndarray = high << 8 | low
    return colours


def _as(raw: bytes, mode: str, kind: str) -> np.ndarray:
    """Return a PNG's pixels, taken for another kind of as many bytes."""
    with Image.open(io.BytesIO(raw), formats=("PNG",)) as file:
        file._mode = mode
        file.tile = [file.tile[0]._replace(args=kind)]
        file.load()
        return np.asarray(file)


def _instead(raw: bytes) -> str:
    """Return what a file is that is neither PNG nor JPEG, as far as its first bytes tell."""
    if not raw:
        return "is empty"
    if raw[128:132] == b"DICM":
        return "is DICOM; convert it first"
    known = next((what for start, what in _OTHERS.items() if raw.startswith(start)), None)
    return f"is {known}" if known else "begins like neither"


def grey_or_colour(image: Image.Image, channels: int) -> np.ndarray:
    """Return uint8 [h, w] for one channel, [h, w, 3] for three (ITU-R 601-2 luma for grey)."""
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _narrow(pixels: np.ndarray, bits: int, highest: int) -> np.ndarray:
    """Return uint8 from 16-bit pixels."""
    top = 2**bits - 1
    if highest > top:
        raise DataError(
            f"a pixel is {highest}, above {top}; bits: {bits} is too few", rule="bits-too-few"
        )
    eighth: np.ndarray = (pixels.astype(np.float32) * (255 / top)).round().astype(np.uint8)
    return eighth


def resized(pixels: np.ndarray, size: tuple[int, int], *, fit: Fit) -> np.ndarray:
    """Return an image at a size.

    Args:
        pixels: uint8 [h, w] or [h, w, 3].
        size: h, w wanted.
        fit: pad keeps the aspect ratio and adds black, crop keeps it and cuts the longer sides,
            squeeze loses it.

    Returns:
        uint8 [1 or 3, h, w]; bilinear, with antialiasing where it gets smaller.

    >>> tall = np.full((4, 2), 200, np.uint8)
    >>> resized(tall, (4, 4), fit="pad")[0, 0].tolist()
    [0, 200, 200, 0]
    """
    height, width = pixels.shape[:2]
    ratios = (size[0] / height, size[1] / width)
    if fit == "squeeze":
        inner = size
    else:
        ratio = min(ratios) if fit == "pad" else max(ratios)
        inner = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    if inner != (height, width):
        small = Image.fromarray(pixels).resize(inner[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(small)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(_centred(pixels, size).transpose(2, 0, 1))


def _centred(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return [h, w, c] cut or padded with black to a size, the same on both sides."""
    for axis, wanted in enumerate(size):
        spare = wanted - pixels.shape[axis]
        if spare < 0:
            pixels = np.take(pixels, np.arange(wanted) + -spare // 2, axis=axis)
        elif spare > 0:
            margins = [(0, 0)] * pixels.ndim
            margins[axis] = (spare // 2, spare - spare // 2)
            pixels = np.pad(pixels, margins)
    return pixels
