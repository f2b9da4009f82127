"""One image file in, one uint8 array of the task's size out.

Read are PNG (1, 8 and 16 bits, grey, palette or colour) and JPEG. Transparency is ignored.
"""

import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fedrad.data.fingerprint import fingerprint
from fedrad.data.sketch import sketch
from fedrad.errors import DataError

__all__ = ["Fit", "decode", "grey_or_colour", "resized"]

Fit = Literal["pad", "squeeze", "crop"]

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode(
    path: Path, size: tuple[int, int, int], *, fit: Fit, bits: int, where: str
) -> tuple[np.ndarray, int, np.ndarray]:
    """Return an image at the task's size, the fingerprint of its full-size pixels, and its sketch.

    Args:
        path: of the file.
        size: c, h, w; c is 1 (colour becomes grey) or 3 (grey becomes colour).
        fit: see `resized`.
        bits: that a 16-bit file's values use; 2**bits - 1 becomes 255.
        where: the image's place, for messages ("labels.csv row 3").

    Returns:
        uint8 [c, h, w], 64 bits, and int8 [3, 32, 32].

    Raises:
        DataError: the file is no whole PNG or JPEG, or has values above 2**bits - 1.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            file.load()
            wide = file.mode.startswith("I")
            pixels = np.asarray(file) if wide else grey_or_colour(file, size[0])
    except _BROKEN as error:
        reason = type(error).__name__
        raise DataError(f"{where}: the image is no whole PNG or JPEG file ({reason})") from None
    whole, mark = pixels, fingerprint(pixels)
    if wide:
        pixels = _narrow(pixels, bits, where)
    if pixels.ndim == 2 and size[0] == 3:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    seen = resized(pixels, size[1:], fit=fit)
    return seen, mark, sketch(whole, seen)


def grey_or_colour(image: Image.Image, channels: int) -> np.ndarray:
    """Return uint8 [h, w] for one channel, [h, w, 3] for three (ITU-R 601-2 luma for grey)."""
    return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def _narrow(pixels: np.ndarray, bits: int, where: str) -> np.ndarray:
    """Return uint8 from 16-bit pixels."""
    top = 2**bits - 1
    highest = int(pixels.max(initial=0))
    if highest > top:
        raise DataError(f"{where}: a pixel is {highest}, above {top}; bits: {bits} is too few")
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
