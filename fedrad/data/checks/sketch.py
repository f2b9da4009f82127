"""A small picture of an image, by which a copy is known that is not the same file any more.

Three views of an image: as it is in its file, there without its border, and as the network sees it.
What stays the same when a film is saved as JPEG, made smaller, written with other bits, framed or
turned is in its sketch; `lookalikes` compares them.
"""

import numpy as np

__all__ = ["SIDE", "VIEWS", "sketch", "sketches"]

SIDE = 32
VIEWS = 3
_BORDER = 0.1
"""A line whose grey levels differ by less, as a share of what is left, is border."""
_BLANK = 2
"""An image whose grey levels differ by less has nothing that could be compared."""
_AT_ONCE = 2**20
"""Pixels; more do not fit into a core's cache."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

PixelBox = tuple[int, int, int, int]


def sketch(pixels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return an image's sketch.

    Args:
        pixels: [h, w] grey or [h, w, 3] colour, of any number type, as in the file.
        seen: [c, h, w], the same image at the task's size.

    Returns:
        int8 [3, 32, 32]: the whole image, the image without its border, and the image at the
        task's size; each has the mean 0 and the largest value 127. Zeros for a blank image.

    >>> film = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    >>> framed = np.pad(film, 9, constant_values=4000)
    >>> one, other = sketch(film, film[None])[1], sketch(framed, film[None])[1]
    >>> bool(np.abs(one.astype(int) - other).max() <= 1)  # rounding
    True
    """
    one: np.ndarray = sketches(pixels[None], seen[None])[0]
    return one


def sketches(images: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return int8 [n, 3, 32, 32], the sketches of images of one size; see `sketch`.

    Args:
        images: [n, h, w] or [n, h, w, 3], as in the file.
        seen: [n, c, h, w], at the task's size.
    """
    found = np.zeros((len(images), VIEWS, SIDE, SIDE), np.int8)
    step = max(1, _AT_ONCE // int(np.prod(images.shape[1:3])))
    for start in range(0, len(images), step):
        rows = slice(start, start + step)
        grey = _grey(images[rows])
        found[rows, :2] = _levelled(_shrunk(grey, _all_of(grey)))[:, None]
        framed = np.flatnonzero(_may_be_framed(grey))
        if len(framed):
            inner = np.array([_without_border(one) for one in grey[framed]])
            found[start + framed, 1] = _levelled(_shrunk(grey[framed], inner))
        if seen.shape[2:] == images.shape[1:3]:
            found[rows, 2] = found[rows, 0]
        else:
            small = _grey(np.moveaxis(np.asarray(seen[rows]), 1, -1))
            found[rows, 2] = _levelled(_shrunk(small, _all_of(small)))
    return found


def _grey(images: np.ndarray) -> np.ndarray:
    """Return float32 [n, h, w] of [n, h, w], [n, h, w, 1] or [n, h, w, 3]."""
    values = np.asarray(images).astype(np.float32)
    if values.ndim == 3:
        return values
    grey: np.ndarray = values @ _LUMA if values.shape[3] == 3 else values[..., 0]
    return grey


def _all_of(grey: np.ndarray) -> np.ndarray:
    """Return the box that is the whole image, once for all."""
    return np.array([[0, grey.shape[1], 0, grey.shape[2]]])


def _may_be_framed(grey: np.ndarray) -> np.ndarray:
    """Return bool [n]: one of the four outermost lines is plain."""
    limit = _BORDER * np.ptp(grey, axis=(1, 2))
    edges = (grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1])
    plain: np.ndarray = np.any([np.ptp(edge, axis=1) <= limit for edge in edges], axis=0)
    return plain


def _without_border(image: np.ndarray) -> PixelBox:
    """Return top, bottom, left and right of what is left when plain lines are cut off."""
    box: PixelBox = (0, image.shape[0], 0, image.shape[1])
    # A frame around a frame: the outer one hides that the inner one is plain.
    for _ in range(8):
        top, bottom, left, right = box
        inner = image[top:bottom, left:right]
        limit = _BORDER * float(inner.max() - inner.min())
        down = _busy(inner.max(axis=1) - inner.min(axis=1) > limit)
        across = _busy(inner.max(axis=0) - inner.min(axis=0) > limit)
        smaller = (top + down[0], top + down[1], left + across[0], left + across[1])
        if smaller == box:
            break
        box = smaller
    return box


def _busy(lines: np.ndarray) -> tuple[int, int]:
    """Return from where to where there are lines that are no border; all where there is none."""
    if not lines.any():
        return 0, len(lines)
    return int(lines.argmax()), len(lines) - int(lines[::-1].argmax())


def _shrunk(grey: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return float32 [n, 32, 32], the means of each image's box over equal rectangles.

    Args:
        grey: [n, h, w].
        boxes: int [n, 4], or [1, 4] for one box in all of them.
    """
    down = _shares(boxes[:, 0], boxes[:, 1], grey.shape[1])
    across = _shares(boxes[:, 2], boxes[:, 3], grey.shape[2])
    shrunk: np.ndarray = down @ grey @ across.transpose(0, 2, 1)
    return shrunk


def _shares(first: np.ndarray, last: np.ndarray, size: int) -> np.ndarray:
    """Return float32 [n, 32, size]: which share of each pixel goes into which mean."""
    step = (last - first)[:, None] / SIDE
    low = (first[:, None] + step * np.arange(SIDE))[:, :, None]
    pixel = np.arange(size)
    covered = np.minimum(low + step[:, :, None], pixel + 1) - np.maximum(low, pixel)
    shares: np.ndarray = (np.maximum(covered, 0) / step[:, :, None]).astype(np.float32)
    return shares


def _levelled(shrunk: np.ndarray) -> np.ndarray:
    """Return int8 with mean 0 and the largest value 127; zeros for a blank image."""
    level = shrunk - shrunk.mean(axis=(1, 2), keepdims=True)
    top = np.abs(level).max(axis=(1, 2), keepdims=True)
    blank = np.ptp(shrunk, axis=(1, 2), keepdims=True) < _BLANK
    scaled = np.where(blank, 0, level / np.where(top > 0, top, 1))
    found: np.ndarray = np.round(127 * scaled).astype(np.int8)
    return found
