"""Augmentation of a batch: builders of functions (images, generator) -> images.

Images are float32 [n, c, h, w] in [0, 1]. Each image gets a draw of its own, all draws come from
the generator given, and the batch given is not changed.
"""

from collections.abc import Callable, Sequence
from math import log, pi

import torch
from torch import Generator, Tensor
from torch.nn import functional

from fedrad.errors import ConfigError

__all__ = ["Transform", "chained", "flip", "gamma", "noise", "rotate", "scale", "shift"]

Transform = Callable[[Tensor, Generator], Tensor]


def chained(transforms: Sequence[Transform]) -> Transform:
    """Return the transforms one after the other; none of them changes nothing.

    >>> batch = torch.rand(2, 1, 8, 8)
    >>> torch.equal(chained([])(batch, torch.Generator()), batch)
    True
    """

    def composed(images: Tensor, generator: Generator) -> Tensor:
        for transform in transforms:
            images = transform(images, generator)
        return images

    return composed


def shift(*, pixels: int) -> Transform:
    """Return a move by whole pixels, up to so many down, up, left and right; black comes in.

    Raises:
        ConfigError: pixels is negative.
    """
    _not_negative("pixels", pixels)

    def shifted(images: Tensor, generator: Generator) -> Tensor:
        n, c, h, w = images.shape
        by = torch.randint(
            -pixels, pixels + 1, (2, n, 1), generator=generator, device=generator.device
        ).to(images.device)
        # From a frame of black, each image is read at its own offset.
        framed = functional.pad(images, (pixels,) * 4)
        rows = torch.arange(h, device=images.device) + pixels - by[0]
        columns = torch.arange(w, device=images.device) + pixels - by[1]
        moved = framed.gather(2, rows[:, None, :, None].expand(n, c, h, w + 2 * pixels))
        return moved.gather(3, columns[:, None, None, :].expand(n, c, h, w))

    return shifted


def rotate(*, degrees: float) -> Transform:
    """Return a turn about the centre by up to so many degrees either way; black comes in.

    Raises:
        ConfigError: degrees is negative.
    """
    _not_negative("degrees", degrees)

    def rotated(images: Tensor, generator: Generator) -> Tensor:
        angle = _uniform(images, generator) * (degrees * pi / 180)
        cos, sin = angle.cos(), angle.sin()
        # affine_grid's units are half a side: an oblong image must not shear.
        ratio = images.shape[2] / images.shape[3]
        return _resampled(images, (cos, -sin * ratio), (sin / ratio, cos))

    return rotated


def scale(*, factor: float) -> Transform:
    """Return an enlargement between 1 / factor and factor about the centre; black comes in.

    Raises:
        ConfigError: factor is below 1.
    """
    if not factor >= 1:
        raise ConfigError(f"factor: found {factor:g}; must be 1 or more")

    def scaled(images: Tensor, generator: Generator) -> Tensor:
        inverse = (_uniform(images, generator) * log(factor)).exp()
        none = torch.zeros_like(inverse)
        return _resampled(images, (inverse, none), (none, inverse))

    return scaled


def gamma(*, by: float) -> Transform:
    """Return grey levels raised to a power between exp(-by) and exp(by).

    Raises:
        ConfigError: by is negative.
    """
    _not_negative("by", by)

    def bent(images: Tensor, generator: Generator) -> Tensor:
        power = (_uniform(images, generator) * by).exp()
        return images.clamp(0, 1) ** power[:, None, None, None]

    return bent


def noise(*, sd: float) -> Transform:
    """Return images with Gaussian noise of a standard deviation in each pixel (full range is 1).

    Raises:
        ConfigError: sd is negative.
    """
    _not_negative("sd", sd)

    def noisy(images: Tensor, generator: Generator) -> Tensor:
        drawn = torch.randn(images.shape, generator=generator, device=generator.device)
        return images + sd * drawn.to(images.device)

    return noisy


def flip() -> Transform:
    """Return a mirror image, left for right, of every other image or so.

    Never a default: a mirrored chest film shows the heart on the right (situs inversus), a finding
    of its own, and markers and sides lose their meaning. For images without a side only.
    """

    def flipped(images: Tensor, generator: Generator) -> Tensor:
        chosen = _uniform(images, generator) < 0
        return torch.where(chosen[:, None, None, None], images.flip(3), images)

    return flipped


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    """Draw [n] between -1 and 1 where the generator lives; the same on every device."""
    drawn = torch.rand(len(images), generator=generator, device=generator.device)
    return (drawn * 2 - 1).to(images.device)


def _resampled(
    images: Tensor, across: tuple[Tensor, Tensor], down: tuple[Tensor, Tensor]
) -> Tensor:
    """Return images read at places given by a 2 x 2 matrix an image; bilinear, black outside."""
    none = torch.zeros_like(across[0])
    rows = torch.stack([*across, none, *down, none], dim=1)
    grid = functional.affine_grid(rows.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ConfigError(f"{name}: found {value:g}; must not be negative")
